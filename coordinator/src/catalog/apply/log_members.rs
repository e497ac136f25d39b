//! What a change of the log's members means.

use std::sync::Arc;

use super::Draft;
use crate::catalog::error::CatalogError;
use crate::catalog::members::{LogSet, UNSETTLED_MAX};

/// The most workers that can keep copies of the log: each commit waits for some of them.
const LOG_WORKERS_MAX: usize = 16;

impl Draft<'_> {
    /// The same slice map under a newer epoch: workers that have heard of it run no plan of the
    /// coordinator before (RULES 15).
    fn fence_plans(&mut self) {
        let txn = self.txn;
        if let Some(cluster) = self.next.cluster.as_mut()
            && !cluster.slice_owners.is_empty()
        {
            let cluster = Arc::make_mut(cluster);
            cluster.epoch.0 = cluster.epoch.0.saturating_add(1);
            cluster.assigned_by = txn;
        }
    }

    pub(super) fn set_log_members(
        &mut self,
        set: LogSet,
        forced: bool,
    ) -> Result<(), CatalogError> {
        let invalid =
            |problem: &str| Err(CatalogError::invalid(format!("the set of log members {problem}")));
        if set.log_epoch <= self.next.log_sets.current.log_epoch {
            return invalid("has no newer epoch than the one before");
        }
        if set.workers.len() > LOG_WORKERS_MAX || set.copies == 0 {
            return invalid("has too many workers, or wants no copy");
        }
        let cluster = self.next.cluster.as_deref();
        let is_stranger = |worker| cluster.is_none_or(|cluster| !cluster.workers.contains(worker));
        // A member stays one until it is replaced, also when it leaves the cluster before.
        let before = self.next.log_sets.workers();
        if set.workers.iter().any(|worker| is_stranger(worker) && !before.contains(worker)) {
            return invalid("names a worker that is none");
        }
        let before = &self.next.log_sets.current;
        let takes_over = !before.workers.is_empty() && before.coordinator != set.coordinator;
        self.next.log_sets = self.next.log_sets.followed_by(set, forced);
        if takes_over {
            self.fence_plans();
        }
        if self.next.log_sets.unsettled.len() > UNSETTLED_MAX {
            return Err(CatalogError::LimitReached {
                what: "changes of log members in a row that did not become durable",
                limit: UNSETTLED_MAX,
            });
        }
        Ok(())
    }
}
