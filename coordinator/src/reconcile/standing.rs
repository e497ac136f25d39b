//! How workers count: pure, from what membership and the catalog know.

use std::collections::BTreeMap;
use std::time::Duration;

use basalt_storage::ids::WorkerId;

use crate::catalog::ClusterState;
use crate::membership::{Member, MemberState};

/// How a worker counts for placement and repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Standing {
    /// It lives, and takes what it is given.
    Good,
    /// It is silent, and may come back with what it has.
    Away,
    /// It was silent for too long: what it has must be made again.
    Lost,
    /// It lives, and is to lose what it has.
    Draining,
}

/// The standing of every worker of a cluster. One that this coordinator never heard of is silent
/// since `uptime`, when it started.
pub(crate) fn standings(
    cluster: &ClusterState,
    members: &[Member],
    uptime: Duration,
    lost_after: Duration,
) -> BTreeMap<WorkerId, Standing> {
    let standing = |worker: &WorkerId| {
        let member = members.iter().find(|member| member.worker == *worker);
        let lives = member
            .is_some_and(|member| matches!(member.state, MemberState::Live | MemberState::Joining));
        let silent = member.map_or(uptime, |member| member.silent);
        match lives {
            true if cluster.draining.contains(worker) => Standing::Draining,
            true => Standing::Good,
            false if silent >= lost_after => Standing::Lost,
            false => Standing::Away,
        }
    };
    cluster.workers.iter().map(|worker| (*worker, standing(worker))).collect()
}
