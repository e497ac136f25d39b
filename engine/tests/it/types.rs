//! SQL names of types, stored, scan and wire forms.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Decimal128Array, DictionaryArray, Int32Array, ListBuilder, RecordBatch,
    StringViewArray, StringViewBuilder, StructArray,
};
use arrow::datatypes::{DataType, Field, Fields, Int32Type, IntervalUnit, Schema, TimeUnit};
use basalt_engine::dialect::{self, Statement};
use basalt_engine::error::ErrorCode;
use basalt_engine::types::{
    arrow_type, scan_type, storage_type, storage_type_of, to_wire, wire_schema, wire_type,
};

fn declared(name: &str) -> Result<DataType, basalt_engine::error::SqlError> {
    let sql = format!("CREATE TABLE t (a {name})");
    match dialect::parse_one(&sql)?.statement {
        Statement::CreateTable(table) => storage_type_of(&table.columns[0].data_type),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_mean_types() {
    use DataType as T;
    let utc = || Some("UTC".into());
    for (name, expected) in [
        ("BOOLEAN", T::Boolean),
        ("TINYINT", T::Int8),
        ("INT2", T::Int16),
        ("INTEGER", T::Int32),
        ("INT8", T::Int64),
        ("BIGINT UNSIGNED", T::UInt64),
        ("TINYINT UNSIGNED", T::UInt8),
        ("REAL", T::Float32),
        ("FLOAT", T::Float32),
        ("FLOAT(53)", T::Float64),
        ("DOUBLE PRECISION", T::Float64),
        ("DECIMAL", T::Decimal128(38, 10)),
        ("NUMERIC(12)", T::Decimal128(12, 0)),
        ("DECIMAL(38, 38)", T::Decimal128(38, 38)),
        ("DATE", T::Date32),
        ("TIME", T::Time64(TimeUnit::Nanosecond)),
        ("TIME(3)", T::Time64(TimeUnit::Microsecond)),
        ("TIMESTAMP", T::Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP(0)", T::Timestamp(TimeUnit::Second, None)),
        ("TIMESTAMP(6) WITH TIME ZONE", T::Timestamp(TimeUnit::Microsecond, utc())),
        ("TIMESTAMPTZ", T::Timestamp(TimeUnit::Nanosecond, utc())),
        ("INTERVAL", T::Interval(IntervalUnit::MonthDayNano)),
        ("VARCHAR", T::Utf8),
        ("CHARACTER VARYING(10)", T::Utf8),
        ("CHAR(3)", T::Utf8),
        ("TEXT", T::Utf8),
        ("BYTEA", T::Binary),
        ("VARBINARY", T::Binary),
        ("INT[]", T::List(Arc::new(Field::new_list_field(T::Int32, true)))),
        ("ARRAY<TEXT>", T::List(Arc::new(Field::new_list_field(T::Utf8, true)))),
    ] {
        assert_eq!(declared(name).unwrap(), expected, "{name}");
    }
    let DataType::Struct(fields) = declared("STRUCT<a INT, \"B\" TEXT[]>").unwrap() else {
        panic!()
    };
    assert_eq!((fields[0].name().as_str(), fields[1].name().as_str()), ("a", "B"));
    assert!(matches!(declared("MAP(TEXT, INT)").unwrap(), DataType::Map(..)));
}

#[test]
fn names_without_a_type_are_refused_by_name() {
    for (name, code) in [
        ("MONEY", ErrorCode::FeatureNotSupported),
        ("SUPER", ErrorCode::FeatureNotSupported),
        ("TIMETZ", ErrorCode::FeatureNotSupported),
        ("DECIMAL(39, 0)", ErrorCode::InvalidParameter),
        ("DECIMAL(5, 6)", ErrorCode::InvalidParameter),
        ("TIMESTAMP(10)", ErrorCode::InvalidParameter),
        ("FLOAT(54)", ErrorCode::InvalidParameter),
        ("HUGEINT", ErrorCode::FeatureNotSupported),
        ("SERIAL", ErrorCode::FeatureNotSupported),
        ("VARBINARY(10)", ErrorCode::FeatureNotSupported),
        ("VARCHAR(3)[]", ErrorCode::FeatureNotSupported),
        ("VARCHAR(0)", ErrorCode::InvalidParameter),
    ] {
        assert_eq!(declared(name).unwrap_err().code, code, "{name}");
    }
}

#[test]
fn a_declared_type_survives_storage_and_scan() {
    for name in ["TEXT", "BYTEA", "TEXT[]", "STRUCT<a TEXT>", "DECIMAL(9,2)", "TIMESTAMPTZ"] {
        let stored = declared(name).unwrap();
        assert_eq!(storage_type(&scan_type(&stored)).unwrap(), stored, "{name}");
    }
    let parsed = dialect::parse_one("CREATE TABLE t (a TEXT)").unwrap().statement;
    let Statement::CreateTable(table) = parsed else { panic!() };
    assert_eq!(arrow_type(&table.columns[0].data_type).unwrap(), DataType::Utf8);
}

#[test]
fn the_wire_has_plain_nullable_types_at_every_depth() {
    let view = || Field::new("v", DataType::Utf8View, false);
    let nested = DataType::Struct(Fields::from(vec![
        Field::new("l", DataType::LargeList(Arc::new(view())), false),
        Field::new(
            "d",
            DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8)),
            false,
        ),
        Field::new("n", DataType::Decimal64(10, 2), false),
    ]));
    let expected = DataType::Struct(Fields::from(vec![
        Field::new("l", DataType::List(Arc::new(Field::new("v", DataType::Utf8, true))), true),
        Field::new("d", DataType::Utf8, true),
        Field::new("n", DataType::Decimal128(10, 2), true),
    ]));
    assert_eq!(wire_type(&nested), expected);
    assert_eq!(wire_type(&DataType::Null), DataType::Null);
    assert_eq!(wire_type(&wire_type(&nested)), expected);
}

#[test]
fn batches_are_cast_to_the_wire_schema() {
    let mut list = ListBuilder::new(StringViewBuilder::new());
    list.append_value([Some("x"), None]);
    list.append_null();
    let list: ArrayRef = Arc::new(list.finish());
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let inner = StructArray::from(vec![(
        Arc::new(Field::new("s", DataType::Utf8View, false)),
        Arc::new(StringViewArray::from(vec!["p", "q"])) as ArrayRef,
    )]);
    let schema = Arc::new(Schema::new(vec![
        Field::new("list", list.data_type().clone(), true),
        Field::new("dictionary", dictionary.data_type().clone(), true),
        Field::new("number", DataType::Int32, false),
        Field::new("number", DataType::Int32, false),
        Field::new("struct", inner.data_type().clone(), false),
    ]));
    let columns = vec![
        list,
        Arc::new(dictionary) as ArrayRef,
        Arc::clone(&numbers),
        numbers,
        Arc::new(inner),
    ];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let wire = wire_schema(&schema);
    assert!(wire.fields().iter().all(|field| field.is_nullable()));
    let sent = to_wire(&batch, &wire).unwrap();
    assert_eq!(sent.schema(), wire);
    assert_eq!(sent.num_rows(), 2);
    // Once more changes nothing.
    assert_eq!(to_wire(&sent, &wire).unwrap(), sent);
}

#[test]
fn a_batch_that_was_not_announced_is_a_bug_and_not_a_cast() {
    let schema = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
    let batch =
        RecordBatch::try_from_iter([("a", Arc::new(Int32Array::from(vec![1])) as ArrayRef)])
            .unwrap();
    assert_eq!(to_wire(&batch, &wire_schema(&schema)).unwrap_err().code, ErrorCode::Internal);
    let empty = wire_schema(&Schema::empty());
    assert_eq!(to_wire(&batch, &empty).unwrap_err().code, ErrorCode::Internal);
}

#[test]
fn a_decimal_of_another_precision_is_cast_to_the_one_that_was_announced() {
    let announced =
        wire_schema(&Schema::new(vec![Field::new("s", DataType::Decimal128(5, 2), true)]));
    let batch = |value: i128| {
        let sums = Decimal128Array::from(vec![value]).with_precision_and_scale(15, 2).unwrap();
        RecordBatch::try_from_iter([("s", Arc::new(sums) as ArrayRef)]).unwrap()
    };
    let wire = to_wire(&batch(99_999), &announced).unwrap();
    assert_eq!(wire.schema(), announced);
    assert!(to_wire(&batch(100_000), &announced).is_err(), "1000.00 has more than five digits");
}
