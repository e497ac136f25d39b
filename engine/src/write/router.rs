//! Which slice a row goes to. Pure: no I/O, no clock, no randomness but the seed handed in.

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use basalt_storage::ids::SliceId;
use basalt_storage::slice_hash::slices_of;
use datafusion::error::{DataFusionError, Result};

use super::AppendTarget;
use crate::error::storage_error;
use crate::snapshot::Distribution;

/// Rows that go to one slice in a row under round-robin. Small inputs stay in one slice, so a
/// thousand small inserts do not make sixteen thousand segments.
const RUN_ROWS: usize = 16_384;

/// Assigns the rows of one writer to slices.
#[derive(Debug)]
pub struct SliceRouter {
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// Runs of rows, slice after slice.
    RoundRobin { slices: Vec<SliceId>, current: usize, rows_in_run: usize },
    /// By the slice hash of one column.
    Key { column: usize, slice_count: u16 },
    /// Everything in one slice.
    One(SliceId),
}

impl SliceRouter {
    /// A router for one writer. Under round-robin it uses `preferred` slices, or all when there are
    /// none, and starts where `seed` says, so that concurrent writers spread.
    pub fn new(target: &AppendTarget, preferred: Vec<SliceId>, seed: u64) -> Result<Self> {
        let count = u16::try_from(target.slice_owners.len())
            .map_err(|_| DataFusionError::Internal("a cluster has too many slices".to_owned()))?;
        if let Some(slice) = target.merged_slice {
            return Ok(Self { rule: Rule::One(slice) });
        }
        let rule = match target.distribution {
            Distribution::All => Rule::One(SliceId(0)),
            Distribution::Key(key) => {
                let position = target.schema.columns.iter().position(|column| column.id == key);
                let column = position.ok_or_else(|| {
                    DataFusionError::Internal(format!("distribution key {key} is not a column"))
                })?;
                Rule::Key { column, slice_count: count }
            }
            Distribution::Even | Distribution::Auto => {
                let slices = match preferred.is_empty() {
                    true => (0..count).map(SliceId).collect(),
                    false => preferred,
                };
                let current = usize::try_from(seed % slices.len().max(1) as u64).unwrap_or(0);
                Rule::RoundRobin { slices, current, rows_in_run: 0 }
            }
        };
        Ok(Self { rule })
    }

    /// Splits a batch by slice. Every row comes out exactly once, in its order within a slice.
    pub fn route(&mut self, batch: RecordBatch) -> Result<Vec<(SliceId, RecordBatch)>> {
        match &mut self.rule {
            Rule::One(slice) => Ok(vec![(*slice, batch)]),
            Rule::Key { column, slice_count } => split_by_key(&batch, *column, *slice_count),
            Rule::RoundRobin { slices, current, rows_in_run } => {
                let mut parts = Vec::new();
                let mut offset = 0;
                while offset < batch.num_rows() {
                    let rows = (batch.num_rows() - offset).min(RUN_ROWS - *rows_in_run);
                    parts.push((slices[*current], batch.slice(offset, rows)));
                    offset += rows;
                    *rows_in_run += rows;
                    if *rows_in_run == RUN_ROWS {
                        *rows_in_run = 0;
                        *current = (*current + 1) % slices.len();
                    }
                }
                Ok(parts)
            }
        }
    }
}

fn split_by_key(
    batch: &RecordBatch,
    column: usize,
    slice_count: u16,
) -> Result<Vec<(SliceId, RecordBatch)>> {
    let slices = slices_of(batch.column(column), slice_count).map_err(storage_error)?;
    let mut rows_by_slice: Vec<Vec<u32>> = vec![Vec::new(); usize::from(slice_count)];
    for (row, slice) in (0u32..).zip(slices) {
        rows_by_slice[usize::from(slice)].push(row);
    }
    (0..)
        .map(SliceId)
        .zip(rows_by_slice)
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(slice, rows)| Ok((slice, take_record_batch(batch, &UInt32Array::from(rows))?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Int64Type};
    use basalt_storage::ids::{ClusterId, ColumnId, Epoch, TableId, TxnId, WorkerId};
    use basalt_storage::schema::{Column, TableSchema};
    use proptest::prelude::*;

    use super::*;
    use crate::write::Copies;

    fn target(distribution: Distribution, slices: usize) -> AppendTarget {
        let column = Column {
            id: ColumnId(1),
            name: "k".into(),
            data_type: DataType::Int64,
            nullable: true,
            declared: Default::default(),
        };
        AppendTarget {
            epoch: Epoch(1),
            cluster: ClusterId::generate(),
            txn: TxnId::generate(),
            table: TableId(1),
            table_name: "t".into(),
            schema: Arc::new(TableSchema { version: 1, columns: vec![column], keys: vec![] }),
            distribution,
            sort_key: vec![],
            slice_owners: vec![WorkerId::generate(); slices],
            slice_partners: vec![],
            copies: Copies::ONE,
            endpoints: BTreeMap::new(),
            local_slices: false,
            merged_slice: None,
        }
    }

    fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        let array: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("k", array)]).unwrap()
    }

    fn values(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    proptest! {
        #[test]
        fn every_row_goes_to_exactly_one_slice(
            rows in prop::collection::vec(any::<i64>(), 0..500),
            seed in any::<u64>(),
            style in 0usize..3,
        ) {
            let distribution = [Distribution::Even, Distribution::Key(ColumnId(1)), Distribution::All];
            let target = target(distribution[style], 16);
            let mut router = SliceRouter::new(&target, vec![], seed).unwrap();
            let parts = router.route(batch(rows.iter().copied())).unwrap();
            let mut routed: Vec<_> = parts.iter().flat_map(|(_, part)| values(part)).collect();
            let mut expected = rows;
            routed.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(routed, expected);
        }
    }

    #[test]
    fn equal_keys_meet_in_one_slice() {
        let target = target(Distribution::Key(ColumnId(1)), 16);
        let mut router = SliceRouter::new(&target, vec![], 0).unwrap();
        let mut homes: BTreeMap<i64, SliceId> = BTreeMap::new();
        for _ in 0..3 {
            for (slice, part) in router.route(batch(0..100)).unwrap() {
                for value in values(&part) {
                    assert_eq!(*homes.entry(value).or_insert(slice), slice);
                }
            }
        }
    }

    #[test]
    fn merged_rows_stay_in_their_slice() {
        let merged = AppendTarget {
            merged_slice: Some(SliceId(2)),
            ..target(Distribution::Key(ColumnId(1)), 4)
        };
        let parts = SliceRouter::new(&merged, vec![], 0).unwrap().route(batch(0..9)).unwrap();
        let slices: Vec<_> = parts.iter().map(|(slice, part)| (*slice, part.num_rows())).collect();
        assert_eq!(slices, [(SliceId(2), 9)]);
    }

    #[test]
    fn a_small_input_stays_in_one_slice_and_a_large_one_uses_all() {
        let target = target(Distribution::Even, 4);
        let mut router = SliceRouter::new(&target, vec![], 6).unwrap();
        assert_eq!(router.route(batch(0..100)).unwrap().len(), 1);
        let mut used: Vec<_> =
            router.route(batch(0..80_000)).unwrap().iter().map(|(slice, _)| *slice).collect();
        used.sort();
        used.dedup();
        assert_eq!(used.len(), 4);
    }
}
