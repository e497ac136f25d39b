//! SQL type names as Arrow types.
//!
//! The same function serves `CREATE TABLE` and, as a planner extension, `CAST`, so that a name
//! means one type everywhere. Where DataFusion knows a name, its meaning is kept.
//!
//! A length, as in `VARCHAR(n)`, is never ignored: a column keeps it ([`split_length`]) and writes
//! enforce it, a cast cuts to it (`dialect::query`), and anywhere else it is refused.

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit,
};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryLength, CharLengthUnits, CharacterLength, DataType as SqlType,
    ExactNumberInfo, TimezoneInfo,
};

use super::scan_type;
use crate::dialect::names;
use crate::error::{ErrorCode, SqlError, printable};

/// The time zone of `TIMESTAMP WITH TIME ZONE`: values are instants, kept in UTC.
pub const TIME_ZONE: &str = "UTC";

/// Digits of a `DECIMAL` without precision, and those after its point: DataFusion's default.
const DECIMAL_DEFAULT: (u8, i8) = (38, 10);

/// The longest length that can be declared, PostgreSQL's: 10 MiB.
const CHARS_MAX: u32 = 10_485_760;

/// The Arrow type that an SQL type name means.
///
/// # Errors
///
/// [`ErrorCode::FeatureNotSupported`] for types that this engine does not have, and
/// [`ErrorCode::InvalidParameter`] for precisions that do not exist.
pub fn arrow_type(sql_type: &SqlType) -> Result<DataType, SqlError> {
    use SqlType as S;
    if has_length(sql_type) {
        return Err(SqlError::new(
            ErrorCode::FeatureNotSupported,
            format!("type {sql_type} has a length, which only columns and casts of text can have"),
        )
        .with_hint("leave the length out"));
    }
    Ok(match sql_type {
        S::Boolean | S::Bool => DataType::Boolean,
        S::TinyInt(_) => DataType::Int8,
        S::SmallInt(_) | S::Int2(_) | S::Int16 => DataType::Int16,
        S::Int(_) | S::Integer(_) | S::Int4(_) | S::Int32 => DataType::Int32,
        S::BigInt(_) | S::Int8(_) | S::Int64 => DataType::Int64,
        S::TinyIntUnsigned(_) | S::UTinyInt | S::UInt8 => DataType::UInt8,
        S::SmallIntUnsigned(_) | S::Int2Unsigned(_) | S::USmallInt | S::UInt16 => DataType::UInt16,
        S::IntUnsigned(_) | S::IntegerUnsigned(_) | S::Int4Unsigned(_) | S::UInt32 => {
            DataType::UInt32
        }
        S::BigIntUnsigned(_) | S::Int8Unsigned(_) | S::UBigInt | S::UInt64 => DataType::UInt64,
        S::Real | S::Float4 | S::Float32 => DataType::Float32,
        S::Double(ExactNumberInfo::None) | S::DoublePrecision | S::Float8 | S::Float64 => {
            DataType::Float64
        }
        S::Float(info) => float(info, sql_type)?,
        S::Numeric(info) | S::Decimal(info) | S::Dec(info) => decimal(info)?,
        S::Date | S::Date32 => DataType::Date32,
        S::Time(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(time_unit(*precision, TimeUnit::Microsecond)?)
        }
        S::Timestamp(precision, zone) => {
            let unit = time_unit(*precision, TimeUnit::Second)?;
            let zoned = matches!(zone, TimezoneInfo::Tz | TimezoneInfo::WithTimeZone);
            DataType::Timestamp(unit, zoned.then(|| TIME_ZONE.into()))
        }
        S::TimestampNtz(precision) | S::Datetime(precision) => {
            DataType::Timestamp(time_unit(*precision, TimeUnit::Second)?, None)
        }
        S::Interval { fields: None, precision: None } => {
            DataType::Interval(IntervalUnit::MonthDayNano)
        }
        S::Varchar(_)
        | S::Nvarchar(_)
        | S::Char(_)
        | S::Character(_)
        | S::CharacterVarying(_)
        | S::CharVarying(_)
        | S::CharacterLargeObject(_)
        | S::CharLargeObject(_)
        | S::Clob(_)
        | S::Text
        | S::String(_) => DataType::Utf8,
        S::Bytea | S::Binary(_) | S::Varbinary(_) | S::Blob(_) | S::Bytes(_) => DataType::Binary,
        S::Array(element) => list(element, sql_type)?,
        S::Struct(fields, _) => {
            let fields = fields.iter().enumerate().map(|(index, field)| {
                let name = match &field.field_name {
                    Some(ident) => names::normalize(ident)?,
                    None => format!("c{index}"),
                };
                Ok(Field::new(name, arrow_type(&field.field_type)?, true))
            });
            DataType::Struct(fields.collect::<Result<Fields, SqlError>>()?)
        }
        S::Map(key, value) => {
            let key = Field::new("key", arrow_type(key)?, false);
            let value = Field::new("value", arrow_type(value)?, true);
            let entries = DataType::Struct(Fields::from(vec![key, value]));
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        _ => return Err(unsupported(sql_type)),
    })
}

/// Whether a type of text or bytes says how long values may be.
fn has_length(sql_type: &SqlType) -> bool {
    use SqlType as S;
    match sql_type {
        S::Varchar(length)
        | S::Nvarchar(length)
        | S::Char(length)
        | S::Character(length)
        | S::CharacterVarying(length)
        | S::CharVarying(length) => {
            length.is_some_and(|length| matches!(length, CharacterLength::IntegerLength { .. }))
        }
        S::CharacterLargeObject(length)
        | S::CharLargeObject(length)
        | S::Clob(length)
        | S::String(length)
        | S::Binary(length)
        | S::Blob(length)
        | S::Bytes(length) => length.is_some(),
        S::Varbinary(length) => matches!(length, Some(BinaryLength::IntegerLength { .. })),
        _ => false,
    }
}

/// `VARCHAR(n)` and its other spellings as the type without a length, and the `n`. A `CHAR`
/// without one has one character, as in the standard; it is not padded with spaces.
///
/// # Errors
///
/// [`ErrorCode::InvalidParameter`] when `n` is no length, or counts something else than characters.
pub fn split_length(sql_type: &SqlType) -> Result<(SqlType, Option<u32>), SqlError> {
    use SqlType as S;
    let length = match sql_type {
        S::Char(None) | S::Character(None) => return Ok((S::Text, Some(1))),
        S::Varchar(length)
        | S::Nvarchar(length)
        | S::Char(length)
        | S::Character(length)
        | S::CharacterVarying(length)
        | S::CharVarying(length) => length,
        other => return Ok((other.clone(), None)),
    };
    let Some(CharacterLength::IntegerLength { length, unit }) = length else {
        return Ok((S::Text, None));
    };
    let chars = u32::try_from(*length).ok().filter(|chars| (1..=CHARS_MAX).contains(chars));
    match (chars, unit) {
        (Some(chars), None | Some(CharLengthUnits::Characters)) => Ok((S::Text, Some(chars))),
        _ => Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("type {sql_type} has no possible length"),
        )
        .with_hint(format!("VARCHAR(n) has 1 to {CHARS_MAX} characters; TEXT has no limit"))),
    }
}

/// SQL standard: `FLOAT(n)` has n binary digits. Bare `FLOAT` is four bytes, as in DataFusion.
fn float(info: &ExactNumberInfo, sql_type: &SqlType) -> Result<DataType, SqlError> {
    match info {
        ExactNumberInfo::None | ExactNumberInfo::Precision(1..=24) => Ok(DataType::Float32),
        ExactNumberInfo::Precision(25..=53) => Ok(DataType::Float64),
        _ => Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("type {sql_type} has a precision that is not between 1 and 53"),
        )),
    }
}

fn decimal(info: &ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => {
            return Ok(DataType::Decimal128(DECIMAL_DEFAULT.0, DECIMAL_DEFAULT.1));
        }
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let digits =
        u8::try_from(precision).ok().filter(|p| (1..=DECIMAL128_MAX_PRECISION).contains(p));
    let after_point =
        i8::try_from(scale).ok().filter(|s| *s >= 0 && scale.unsigned_abs() <= precision);
    match (digits, after_point) {
        (Some(digits), Some(after_point)) => Ok(DataType::Decimal128(digits, after_point)),
        _ => Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("type DECIMAL({precision},{scale}) does not exist"),
        )
        .with_hint(format!(
            "DECIMAL(p,s) has 1 to {DECIMAL128_MAX_PRECISION} digits, of which 0 to p are after the point"
        ))),
    }
}

/// The coarsest unit, from `coarsest` on, with this many digits after the second; nanoseconds by
/// default, as in DataFusion.
fn time_unit(digits: Option<u64>, coarsest: TimeUnit) -> Result<TimeUnit, SqlError> {
    let exact = match digits {
        Some(0) => TimeUnit::Second,
        Some(1..=3) => TimeUnit::Millisecond,
        Some(4..=6) => TimeUnit::Microsecond,
        None | Some(7..=9) => TimeUnit::Nanosecond,
        Some(digits) => {
            return Err(SqlError::new(
                ErrorCode::InvalidParameter,
                format!("{digits} digits after the second are more than the 9 there are"),
            ));
        }
    };
    Ok(exact.max(coarsest))
}

fn list(element: &ArrayElemTypeDef, sql_type: &SqlType) -> Result<DataType, SqlError> {
    let item = |inner: &SqlType| Ok(Arc::new(Field::new_list_field(arrow_type(inner)?, true)));
    match element {
        ArrayElemTypeDef::AngleBracket(inner)
        | ArrayElemTypeDef::Parenthesis(inner)
        | ArrayElemTypeDef::SquareBracket(inner, None) => Ok(DataType::List(item(inner)?)),
        ArrayElemTypeDef::SquareBracket(inner, Some(length)) => match i32::try_from(*length) {
            Ok(length) if length > 0 => Ok(DataType::FixedSizeList(item(inner)?, length)),
            _ => Err(SqlError::new(
                ErrorCode::InvalidParameter,
                format!("type {sql_type} has an array length that is out of range"),
            )),
        },
        ArrayElemTypeDef::None => Err(unsupported(sql_type).with_hint("write INT[] or ARRAY<INT>")),
    }
}

fn unsupported(sql_type: &SqlType) -> SqlError {
    let name: String = sql_type.to_string().chars().take(60).collect();
    SqlError::new(
        ErrorCode::FeatureNotSupported,
        format!("type {} is not supported", printable(&name)),
    )
    .with_hint(
        "types are BOOLEAN, TINYINT to BIGINT (also UNSIGNED), REAL, DOUBLE, DECIMAL, DATE, TIME, \
         TIMESTAMP, TIMESTAMPTZ, INTERVAL, VARCHAR, BYTEA, arrays, STRUCT and MAP",
    )
}

/// Gives DataFusion's planner our meaning of type names, for `CAST` and typed literals.
#[derive(Debug, Clone, Copy, Default)]
pub struct SqlTypes;

impl TypePlanner for SqlTypes {
    fn plan_type_field(&self, sql_type: &SqlType) -> DataFusionResult<Option<FieldRef>> {
        let data_type = scan_type(&arrow_type(sql_type)?);
        // An array's and a struct's inner fields keep their plain form, as scans have them.
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}
