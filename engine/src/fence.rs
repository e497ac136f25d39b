//! What a worker takes orders by: its cluster, and the newest epoch it has heard of (RULES 15).
//!
//! A coordinator that was replaced, and a plan that was made before the slices moved, carry an
//! older epoch: neither may write here or have its plan run. A newer epoch passes: the plan was
//! made after a change that the next heartbeat will tell. It is not believed, though: only the
//! coordinator's answers advance the fence, so that no peer can shut a worker out of its cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_storage::ids::{ClusterId, Epoch};

use crate::error::{ErrorCode, SqlError};

/// The cluster and the newest epoch of one worker process. Clones share the epoch.
#[derive(Debug, Clone)]
pub struct Fence {
    cluster: ClusterId,
    newest: Arc<AtomicU64>,
}

impl Fence {
    /// The fence of a worker that has joined `cluster` at `epoch`.
    pub fn new(cluster: ClusterId, epoch: Epoch) -> Self {
        Self { cluster, newest: Arc::new(AtomicU64::new(epoch.0)) }
    }

    /// The newest epoch that the coordinator has told.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.newest.load(Ordering::Acquire))
    }

    /// Notes what the coordinator says; an older epoch changes nothing.
    pub fn advance(&self, epoch: Epoch) {
        self.newest.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Refuses what was planned before the newest change of the slices.
    ///
    /// # Errors
    /// [`ErrorCode::StalePlan`]: a new plan of the same statement passes.
    pub fn check_epoch(&self, planned: Epoch) -> Result<(), SqlError> {
        let newest = self.epoch();
        if planned >= newest {
            return Ok(());
        }
        let message = format!(
            "the statement was planned at epoch {planned}, and slices have moved: a worker is at \
             epoch {newest}"
        );
        Err(SqlError::new(ErrorCode::StalePlan, message).with_hint("send the statement again"))
    }

    /// Refuses what belongs to another cluster: a worker of it may have had this address before.
    ///
    /// # Errors
    /// [`ErrorCode::PermissionDenied`].
    pub fn check_cluster(&self, theirs: ClusterId) -> Result<(), SqlError> {
        if theirs == self.cluster {
            return Ok(());
        }
        let message = format!("this worker belongs to cluster {}, not to {theirs}", self.cluster);
        Err(SqlError::new(ErrorCode::PermissionDenied, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_epochs_are_refused_and_newer_ones_pass_without_being_believed() {
        let fence = Fence::new(ClusterId::generate(), Epoch(5));
        assert_eq!(fence.check_epoch(Epoch(4)).unwrap_err().code, ErrorCode::StalePlan);
        assert!(fence.check_epoch(Epoch(5)).is_ok());
        assert!(fence.check_epoch(Epoch(u64::MAX)).is_ok());
        assert_eq!(fence.epoch(), Epoch(5), "a peer does not advance the fence");
        fence.clone().advance(Epoch(6));
        assert!(fence.check_epoch(Epoch(5)).is_err(), "clones share what they know");
        fence.advance(Epoch(2));
        assert_eq!(fence.epoch(), Epoch(6));
    }

    #[test]
    fn another_cluster_is_refused() {
        let cluster = ClusterId::generate();
        let fence = Fence::new(cluster, Epoch(1));
        assert!(fence.check_cluster(cluster).is_ok());
        let refused = fence.check_cluster(ClusterId::generate()).unwrap_err();
        assert_eq!(refused.code, ErrorCode::PermissionDenied);
    }
}
