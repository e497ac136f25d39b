//! What writes do when a table has more small segments than compaction keeps up with.
//!
//! Every statement leaves segments of its own, and compaction merges them in the background. When it falls
//! behind, because statements come faster than they are merged or because a merge fails, every query pays
//! for each segment, and the catalog for each of their columns. So writes wait the longer the more there
//! are, and are refused at last: a clear error at once is better than a slow death (ClickHouse's
//! `parts_to_delay_insert` and `parts_to_throw_insert`).

use std::time::Duration;

use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::write::AppendTarget;
use basalt_storage::ids::TableId;

use super::Statements;
use super::compact::{mergeable_segments, table_by_id};
use super::transaction::Transaction;

/// When writes of a table wait, and when they are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLimits {
    /// Small segments from which on writes wait.
    pub wait_from: usize,
    /// Small segments from which on they are refused.
    pub refuse_from: usize,
}

impl Default for SegmentLimits {
    /// Compaction begins at 16 more than there are slices: these are tens of times as many.
    fn default() -> Self {
        Self { wait_from: 1_000, refuse_from: 5_000 }
    }
}

/// The longest that one write waits.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often it looks whether it still must.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pressure {
    Go,
    /// Waits so long, or until there are fewer.
    Wait(Duration),
    Refuse,
}

impl SegmentLimits {
    /// Of a table with so many small segments: the wait grows with each of them.
    fn pressure(self, small: usize) -> Pressure {
        if small < self.wait_from {
            return Pressure::Go;
        }
        if small >= self.refuse_from {
            return Pressure::Refuse;
        }
        let (over, range) = (small - self.wait_from + 1, self.refuse_from - self.wait_from);
        // Fits: both are counts of what is in memory.
        Pressure::Wait(WAIT_MAX * over as u32 / range as u32)
    }
}

impl Statements {
    /// Starts a write of rows, once compaction has caught up.
    pub(super) async fn begin_rows(&self, target: AppendTarget) -> Result<Transaction, SqlError> {
        self.give_way(target.table, &target.table_name).await?;
        Ok(self.begin(target))
    }

    /// Lets compaction catch up before a write to a table.
    pub(super) async fn give_way(&self, table: TableId, name: &str) -> Result<(), SqlError> {
        let limits = self.inner.segment_limits;
        let Some(small) = self.small_segments_of(table) else { return Ok(()) };
        let wait = match limits.pressure(small) {
            Pressure::Go => return Ok(()),
            Pressure::Wait(wait) => wait,
            Pressure::Refuse => {
                self.compact_soon(table);
                return Err(too_many(name, small, limits.refuse_from));
            }
        };
        self.compact_soon(table);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < wait {
            tokio::time::sleep(LOOK_EVERY.min(wait)).await;
            let small = self.small_segments_of(table);
            if small.is_none_or(|small| limits.pressure(small) == Pressure::Go) {
                break;
            }
        }
        Ok(())
    }

    /// `None` once the table is gone, and while to merge its segments does not make them fewer: nobody
    /// would have to wait for that to end.
    fn small_segments_of(&self, table: TableId) -> Option<usize> {
        let snapshot = self.inner.catalog.snapshot();
        let table = table_by_id(&snapshot, table)?;
        let may_shrink = self.inner.unmergeable.may_shrink(table);
        may_shrink.then(|| mergeable_segments(&table.segments))
    }
}

fn too_many(table: &str, small: usize, limit: usize) -> SqlError {
    let message = format!(
        "table {table} has {small} small segments, fewer than {limit} must be left: compaction is behind"
    );
    SqlError::new(ErrorCode::ResourcesExhausted, message).with_hint(
        "write more rows per statement, and try again: they are being merged; if they do not become \
         fewer, the coordinator's log says why, and so does VACUUM of the table",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_wait_the_longer_the_more_small_segments_there_are() {
        let limits = SegmentLimits { wait_from: 100, refuse_from: 200 };
        assert_eq!(limits.pressure(99), Pressure::Go);
        assert_eq!(limits.pressure(100), Pressure::Wait(WAIT_MAX / 100));
        assert_eq!(limits.pressure(149), Pressure::Wait(WAIT_MAX / 2));
        assert_eq!(limits.pressure(199), Pressure::Wait(WAIT_MAX));
        assert_eq!(limits.pressure(200), Pressure::Refuse);
    }
}
