//! Turns: statements that delete from one table, or move its rows, run one after the other.
//!
//! They would only conflict: each replaces what the other read. So they wait for each other here,
//! as Redshift's wait for the table's write lock, and commits still check for themselves that nothing
//! changed since. Appends wait for nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_storage::ids::TableId;
use tokio::sync::OwnedMutexGuard;

/// Who is changing which table.
#[derive(Debug, Default)]
pub(super) struct Turns {
    tables: Mutex<HashMap<TableId, Arc<tokio::sync::Mutex<()>>>>,
}

/// A turn; over when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits until nobody else has the table's turn; who waits longest comes next.
    pub(super) async fn of(&self, table: TableId) -> Turn {
        let turn = {
            let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            // Tables that nobody changes or waits for are forgotten.
            tables.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(tables.entry(table).or_default())
        };
        Turn { _held: turn.lock_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_has_the_turn_of_a_table() {
        let turns = Turns::default();
        let first = turns.of(TableId(1)).await;
        let mut second = Box::pin(turns.of(TableId(1)));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(turns.of(TableId(2)).now_or_never().is_some(), "another table is free");
        drop(first);
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test]
    async fn tables_that_nobody_changes_are_forgotten() {
        let turns = Turns::default();
        for table in 0..10 {
            drop(turns.of(TableId(table)).await);
        }
        let _last = turns.of(TableId(10)).await;
        assert_eq!(turns.tables.lock().unwrap().len(), 1);
    }
}
