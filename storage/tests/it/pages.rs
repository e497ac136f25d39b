//! Pages of a row group: read and decoded without the others, and described rightly.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Int64Array, StringArray};
use arrow::compute::{concat, filter};
use arrow::datatypes::DataType;
use basalt_storage::ids::ColumnId;
use basalt_storage::layout::{PAGE_ROWS, ROW_GROUP_ROWS};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::{RowSelection, VerifiedBytes, decode_row_group};
use basalt_storage::segment_writer::{SegmentWriter, WriterOptions};
use basalt_storage::zone_map::ZoneMap;

use crate::arrays::{Random, random_array, storable_types};
use crate::support::{TestStore, batch, schema, spec};

const PAGE: usize = PAGE_ROWS as usize;

/// A full row group and one of three pages, the last of which is short.
const ROWS: usize = ROW_GROUP_ROWS as usize + 2 * PAGE + 100;

/// One column, appended in pieces that end within pages.
fn written(test: &TestStore, array: &ArrayRef) -> Arc<SegmentMeta> {
    let schema = schema(&[(array.data_type().clone(), true)]);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    let mut from = 0;
    for length in [5_000, 70_001, 1, 40_000].into_iter().cycle() {
        let length = length.min(array.len() - from);
        writer.append(batch(&schema, vec![array.slice(from, length)])).unwrap();
        from += length;
        if from == array.len() {
            break;
        }
    }
    let record = writer.finish(&test.store).unwrap();
    test.store.segment_meta(&record).unwrap()
}

fn pages_of(rows: usize) -> Vec<Range<usize>> {
    (0..rows).step_by(PAGE).map(|start| start..rows.min(start + PAGE)).collect()
}

/// Reads some pages of each row group, as a scan does, and compares with what was written. Returns the
/// bytes that were read and those of all row groups.
fn check(test: &TestStore, meta: &SegmentMeta, array: &ArrayRef, step: usize) -> (u64, u64) {
    let column = meta.column(ColumnId(1)).unwrap();
    let (mut first, mut read, mut all) = (0, 0, 0);
    for (row_group, rows) in meta.row_groups().iter().enumerate() {
        let rows = *rows as usize;
        let values = array.slice(first, rows);
        first += rows;
        let pages = pages_of(rows);
        let wanted: Vec<bool> = (0..pages.len()).map(|page| page % step == 1 % step).collect();
        let extent = column.extent(row_group).unwrap();
        let ranges = column.page_ranges(row_group, &wanted).expect("where pages lie is known");
        let parts: Vec<_> = ranges
            .iter()
            .map(|range| {
                let bytes = test.store.read_extent(&column.chunk(), meta.layout(), *range).unwrap();
                column.verify(*range, bytes).unwrap()
            })
            .collect();
        let bytes = VerifiedBytes::joined(&parts).unwrap();
        read += bytes.length();
        all += column.blocks_for(extent).length;
        let kept = pages.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        let kept: Vec<_> = kept.map(|(page, _)| page.clone()).collect();
        let selection = RowSelection::from_consecutive_ranges(kept.iter().cloned(), rows);
        let target = array.data_type();
        let decoded =
            decode_row_group(meta, ColumnId(1), row_group, &bytes, target, Some(&selection));
        let expected: Vec<_> =
            kept.iter().map(|page| values.slice(page.start, page.len())).collect();
        let expected = concat(&expected.iter().map(AsRef::as_ref).collect::<Vec<_>>()).unwrap();
        assert_eq!(decoded.unwrap().to_data(), expected.to_data(), "{target}");
    }
    (read, all)
}

/// Values that get a dictionary, differences, none of these, LZ4.
fn columns() -> Vec<ArrayRef> {
    let rows = 0..ROWS as i64;
    let mut random = Random(3);
    vec![
        Arc::new(StringArray::from_iter(
            rows.clone().map(|row| (row % 9 > 0).then(|| format!("value {}", row % 50))),
        )),
        Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row / 3))),
        random_array(&mut random, &DataType::Int64, ROWS, true, false),
        random_array(&mut random, &DataType::Utf8, ROWS, true, false),
        Arc::new(
            Decimal128Array::from_iter_values(rows.map(i128::from))
                .with_precision_and_scale(30, 2)
                .unwrap(),
        ),
    ]
}

#[test]
fn some_pages_are_read_without_the_others() {
    for array in columns() {
        let test = TestStore::new();
        let meta = written(&test, &array);
        for step in [1, 2, 3, 8] {
            check(&test, &meta, &array, step);
        }
    }
    let array = &columns()[2];
    let test = TestStore::new();
    let (read, all) = check(&test, &written(&test, array), array, 8);
    assert!(read * 3 < all, "one page of eight took {read} of {all} bytes");
}

#[test]
fn every_type_that_has_pages_reads_them_alone() {
    for (seed, ty) in storable_types().iter().enumerate() {
        let array = random_array(&mut Random(seed as u64), ty, 2 * PAGE + 3, true, false);
        let test = TestStore::new();
        let meta = written(&test, &array);
        let column = meta.column(ColumnId(1)).unwrap();
        match column.page_ranges(0, &[false, true, false]) {
            Some(_) => drop(check(&test, &meta, &array, 2)),
            None => assert!(ty.is_nested(), "{ty} has no pages"),
        }
    }
}

#[test]
fn the_zone_maps_of_pages_are_those_of_their_rows() {
    for array in columns() {
        let test = TestStore::new();
        let meta = written(&test, &array);
        let column = meta.column(ColumnId(1)).unwrap();
        let mut first = 0;
        for (row_group, rows) in meta.row_groups().iter().enumerate() {
            let pages = pages_of(*rows as usize);
            let zones = column.page_zones(row_group);
            assert_eq!(zones.len(), pages.len());
            for (page, zone) in pages.iter().zip(zones) {
                assert_eq!(*zone, ZoneMap::of(&array.slice(first + page.start, page.len())));
            }
            first += *rows as usize;
        }
    }
}

#[test]
fn a_row_group_of_one_page_has_no_zone_map_beside_its_own() {
    let array: ArrayRef = Arc::new(Int64Array::from_iter_values(0..PAGE as i64));
    let test = TestStore::new();
    let meta = written(&test, &array);
    let column = meta.column(ColumnId(1)).unwrap();
    assert!(column.page_zones(0).is_empty());
    assert!(column.zone(0).is_some());
}

#[test]
fn pages_that_very_long_values_cut_elsewhere_are_read_as_a_whole() {
    let long = "x".repeat(1_000);
    let values = (0..2 * PAGE).map(|row| format!("{row}{long}"));
    let array: ArrayRef = Arc::new(StringArray::from_iter_values(values));
    let test = TestStore::new();
    let meta = written(&test, &array);
    let column = meta.column(ColumnId(1)).unwrap();
    assert_eq!(column.page_ranges(0, &[true, false]), None);
    // All of its bytes, of which the second page is decoded.
    let range = column.blocks_for(column.extent(0).unwrap());
    let bytes = test.store.read_extent(&column.chunk(), meta.layout(), range).unwrap();
    let bytes = column.verify(range, bytes).unwrap();
    let mask = arrow::array::BooleanArray::from_iter((0..2 * PAGE).map(|row| Some(row >= PAGE)));
    let selection = RowSelection::from_filters(std::slice::from_ref(&mask));
    let read = decode_row_group(&meta, ColumnId(1), 0, &bytes, &DataType::Utf8, Some(&selection));
    let expected = filter(&array, &mask).unwrap();
    assert_eq!(read.unwrap().as_string::<i32>(), expected.as_string::<i32>());
}
