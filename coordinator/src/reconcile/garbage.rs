//! Files that no snapshot names any more.
//!
//! A segment on a worker's disk is garbage when the newest commit does not name the worker as a
//! holder of it. It may still be read by a statement that pinned an earlier commit, and it may be of
//! a transaction whose commit is yet to come; so it is removed only
//!
//! - when it has been garbage for a grace time, on this coordinator's monotonic clock,
//! - when every statement that sees an earlier commit has ended,
//! - when every write that was under way when it was found has ended, and
//! - by the worker itself, which refuses what is of a transaction that still takes rows there (RULES 13).
//!
//! Invariant: what is named by a commit that any statement sees is never removed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use basalt_engine::error::{ErrorCode, SqlError, from_datafusion, from_status};
use basalt_engine::protocol::replicas_client::ReplicasClient;
use basalt_engine::protocol::{InventoryRequest, RemoveRequest, SegmentRef, WireId};
use basalt_engine::snapshot::Snapshot;
use basalt_storage::ids::{SegmentId, WorkerId};
use basalt_storage::layout::SegmentKey;
use datafusion_distributed::grpc::BoxCloneSyncChannel;
use url::Url;

use super::copies::Copies;
use super::{Inner, Reconciler};

/// How long a worker may take to list its disk: the others wait.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// How long a round waits for a worker that removes. To remove is not cut short, as the worker would
/// go on nevertheless: what it was told to remove is [leaving](Copies::left) until it answers.
const REMOVED_WITHIN: Duration = Duration::from_secs(5);

/// Segments that one request removes; each is an fsync.
const REMOVED_AT_ONCE: usize = 100;

/// Since when a file is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Since {
    /// The first commit that is known not to name it.
    version: u64,
    /// When it was found.
    at: Instant,
    /// Whether, when it was looked at last, a write was under way that may have made it.
    of_a_write: bool,
}

/// Garbage that was found and is not old enough.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    found: HashMap<(WorkerId, SegmentId), Since>,
    /// What workers were told to remove and may be removing.
    leaving: HashMap<WorkerId, HashSet<SegmentId>>,
}

impl Garbage {
    /// Notes what is garbage on a worker at commit `version`, and says what of it may go: what has
    /// been garbage for `grace`, and is older than every pinned commit.
    fn due(
        &mut self,
        worker: WorkerId,
        garbage: &HashSet<SegmentId>,
        version: u64,
        oldest_pinned: u64,
        oldest_write: Option<Instant>,
        (now, grace): (Instant, Duration),
    ) -> Vec<SegmentId> {
        self.found.retain(|(of, segment), _| *of != worker || garbage.contains(segment));
        let mut due = Vec::new();
        for segment in garbage {
            let new = Since { version, at: now, of_a_write: false };
            let since = self.found.entry((worker, *segment)).or_insert(new);
            let of_a_write = oldest_write.is_some_and(|began| began <= since.at);
            if since.of_a_write && !of_a_write {
                // The write may have committed it, and a later one dropped it: what was found before
                // is garbage only from now on, for those who see the commits in between.
                since.version = version;
            }
            since.of_a_write = of_a_write;
            let is_old = now.duration_since(since.at) >= grace;
            if since.version <= oldest_pinned && is_old && !of_a_write {
                due.push(*segment);
            }
        }
        due.sort();
        due
    }
}

/// The disk of a worker as it was listed, and what it is compared with.
pub(crate) struct Listed<'a> {
    pub(crate) worker: WorkerId,
    /// What it was on record with before it was listed: what is committed while the disk is listed
    /// need not be in the list.
    pub(crate) before: &'a HashMap<SegmentId, SegmentKey>,
    /// What is there.
    pub(crate) here: &'a HashSet<SegmentId>,
    /// The newest commit after it was listed.
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) oldest_pinned: u64,
    pub(crate) oldest_write: Option<Instant>,
    /// The time, and how long garbage stays.
    pub(crate) clock: (Instant, Duration),
}

impl Copies {
    /// Notes what lacks on a worker's disk and what is garbage there, and says what may go. That is
    /// leaving until [`Self::left`]; nothing else of this worker goes meanwhile.
    pub(crate) fn judge(&mut self, listed: &Listed<'_>) -> Vec<SegmentId> {
        let Listed { worker, before, here, snapshot, .. } = *listed;
        let named = held_by(snapshot, worker);
        let missing = before.iter().filter(|(segment, _)| !here.contains(segment));
        let missing = missing.filter(|(segment, _)| named.contains_key(segment));
        self.note_missing(worker, missing.map(|(_, key)| *key));
        let coming = self.coming_to(worker);
        let garbage: HashSet<_> = here
            .iter()
            .filter(|segment| !named.contains_key(segment) && !coming.contains(segment))
            .copied()
            .collect();
        let Listed { oldest_pinned, oldest_write, clock, .. } = *listed;
        let due = self.garbage.due(
            worker,
            &garbage,
            snapshot.version,
            oldest_pinned,
            oldest_write,
            clock,
        );
        match due.is_empty() || self.garbage.leaving.contains_key(&worker) {
            true => Vec::new(),
            false => {
                self.garbage.leaving.insert(worker, due.iter().copied().collect());
                due
            }
        }
    }

    /// Notes that a worker removes nothing any more.
    pub(crate) fn left(&mut self, worker: WorkerId) {
        self.garbage.leaving.remove(&worker);
    }
}

impl Garbage {
    /// Notes that a segment will be on record with a worker: what was found of it before counts
    /// no longer.
    pub(super) fn forget(&mut self, worker: WorkerId, segment: SegmentId) {
        self.found.remove(&(worker, segment));
    }

    /// Whether a worker may be removing a segment: a copy that is made there now could be what goes.
    pub(super) fn is_leaving(&self, worker: WorkerId, segment: SegmentId) -> bool {
        self.leaving.get(&worker).is_some_and(|leaving| leaving.contains(&segment))
    }

    /// Whether anything is leaving.
    pub(super) fn is_removing(&self) -> bool {
        !self.leaving.is_empty()
    }
}

impl Reconciler {
    /// Looks at the disk of every worker that can be reached: notes what lacks there, and removes
    /// what is due. Returns how many segments went.
    ///
    /// # Errors
    /// Of the first worker that did not answer as it should; the others were looked at.
    pub async fn collect_garbage(&self) -> Result<u32, SqlError> {
        let mut removed = 0;
        let mut failed = None;
        let workers = self.inner.catalog.snapshot().cluster.workers.clone();
        let members = self.inner.members.members();
        let every = self.inner.options.inventory_every();
        let due = self.copies().due_for_inventory(workers, &members, every, Instant::now());
        for (worker, url) in due {
            match self.collect_on(worker, &url).await {
                Ok(count) => removed += count,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    async fn collect_on(&self, worker: WorkerId, url: &Url) -> Result<u32, SqlError> {
        let channel = self.inner.channels.worker(worker, url).map_err(from_datafusion)?;
        let mut client = ReplicasClient::new(channel);
        // What is committed while the disk is listed need not be in the list.
        let before = held_by(&self.inner.catalog.snapshot(), worker);
        let listed = tokio::time::timeout(LISTED_WITHIN, list(&mut client)).await;
        let here = listed.unwrap_or_else(|_| {
            let message = format!("worker {worker} did not list its disk in time");
            Err(SqlError::new(ErrorCode::Unavailable, message))
        })?;
        let snapshot = self.inner.catalog.snapshot();
        let listed = Listed {
            worker,
            before: &before,
            here: &here.keys().copied().collect(),
            snapshot: &snapshot,
            oldest_pinned: self.inner.catalog.oldest_pinned(),
            oldest_write: self.inner.writes.oldest(),
            clock: (Instant::now(), self.inner.options.garbage_after),
        };
        let due = self.copies().judge(&listed);
        if due.is_empty() {
            return Ok(0);
        }
        let leaving = Leaving { reconciler: Arc::downgrade(&self.inner), worker };
        // Another coordinator may have taken over, whose commits name what is none here.
        self.inner.catalog.confirm().await.map_err(SqlError::from)?;
        // And a commit whose outcome was not known may be known by now.
        let named = held_by(&self.inner.catalog.snapshot(), worker);
        let due = due.iter().filter(|segment| !named.contains_key(segment));
        let due: Vec<_> = due.filter_map(|segment| here.get(segment).cloned()).collect();
        let epoch = snapshot.cluster.epoch.0;
        let removing = tokio::spawn(async move {
            let removed = remove(client, epoch, &due).await;
            drop(leaving);
            if let Err(error) = &removed {
                tracing::warn!(%worker, %error, "a worker did not remove what no snapshot names");
            }
            removed
        });
        match tokio::time::timeout(REMOVED_WITHIN, removing).await {
            Ok(Ok(removed)) => removed,
            Ok(Err(error)) => Err(SqlError::new(ErrorCode::Internal, error.to_string())),
            Err(_) => {
                tracing::warn!(%worker, "a worker takes long to remove what no snapshot names");
                Ok(0)
            }
        }
    }
}

/// Segments of a worker that are leaving, until this is dropped. A worker that hangs keeps neither the
/// reconciler nor its catalog.
struct Leaving {
    reconciler: Weak<Inner>,
    worker: WorkerId,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(inner) = self.reconciler.upgrade() {
            Reconciler { inner }.copies().left(self.worker);
        }
    }
}

/// Has a worker remove segments; returns how many it removed.
async fn remove(
    mut client: ReplicasClient<BoxCloneSyncChannel>,
    epoch: u64,
    due: &[SegmentRef],
) -> Result<u32, SqlError> {
    let mut removed = 0;
    for part in due.chunks(REMOVED_AT_ONCE) {
        let request = RemoveRequest { epoch, segments: part.to_vec() };
        let answer = client.remove(request).await.map_err(|status| from_status(&status))?;
        removed += answer.into_inner().removed;
    }
    if removed > 0 {
        tracing::info!(removed, "segments that no snapshot names were removed");
    }
    Ok(removed)
}

/// The segments on a worker's disk.
async fn list(
    client: &mut ReplicasClient<BoxCloneSyncChannel>,
) -> Result<HashMap<SegmentId, SegmentRef>, SqlError> {
    let mut here = HashMap::new();
    let listed = client.inventory(InventoryRequest {}).await;
    let mut parts = listed.map_err(|status| from_status(&status))?.into_inner();
    while let Some(part) = parts.message().await.map_err(|status| from_status(&status))? {
        for segment in part.segments {
            let id = SegmentId::from_wire(&segment.segment, "InventoryPart", "segment")
                .map_err(|error| from_status(&error.into()))?;
            here.insert(id, segment);
        }
    }
    Ok(here)
}

/// The segments that a snapshot says a worker has.
pub(crate) fn held_by(snapshot: &Snapshot, worker: WorkerId) -> HashMap<SegmentId, SegmentKey> {
    let held = snapshot.segments().filter(|segment| segment.holders.contains(&worker));
    held.map(|segment| (segment.segment, segment.key())).collect()
}

/// Whether a snapshot says that a worker has anything.
pub(crate) fn holds_any(snapshot: &Snapshot, worker: WorkerId) -> bool {
    snapshot.segments().any(|segment| segment.holders.contains(&worker))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    struct Scene {
        garbage: Garbage,
        worker: WorkerId,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let (garbage, worker) = (Garbage::default(), WorkerId::generate());
            Self { garbage, worker, start: Instant::now() }
        }

        fn due(&mut self, seconds: u64, version: u64, pinned: u64, on_disk: &[SegmentId]) -> usize {
            let now = self.start + Duration::from_secs(seconds);
            let garbage = on_disk.iter().copied().collect();
            self.garbage.due(self.worker, &garbage, version, pinned, None, (now, GRACE)).len()
        }
    }

    #[test]
    fn garbage_goes_after_the_grace_time() {
        let (mut scene, segment) = (Scene::new(), [SegmentId::generate()]);
        assert_eq!(scene.due(0, 7, 7, &segment), 0);
        assert_eq!(scene.due(59, 8, 8, &segment), 0);
        assert_eq!(scene.due(60, 9, 9, &segment), 1);
    }

    #[test]
    fn garbage_stays_while_a_statement_sees_a_commit_that_may_name_it() {
        let (mut scene, segment) = (Scene::new(), [SegmentId::generate()]);
        assert_eq!(scene.due(0, 7, 5, &segment), 0);
        assert_eq!(scene.due(3_600, 9, 6, &segment), 0, "commit 6 may have named it");
        assert_eq!(scene.due(3_601, 9, 7, &segment), 1);
    }

    #[test]
    fn garbage_stays_while_a_write_is_under_way_that_may_have_made_it() {
        let (mut scene, segment) = (Scene::new(), SegmentId::generate());
        let (garbage, at) = (HashSet::from([segment]), |s| Duration::from_secs(s));
        let mut due = |seconds, write: Option<u64>| {
            let write = write.map(|seconds| scene.start + at(seconds));
            let clock = (scene.start + at(seconds), GRACE);
            scene.garbage.due(scene.worker, &garbage, 7, 7, write, clock).len()
        };
        assert_eq!(due(10, Some(5)), 0);
        assert_eq!(due(3_600, Some(5)), 0, "it began before the file was found");
        assert_eq!(due(3_601, Some(20)), 1, "it began later");
    }

    #[test]
    fn what_was_found_before_its_commit_stays_for_who_sees_that_commit() {
        let (mut scene, segment) = (Scene::new(), SegmentId::generate());
        let garbage = HashSet::from([segment]);
        let mut due = |seconds, version, pinned, is_written: bool| {
            let clock = (scene.start + Duration::from_secs(seconds), GRACE);
            let write = is_written.then_some(scene.start);
            scene.garbage.due(scene.worker, &garbage, version, pinned, write, clock).len()
        };
        assert_eq!(due(10, 7, 7, true), 0, "staged");
        // Commit 8 names it, commit 9 does not, and nobody looked in between.
        assert_eq!(due(3_600, 9, 8, false), 0, "a statement sees commit 8");
        assert_eq!(due(3_601, 9, 9, false), 1);
    }

    #[test]
    fn what_was_named_in_between_begins_anew() {
        let (mut scene, segment) = (Scene::new(), [SegmentId::generate()]);
        assert_eq!(scene.due(0, 7, 7, &segment), 0);
        assert_eq!(scene.due(30, 8, 8, &[]), 0);
        assert_eq!(scene.due(60, 9, 9, &segment), 0, "garbage since second 60 only");
        assert_eq!(scene.due(120, 9, 9, &segment), 1);
    }
}
