//! Results as text, for every type and NULL.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    Float64Array, Int32Array, Int64Array, IntervalMonthDayNanoArray, ListArray, NullArray,
    RecordBatch, StringArray, StringViewArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, IntervalMonthDayNano};
use basalt_cli::format::{Format, TableOptions, to_text};

fn text(format: Format, batch: &RecordBatch, options: TableOptions) -> String {
    to_text(format, &batch.schema(), std::slice::from_ref(batch), options).unwrap()
}

fn check(format: Format, batch: &RecordBatch, expected: &str) {
    assert_eq!(text(format, batch, TableOptions::default()), expected);
}

/// One row of values and one of NULLs, in every kind of type.
fn all_types() -> RecordBatch {
    let decimal = Decimal128Array::from(vec![Some(-1_250), None]);
    let interval = IntervalMonthDayNano::new(14, 3, 1_500_000_000);
    let fields =
        vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)];
    let members: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(1), None])),
        Arc::new(StringArray::from(vec![None, Some("x")])),
    ];
    let nulls = arrow::buffer::NullBuffer::from(vec![true, false]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("float", Arc::new(Float64Array::from(vec![Some(0.5), None]))),
        ("decimal", Arc::new(decimal.with_precision_and_scale(9, 2).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![Some(0), None]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(3_600_000_000), None]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_500_000), None]))),
        (
            "tz",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]).with_timezone("+02:00")),
        ),
        ("interval", Arc::new(IntervalMonthDayNanoArray::from(vec![Some(interval), None]))),
        ("text", Arc::new(StringViewArray::from(vec![Some("a|b"), None]))),
        ("dict", Arc::new([Some("d"), None].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("binary", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None]))),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
                Some([Some(1), None]),
                None,
            ])),
        ),
        ("struct", Arc::new(StructArray::new(fields.into(), members, Some(nulls)))),
        ("null", Arc::new(NullArray::new(2))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

#[test]
fn csv_writes_every_type_and_null_as_nothing() {
    check(
        Format::Csv,
        &all_types(),
        "bool,int,float,decimal,date,time,ts,tz,interval,text,dict,binary,list,struct,null\n\
         true,-9223372036854775808,0.5,-12.50,1970-01-01,01:00:00,1970-01-01 00:00:01.500,\
         1970-01-01 02:00:00+02:00,14 mons 3 days 1.500000000 secs,a|b,d,00ff,\"[1, NULL]\",\
         \"{a: 1, b: NULL}\",\n\
         ,,,,,,,,,,,,,,\n",
    );
}

#[test]
fn json_writes_every_type_and_null_as_null() {
    let output = text(Format::Json, &all_types(), TableOptions::default());
    let rows: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2, "{output}");
    let object = rows[0].as_object().unwrap();
    assert_eq!(object.len(), 15);
    assert_eq!(object["bool"], true);
    assert_eq!(object["int"], i64::MIN);
    assert_eq!(object["float"], 0.5);
    assert!(output.contains("\"decimal\":-12.50"), "all digits of a decimal: {output}");
    assert_eq!(object["ts"], "1970-01-01T00:00:01.500");
    assert_eq!(object["binary"], "00ff");
    assert_eq!(object["list"], serde_json::json!([1, null]));
    assert!(rows[1].as_object().unwrap().values().all(serde_json::Value::is_null), "{output}");
}

#[test]
fn tables_write_every_type_and_null_as_null() {
    let output = text(Format::Table, &all_types(), TableOptions::default());
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    assert!(lines[2].contains(" -12.50 ") && lines[2].contains(" [1, NULL] "), "{output}");
    assert_eq!(lines[3].matches("NULL").count(), 15, "{output}");
}

fn names_and_numbers() -> RecordBatch {
    RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(vec![Some("äpfel"), Some(""), None])) as ArrayRef),
        ("qty", Arc::new(Int64Array::from(vec![Some(3), None, Some(1200)]))),
    ])
    .unwrap()
}

#[test]
fn numbers_are_aligned_to_the_right_and_text_to_the_left() {
    check(
        Format::Table,
        &names_and_numbers(),
        " name  | qty\n-------+------\n äpfel |    3\n       | NULL\n NULL  | 1200\n",
    );
}

#[test]
fn csv_tells_null_from_the_empty_string_and_quotes_what_needs_it() {
    check(Format::Csv, &names_and_numbers(), "name,qty\näpfel,3\n\"\",\n,1200\n");
    let odd: ArrayRef = Arc::new(StringArray::from(vec!["a,b", "say \"x\"", "two\nlines"]));
    let batch = RecordBatch::try_from_iter([("c,d", odd)]).unwrap();
    check(Format::Csv, &batch, "\"c,d\"\n\"a,b\"\n\"say \"\"x\"\"\"\n\"two\nlines\"\n");
}

#[test]
fn an_empty_result_still_has_its_header() {
    let empty = names_and_numbers().slice(0, 0);
    check(Format::Csv, &empty, "name,qty\n");
    check(Format::Json, &empty, "");
    check(Format::Table, &empty, " name | qty\n------+-----\n");
    let none = to_text(Format::Csv, &empty.schema(), &[], TableOptions::default()).unwrap();
    assert_eq!(none, "name,qty\n", "also when no batch came");
}

#[test]
fn json_keys_are_unique() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let two: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    let batch = RecordBatch::try_from_iter([("a", one), ("a", two)]).unwrap();
    check(Format::Json, &batch, "{\"a\":1,\"a_1\":2}\n");
}

#[test]
fn a_table_is_cut_to_the_screen_and_to_the_rows_asked_for() {
    let long = "x".repeat(100);
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef),
        ("text", Arc::new(StringArray::from(vec![long.as_str(), "short", "third"]))),
    ])
    .unwrap();
    let options = TableOptions { width: Some(30), rows_max: Some(2), ..Default::default() };
    let output = text(Format::Table, &batch, options);
    assert!(output.lines().all(|line| line.chars().count() <= 30), "{output}");
    assert!(output.contains("xxx…"), "{output}");
    assert!(output.contains("short") && !output.contains("third"), "{output}");
}

#[test]
fn control_characters_cannot_break_a_table() {
    let odd: ArrayRef = Arc::new(StringArray::from(vec!["a\nb\x1b[2J"]));
    let batch = RecordBatch::try_from_iter([("c", odd)]).unwrap();
    let output = text(Format::Table, &batch, TableOptions::default());
    assert!(output.contains("a\\nb\\u{1b}[2J"), "{output}");
}

#[test]
fn expanded_rows_are_records() {
    let options = TableOptions { expanded: true, ..Default::default() };
    let output = text(Format::Table, &names_and_numbers(), options);
    assert!(output.starts_with("-[ RECORD 1 ]----\nname | äpfel\nqty  | 3\n"), "{output}");
    assert!(output.contains("-[ RECORD 3 ]"), "{output}");
}

#[test]
fn a_long_table_is_written_whole_when_nothing_limits_it() {
    let numbers: ArrayRef = Arc::new((0..5_000_i64).collect::<Int64Array>());
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let output = text(Format::Table, &batch, TableOptions::default());
    assert_eq!(output.lines().count(), 5_002);
    assert!(output.ends_with(" 4999\n"));
}

#[test]
fn plans_are_shown_line_by_line_and_never_cut() {
    let kinds: ArrayRef = Arc::new(StringArray::from(vec!["logical_plan", "physical_plan"]));
    let plans: ArrayRef =
        Arc::new(StringArray::from(vec!["Limit\n  TableScan: t\n", "┌── a line that is wider"]));
    let batch = RecordBatch::try_from_iter([("plan_type", kinds), ("plan", plans)]).unwrap();
    let narrow = TableOptions { width: Some(12), ..TableOptions::default() };
    assert_eq!(
        text(Format::Table, &batch, narrow),
        "-- logical_plan\nLimit\n  TableScan: t\n-- physical_plan\n┌── a line that is wider\n"
    );
}
