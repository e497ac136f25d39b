//! Definitions that two sessions make at once: who comes second plans again.
//!
//! A definition looks at a snapshot and commits what follows from it. Another session's commit in
//! between may take a name that was free, or drop what was there: `CREATE TABLE IF NOT EXISTS`
//! would then fail because the table exists. On the newer snapshot the same statement has another
//! plan, often nothing at all, and its error, if any, is the one that somebody who came later gets.
//!
//! Invariant: each plan but the first follows a commit of somebody else, so that of all who try at
//! once some always get through, and nobody plans more than [`ATTEMPTS_MAX`] times.

use basalt_engine::error::SqlError;
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::TxnId;

use super::Statements;
use super::registry::RunNotes;
use crate::catalog::{CatalogError, Change, Command, wall_clock_ms};

/// Plans of one statement: more than sessions will ever meet at one name.
const ATTEMPTS_MAX: u32 = 100;

/// How often a statement was planned again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    lost: u32,
}

impl Attempts {
    /// Whether to plan again what was refused: only a newer snapshot can give another plan.
    pub(super) fn again(&mut self, planned_on: &Snapshot, newest: &Snapshot) -> bool {
        self.lost += 1;
        newest.version > planned_on.version && self.lost < ATTEMPTS_MAX
    }
}

/// Whether somebody else's commit can be why a definition was refused.
fn may_be_of_others(error: &CatalogError) -> bool {
    matches!(
        error,
        CatalogError::AlreadyExists { .. }
            | CatalogError::UnknownRelation { .. }
            | CatalogError::UnknownSchema { .. }
            | CatalogError::WrongKind { .. }
            | CatalogError::SchemaNotEmpty { .. }
            | CatalogError::Conflict { .. }
    )
}

impl Statements {
    /// Commits what a definition planned on a snapshot; `false` when it is to be planned again.
    ///
    /// On `Ok(true)` the changes survive a crash of any process, on `Ok(false)` nothing changed.
    pub(super) async fn commit_definition(
        &self,
        run: &RunNotes,
        planned_on: &Snapshot,
        changes: Vec<Change>,
        attempts: &mut Attempts,
    ) -> Result<bool, SqlError> {
        let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
        match self.commit_of_run(run, command).await? {
            Ok(_) => Ok(true),
            Err(error)
                if may_be_of_others(&error)
                    && attempts.again(planned_on, &self.inner.catalog.snapshot()) =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use basalt_engine::snapshot::ClusterView;
    use basalt_storage::ids::{ClusterId, Epoch};

    use super::*;

    fn snapshot(version: u64) -> Snapshot {
        let cluster = ClusterView {
            cluster: ClusterId::generate(),
            epoch: Epoch(0),
            slice_owners: vec![],
            slice_partners: vec![],
            members: 0,
            workers: BTreeMap::new(),
            domains: [].into(),
            moved: [].into(),
        };
        Snapshot {
            version,
            cluster: Arc::new(cluster),
            schemas: BTreeMap::new(),
            pin: Arc::default(),
        }
    }

    #[test]
    fn what_the_newest_snapshot_refuses_is_refused() {
        let mut attempts = Attempts::default();
        assert!(!attempts.again(&snapshot(7), &snapshot(7)));
        assert!(attempts.again(&snapshot(7), &snapshot(8)));
    }

    #[test]
    fn nobody_plans_for_ever() {
        let mut attempts = Attempts::default();
        let plans =
            1 + (1..).take_while(|n| attempts.again(&snapshot(*n), &snapshot(n + 1))).count();
        assert_eq!(plans, ATTEMPTS_MAX as usize);
    }
}
