//! The types in which columns of foreign Parquet files are decoded and handed out.
//!
//! Invariant: the form of a set depends on the logical types alone, so that files of different
//! writers, which name and nest the same things differently, have the same one.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, IntervalUnit};

/// A column in the form that all files of a set share.
pub(super) fn set_form(field: &Field) -> FieldRef {
    Arc::new(Field::new(field.name(), convert_type(field.data_type(), Form::Set, true), true))
}

/// A column as it is decoded: text and bytes as views at the top, in plain form below.
pub(super) fn file_form(field: &FieldRef) -> FieldRef {
    let data_type = convert_type(field.data_type(), Form::File, true);
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Which names and nullability nested fields get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Those of the file, which its decoder insists on.
    File,
    /// The same for all files of a set.
    Set,
}

fn convert_type(data_type: &DataType, form: Form, top: bool) -> DataType {
    use DataType as T;
    let child = |field: &FieldRef, name: &str, nullable: bool| -> FieldRef {
        let data_type = convert_type(field.data_type(), form, false);
        match form {
            Form::File => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            Form::Set => Arc::new(Field::new(name, data_type, nullable)),
        }
    };
    match data_type {
        T::Utf8 | T::LargeUtf8 | T::Utf8View if top => T::Utf8View,
        T::Binary | T::LargeBinary | T::BinaryView if top => T::BinaryView,
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView => T::Binary,
        T::Dictionary(_, value) => convert_type(value, form, top),
        T::RunEndEncoded(_, value) => convert_type(value.data_type(), form, top),
        T::Interval(_) if form == Form::Set => T::Interval(IntervalUnit::MonthDayNano),
        // Some writers use a wider decimal than its digits need.
        T::Decimal256(digits, scale)
            if form == Form::Set && *digits <= DECIMAL128_MAX_PRECISION =>
        {
            T::Decimal128(*digits, *scale)
        }
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) => {
            T::List(child(item, Field::LIST_FIELD_DEFAULT_NAME, true))
        }
        T::FixedSizeList(item, length) => {
            T::FixedSizeList(child(item, Field::LIST_FIELD_DEFAULT_NAME, true), *length)
        }
        T::Struct(fields) => T::Struct(fields.iter().map(|f| child(f, f.name(), true)).collect()),
        // Whether keys are sorted is a note of the writer, and no property of the type.
        T::Map(entries, _) => T::Map(map_entries(entries, form, &child), false),
        other => other.clone(),
    }
}

fn map_entries(
    entries: &FieldRef,
    form: Form,
    child: &dyn Fn(&FieldRef, &str, bool) -> FieldRef,
) -> FieldRef {
    let inner = match entries.data_type() {
        DataType::Struct(fields) => {
            let named = fields.iter().zip(["key", "value"]);
            let fields: Fields =
                named.map(|(field, name)| child(field, name, name == "value")).collect();
            DataType::Struct(fields)
        }
        other => other.clone(),
    };
    Arc::new(match form {
        Form::File => entries.as_ref().clone().with_data_type(inner),
        Form::Set => Field::new("entries", inner, false),
    })
}

/// `Some` when a type nests no deeper than `depth`.
pub(super) fn check_depth(data_type: &DataType, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => check_depth(field.data_type(), depth),
        DataType::Struct(fields) => {
            fields.iter().try_for_each(|field| check_depth(field.data_type(), depth))
        }
        _ => Some(()),
    }
}
