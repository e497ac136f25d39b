//! Storage types as protobuf. An encoding of our own rather than Arrow's flatbuffer, whose
//! reader panics on malformed bytes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, IntervalUnit, TimeUnit};

use super::proto;
use crate::types::{LIST_ITEM, MAP_KEY, MAP_VALUE, TYPE_DEPTH_MAX, map_type, storage_type};

/// Types without parameters, by their number on disk.
const SIMPLE: [(u32, DataType); 15] = [
    (1, DataType::Boolean),
    (2, DataType::Int8),
    (3, DataType::Int16),
    (4, DataType::Int32),
    (5, DataType::Int64),
    (6, DataType::UInt8),
    (7, DataType::UInt16),
    (8, DataType::UInt32),
    (9, DataType::UInt64),
    (10, DataType::Float32),
    (11, DataType::Float64),
    (12, DataType::Date32),
    (13, DataType::Utf8),
    (14, DataType::Binary),
    (15, DataType::Interval(IntervalUnit::MonthDayNano)),
];
const TIME: u32 = 20;
const TIMESTAMP: u32 = 21;
const DURATION: u32 = 22;
const DECIMAL: u32 = 23;
const FIXED_SIZE_BINARY: u32 = 24;
const LIST: u32 = 30;
const STRUCT: u32 = 31;
const MAP: u32 = 32;

/// The message for a storage type; `None` for any other type.
pub(super) fn to_proto(ty: &DataType) -> Option<proto::Type> {
    let kind = |kind: u32| proto::Type { kind, ..proto::Type::default() };
    if let Some((number, _)) = SIMPLE.iter().find(|(_, simple)| simple == ty) {
        return Some(kind(*number));
    }
    Some(match ty {
        DataType::Time32(unit) | DataType::Time64(unit) => {
            proto::Type { unit: unit_number(*unit), ..kind(TIME) }
        }
        DataType::Timestamp(unit, zone) => proto::Type {
            unit: unit_number(*unit),
            zone: zone.as_ref().map(ToString::to_string),
            ..kind(TIMESTAMP)
        },
        DataType::Duration(unit) => proto::Type { unit: unit_number(*unit), ..kind(DURATION) },
        DataType::Decimal128(precision, scale) => {
            proto::Type { width: (*precision).into(), scale: (*scale).into(), ..kind(DECIMAL) }
        }
        DataType::FixedSizeBinary(width) => {
            proto::Type { width: u32::try_from(*width).ok()?, ..kind(FIXED_SIZE_BINARY) }
        }
        DataType::List(item) => proto::Type { children: vec![child("", item)?], ..kind(LIST) },
        DataType::Struct(fields) => {
            let children = fields.iter().map(|f| child(f.name(), f)).collect::<Option<_>>()?;
            proto::Type { children, ..kind(STRUCT) }
        }
        DataType::Map(entries, false) => {
            let DataType::Struct(fields) = entries.data_type() else { return None };
            let children = fields.iter().map(|f| child("", f)).collect::<Option<_>>()?;
            proto::Type { children, ..kind(MAP) }
        }
        _ => return None,
    })
}

fn child(name: &str, field: &Field) -> Option<proto::Child> {
    let data_type = Some(to_proto(field.data_type())?);
    Some(proto::Child { name: name.to_owned(), data_type })
}

/// The type of a message; `None` when it names none, or none that is in storage form.
pub(super) fn from_proto(message: &proto::Type) -> Option<DataType> {
    let ty = parse(message, TYPE_DEPTH_MAX)?;
    (storage_type(&ty).ok().as_ref() == Some(&ty)).then_some(ty)
}

fn parse(message: &proto::Type, depth: usize) -> Option<DataType> {
    let depth = depth.checked_sub(1)?;
    let simple = SIMPLE.iter().find(|(number, _)| *number == message.kind);
    if let Some((_, ty)) = simple {
        return Some(ty.clone());
    }
    let children = &message.children;
    Some(match message.kind {
        TIME => match unit(message.unit)? {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => DataType::Time32(unit),
            unit => DataType::Time64(unit),
        },
        TIMESTAMP => {
            DataType::Timestamp(unit(message.unit)?, message.zone.as_deref().map(Arc::from))
        }
        DURATION => DataType::Duration(unit(message.unit)?),
        DECIMAL => DataType::Decimal128(
            u8::try_from(message.width).ok()?,
            i8::try_from(message.scale).ok()?,
        ),
        FIXED_SIZE_BINARY => DataType::FixedSizeBinary(i32::try_from(message.width).ok()?),
        LIST => match children.as_slice() {
            [item] => DataType::List(field(LIST_ITEM, item, true, depth)?),
            _ => return None,
        },
        STRUCT => DataType::Struct(
            children
                .iter()
                .map(|message| field(&message.name, message, true, depth))
                .collect::<Option<Fields>>()?,
        ),
        MAP => match children.as_slice() {
            [key, value] => {
                map_type(field(MAP_KEY, key, false, depth)?, field(MAP_VALUE, value, true, depth)?)
            }
            _ => return None,
        },
        _ => return None,
    })
}

fn field(name: &str, child: &proto::Child, nullable: bool, depth: usize) -> Option<FieldRef> {
    let data_type = parse(child.data_type.as_ref()?, depth)?;
    Some(Arc::new(Field::new(name, data_type, nullable)))
}

fn unit_number(unit: TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 2,
        TimeUnit::Microsecond => 3,
        TimeUnit::Nanosecond => 4,
    }
}

fn unit(number: u32) -> Option<TimeUnit> {
    Some(match number {
        1 => TimeUnit::Second,
        2 => TimeUnit::Millisecond,
        3 => TimeUnit::Microsecond,
        4 => TimeUnit::Nanosecond,
        _ => return None,
    })
}
