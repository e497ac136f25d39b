//! What goes in comes out: every type, NULLs, no rows, one row, several row groups.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use basalt_storage::ids::ColumnId;
use basalt_storage::layout::{ROW_GROUP_ROWS, SEGMENT_ROWS_MAX};
use basalt_storage::manifest::{Layout, SegmentRecord};
use basalt_storage::segment_reader::{RowSelection, RowSelector, decode_row_group};
use basalt_storage::segment_writer::{RowSource, SegmentWriter, WriterOptions};
use basalt_storage::types::view_type;
use basalt_storage::zone_map::ZoneValue;
use proptest::prelude::*;

use crate::arrays::{Random, random_array, storable_types};
use crate::support::{TestStore, batch, code, encoded, read_column, schema, spec};

/// Writes a column of random values and reads it back, as it is and as views.
fn check(ty: &DataType, rows: usize, nullable: bool, low: bool, seed: u64) {
    let array = random_array(&mut Random(seed), ty, rows, nullable, low);
    let schema = schema(&[(ty.clone(), nullable)]);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    // In three batches, so that row groups are put together from pieces.
    for (start, end) in [(0, rows / 3), (rows / 3, rows / 2), (rows / 2, rows)] {
        let piece = array.slice(start, end - start);
        writer.append(batch(&schema, vec![piece])).unwrap();
    }
    let test = TestStore::new();
    let record = writer.finish(&test.store).unwrap();
    assert_eq!(record.rows, rows as u64);
    assert_eq!(record.columns[&ColumnId(1)].zone.null_count, array.null_count() as u64);

    let read = read_column(&test.store, &record, 1, ty).unwrap();
    assert_eq!(read.to_data(), array.to_data(), "{ty}");
    let views = view_type(ty);
    if views != *ty && !ty.is_nested() {
        let read = read_column(&test.store, &record, 1, &views).unwrap();
        assert_eq!(read.to_data(), cast(&array, &views).unwrap().to_data(), "{views}");
    }
}

#[test]
fn every_type_comes_back_with_and_without_nulls() {
    for (seed, ty) in storable_types().iter().enumerate() {
        for rows in [0, 1, 100] {
            check(ty, rows, true, false, seed as u64);
            check(ty, rows, false, true, seed as u64);
        }
    }
}

#[test]
fn segments_of_several_row_groups_come_back() {
    let rows = ROW_GROUP_ROWS as usize + 5;
    for (seed, ty) in
        [DataType::Utf8, DataType::Int64, DataType::Decimal128(15, 2)].iter().enumerate()
    {
        check(ty, rows, true, false, seed as u64);
        check(ty, rows, true, true, seed as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_columns_come_back(
        ty in prop::sample::select(storable_types()),
        rows in 0_usize..3_000,
        nullable: bool,
        low: bool,
        seed: u64,
    ) {
        check(&ty, rows, nullable, low, seed);
    }
}

#[test]
fn small_segments_are_packed_and_large_ones_wide() {
    let column = |rows: i32| -> ArrayRef { Arc::new(Int32Array::from_iter_values(0..rows)) };
    assert_eq!(encoded(vec![column(65_535)]).record().layout, Layout::Packed);
    assert_eq!(encoded(vec![column(65_536)]).record().layout, Layout::Wide);
    assert_eq!(encoded(vec![column(65_536)]).files().len(), 1);
}

#[test]
fn tables_of_very_many_columns_are_packed_at_any_size() {
    let column: ArrayRef = Arc::new(Int32Array::from(vec![7; 65_536]));
    let segment = encoded(vec![column; 1_001]);
    assert_eq!(segment.record().layout, Layout::Packed);
    assert_eq!(segment.files().len(), 1);
}

#[test]
fn rows_come_back_sorted_with_nulls_last() {
    let schema = schema(&[(DataType::Int32, true), (DataType::Utf8, true)]);
    let mut spec = spec(Arc::clone(&schema));
    spec.sort_key = vec![ColumnId(1), ColumnId(2)];
    let mut writer = SegmentWriter::new(spec, WriterOptions::default()).unwrap();
    let numbers = [vec![Some(3), None, Some(1)], vec![Some(2), Some(1)]];
    let texts = [vec![Some("c"), Some("x"), None], vec![Some("b"), Some("a")]];
    for (numbers, texts) in numbers.into_iter().zip(texts) {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(numbers)), Arc::new(StringArray::from(texts))];
        writer.append(batch(&schema, columns)).unwrap();
    }
    let test = TestStore::new();
    let record = writer.finish(&test.store).unwrap();
    let numbers = read_column(&test.store, &record, 1, &DataType::Int32).unwrap();
    assert_eq!(
        numbers.as_primitive::<Int32Type>(),
        &Int32Array::from(vec![Some(1), Some(1), Some(2), Some(3), None])
    );
    let texts = read_column(&test.store, &record, 2, &DataType::Utf8).unwrap();
    assert_eq!(
        texts.as_string::<i32>(),
        &StringArray::from(vec![Some("a"), None, Some("b"), Some("c"), Some("x")])
    );
    assert_eq!(test.store.segment_meta(&record).unwrap().sort_key(), [ColumnId(1), ColumnId(2)]);
}

/// A segment of the numbers of some sources, each in ascending order of its own range, which take turns.
fn by_turns(test: &TestStore, sources: u64, rows_of_each: i64) -> SegmentRecord {
    const TURN: i64 = 1_000;
    let schema = schema(&[(DataType::Int64, false)]);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    for turn in (0..rows_of_each).step_by(TURN as usize) {
        for source in 0..sources {
            let first = source as i64 * rows_of_each + turn;
            let numbers = Int64Array::from_iter_values(first..first + TURN);
            let batch = batch(&schema, vec![Arc::new(numbers)]);
            writer.append_from(RowSource(source), batch).unwrap();
        }
    }
    writer.finish(&test.store).unwrap()
}

#[test]
fn rows_of_one_source_share_row_groups_though_sources_take_turns() {
    let test = TestStore::new();
    let record = by_turns(&test, 3, 200_000);
    let rest = 200_000 - ROW_GROUP_ROWS;
    let full = ROW_GROUP_ROWS;
    assert_eq!(record.row_groups, [full, full, full, rest, rest, rest]);
    let meta = test.store.segment_meta(&record).unwrap();
    let column = meta.column(ColumnId(1)).unwrap();
    let zone = |group: usize| {
        let zone = column.zone(group).unwrap();
        (zone.min.clone(), zone.max.clone())
    };
    let int = |value: i64| Some(ZoneValue::Int(value));
    assert_eq!(zone(1), (int(200_000), int(200_000 + i64::from(full) - 1)));
    assert_eq!(zone(5), (int(400_000 + i64::from(full)), int(599_999)));
    let read = read_column(&test.store, &record, 1, &DataType::Int64).unwrap();
    let mut numbers = read.as_primitive::<Int64Type>().values().to_vec();
    let (of_one, _) = numbers.split_at(full as usize);
    assert!(of_one.is_sorted());
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..600_000));
}

#[test]
fn sources_of_few_rows_share_row_groups() {
    let test = TestStore::new();
    let record = by_turns(&test, 70, 2_000);
    assert_eq!(record.row_groups, [ROW_GROUP_ROWS, 140_000 - ROW_GROUP_ROWS]);
    let read = read_column(&test.store, &record, 1, &DataType::Int64).unwrap();
    assert!(read.as_primitive::<Int64Type>().values().iter().copied().eq(0..140_000));
}

#[test]
fn sorting_spans_row_groups() {
    let rows = i64::from(ROW_GROUP_ROWS) * 2 + 10;
    let schema = schema(&[(DataType::Int64, false)]);
    let mut spec = spec(Arc::clone(&schema));
    spec.sort_key = vec![ColumnId(1)];
    let mut writer = SegmentWriter::new(spec, WriterOptions::default()).unwrap();
    let shuffled = Int64Array::from_iter_values((0..rows).map(|i| i * 7919 % rows));
    writer.append(batch(&schema, vec![Arc::new(shuffled)])).unwrap();
    let test = TestStore::new();
    let record = writer.finish(&test.store).unwrap();
    assert_eq!(record.row_groups, [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 10]);
    let read = read_column(&test.store, &record, 1, &DataType::Int64).unwrap();
    assert_eq!(read.as_primitive::<Int64Type>(), &Int64Array::from_iter_values(0..rows));
}

#[test]
fn a_selection_returns_the_selected_rows() {
    for ty in [DataType::Utf8, DataType::Utf8View, DataType::Int64] {
        let stored = if ty == DataType::Utf8View { DataType::Utf8 } else { ty.clone() };
        let array = random_array(&mut Random(1), &stored, 70_000, true, false);
        let segment = encoded(vec![Arc::clone(&array)]);
        let meta = segment.meta();
        let column = meta.column(ColumnId(1)).unwrap();
        let range = column.blocks_for(column.extent(0).unwrap());
        let from = range.offset as usize;
        let bytes = segment.files()[0].bytes.slice(from..from + range.length as usize);
        let bytes = column.verify(range, bytes).unwrap();
        let mask: arrow::array::BooleanArray = (0..70_000)
            .map(|row| Some(row % 1_000 < 3 || (40_000..41_000).contains(&row)))
            .collect();
        let selection = RowSelection::from_filters(std::slice::from_ref(&mask));
        let read = decode_row_group(meta, ColumnId(1), 0, &bytes, &ty, Some(&selection)).unwrap();
        let expected = filter(&cast(&array, &ty).unwrap(), &mask).unwrap();
        assert_eq!(read.to_data(), expected.to_data());

        let none = RowSelection::from(vec![RowSelector::skip(70_000)]);
        let read = decode_row_group(meta, ColumnId(1), 0, &bytes, &ty, Some(&none)).unwrap();
        assert_eq!((read.len(), read.data_type()), (0, &ty));

        let short = RowSelection::from(vec![RowSelector::select(10)]);
        let read = decode_row_group(meta, ColumnId(1), 0, &bytes, &ty, Some(&short));
        assert_eq!(code(read), "MISALIGNED");
    }
}

#[test]
fn text_can_be_read_as_a_dictionary_and_decimals_narrow() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let decimals = random_array(&mut Random(2), &DataType::Decimal128(15, 2), 3, true, false);
    let test = TestStore::new();
    let segment = encoded(vec![texts, Arc::clone(&decimals)]);
    let record = test.store.publish(vec![segment]).unwrap().remove(0);
    let ty = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let read = read_column(&test.store, &record, 1, &ty).unwrap();
    assert_eq!(read.data_type(), &ty);
    let ty = DataType::Decimal64(15, 2);
    let read = read_column(&test.store, &record, 2, &ty).unwrap();
    assert_eq!(read.to_data(), cast(&decimals, &ty).unwrap().to_data());
    assert_eq!(code(read_column(&test.store, &record, 2, &DataType::Int64)), "INVALID_REQUEST");
}

#[test]
fn a_null_in_a_not_null_column_is_refused_by_name() {
    let not_null = schema(&[(DataType::Int32, false)]);
    let nullable = schema(&[(DataType::Int32, true)]);
    let mut writer = SegmentWriter::new(spec(not_null), WriterOptions::default()).unwrap();
    let column: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
    let error = writer.append(batch(&nullable, vec![column])).unwrap_err();
    assert_eq!(error.to_string(), "column \"c1\" is NOT NULL and has a NULL value");
}

#[test]
fn values_of_another_type_or_too_many_rows_are_refused() {
    let schema_ints = schema(&[(DataType::Int32, true)]);
    let mut writer = SegmentWriter::new(spec(schema_ints), WriterOptions::default()).unwrap();
    let texts = schema(&[(DataType::Utf8, true)]);
    let column: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    assert_eq!(code(writer.append(batch(&texts, vec![column]))), "INVALID_DATA");

    let bools = schema(&[(DataType::Boolean, true)]);
    let rows = SEGMENT_ROWS_MAX as usize + 1;
    let column: ArrayRef = arrow::array::new_null_array(&DataType::Boolean, rows);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&bools)), WriterOptions::default()).unwrap();
    assert_eq!(writer.rows_left(), SEGMENT_ROWS_MAX);
    assert_eq!(code(writer.append(batch(&bools, vec![column]))), "INVALID_DATA");
}

#[test]
fn equal_rows_give_equal_bytes_whatever_the_threads() {
    let types: Vec<_> = storable_types().into_iter().map(|ty| (ty, true)).collect();
    let schema = schema(&types);
    let spec = spec(Arc::clone(&schema));
    let columns: Vec<ArrayRef> =
        types.iter().map(|(ty, _)| random_array(&mut Random(9), ty, 500, true, false)).collect();
    let digest = |threads: usize| {
        let options = WriterOptions { encode_threads: threads };
        let mut writer = SegmentWriter::new(spec.clone(), options).unwrap();
        writer.append(batch(&schema, columns.clone())).unwrap();
        writer.encode().unwrap().record().meta_digest
    };
    assert_eq!(digest(1), digest(4));
}
