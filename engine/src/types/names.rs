//! Types as SQL names them: the way back from a stored type to what `CREATE TABLE` takes.
//!
//! Invariant: a name that [`type_name`] gives means the same stored type again; a type that no
//! name means is shown as Arrow calls it, and [`type_name`] says so.

use arrow::datatypes::{DataType, TimeUnit};
use basalt_storage::schema::Column;

/// Words that are no names without quotes: PostgreSQL's reserved ones, and what the clauses of a
/// table's definition and of a query begin with here.
const RESERVED: &str = "\
    all analyse analyze and any array as asc asymmetric authorization between both case cast \
    check collate column connect constraint create cross cube current_catalog current_date \
    current_role current_schema current_time current_timestamp current_user default deferrable \
    desc distinct distkey diststyle do else end except exclude exists false fetch for foreign \
    from full global grant group grouping having ilike in initially inner intersect interval \
    into is isnull join lateral leading left like limit natural not notnull null offset on only \
    or order outer over partition placing primary qualify references returning right rollup \
    select session_user similar some sortkey table then to trailing true union unique user using \
    values when where with";

/// The SQL name of a type; an error holds Arrow's name of a type that SQL has no name for.
///
/// # Errors
///
/// For durations, arrays of fixed width bytes and times of seconds: files bring them, and no
/// `CREATE TABLE` can declare them.
pub fn type_name(data_type: &DataType) -> Result<String, String> {
    use DataType as T;
    Ok(match data_type {
        T::Boolean => "BOOLEAN".to_owned(),
        T::Int8 => "TINYINT".to_owned(),
        T::Int16 => "SMALLINT".to_owned(),
        T::Int32 => "INTEGER".to_owned(),
        T::Int64 => "BIGINT".to_owned(),
        T::UInt8 => "TINYINT UNSIGNED".to_owned(),
        T::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        T::UInt32 => "INTEGER UNSIGNED".to_owned(),
        T::UInt64 => "BIGINT UNSIGNED".to_owned(),
        T::Float32 => "REAL".to_owned(),
        T::Float64 => "DOUBLE".to_owned(),
        T::Decimal128(precision, scale) if *scale >= 0 => format!("DECIMAL({precision},{scale})"),
        T::Date32 => "DATE".to_owned(),
        T::Time64(TimeUnit::Microsecond) => "TIME(6)".to_owned(),
        T::Time64(TimeUnit::Nanosecond) => "TIME".to_owned(),
        T::Timestamp(unit, zone) => {
            let name = if zone.is_some() { "TIMESTAMPTZ" } else { "TIMESTAMP" };
            format!("{name}{}", digits(*unit))
        }
        T::Interval(_) => "INTERVAL".to_owned(),
        T::Utf8 | T::Utf8View | T::LargeUtf8 => "VARCHAR".to_owned(),
        T::Binary | T::BinaryView | T::LargeBinary => "BYTEA".to_owned(),
        T::List(item) => format!("{}[]", type_name(item.data_type())?),
        T::Struct(fields) => {
            let fields = fields.iter().map(|field| {
                Ok(format!("{} {}", identifier(field.name()), type_name(field.data_type())?))
            });
            format!("STRUCT<{}>", fields.collect::<Result<Vec<_>, String>>()?.join(", "))
        }
        T::Map(entries, _) => match entries.data_type() {
            T::Struct(fields) if fields.len() == 2 => format!(
                "MAP({}, {})",
                type_name(fields[0].data_type())?,
                type_name(fields[1].data_type())?
            ),
            _ => return Err(data_type.to_string()),
        },
        other => return Err(other.to_string()),
    })
}

/// The type of a column as it was declared, with its length; Arrow's name where SQL has none.
pub fn column_type_name(column: &Column) -> String {
    let name = type_name(&column.data_type).unwrap_or_else(|arrow| arrow);
    match column.declared.chars_max {
        Some(chars) => format!("{name}({chars})"),
        None => name,
    }
}

fn digits(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "(0)",
        TimeUnit::Millisecond => "(3)",
        TimeUnit::Microsecond => "(6)",
        TimeUnit::Nanosecond => "",
    }
}

/// A name as SQL writes it: in quotes unless it means itself without.
pub fn identifier(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !RESERVED.split_whitespace().any(|word| word == name);
    match plain {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}
