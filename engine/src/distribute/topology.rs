//! The workers that a statement may use, in one fixed order, and which task each one's data is in.

use basalt_storage::ids::{SliceId, WorkerId};
use datafusion::error::Result;
use datafusion_distributed::WorkerResolver;
use url::Url;

use crate::error::{ErrorCode, SqlError};
use crate::snapshot::ClusterView;

/// The workers of one statement. Pinned with the snapshot, so that every stage of a plan maps
/// tasks to workers alike.
#[derive(Debug, Clone)]
pub struct Topology {
    workers: Vec<(WorkerId, Url)>,
    slice_owners: Vec<WorkerId>,
}

impl Topology {
    /// The workers of a view of the cluster, in the order of their ids.
    pub fn new(cluster: &ClusterView) -> Self {
        Self {
            workers: cluster.workers.iter().map(|(id, url)| (*id, url.clone())).collect(),
            slice_owners: cluster.slice_owners.clone(),
        }
    }

    /// How many workers there are.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The task, of `tasks`, that runs on the worker which should read a segment: the owner of its
    /// slice when that one holds a copy, else the first holder that can be reached.
    pub fn task_of(&self, slice: SliceId, holders: &[WorkerId], tasks: usize) -> Result<usize> {
        self.reader_of(slice, holders).map(|worker| worker % tasks.max(1))
    }

    /// The position of the worker that should read a segment.
    pub fn reader_of(&self, slice: SliceId, holders: &[WorkerId]) -> Result<usize> {
        let owner = self.slice_owners.get(usize::from(slice.0));
        let position = |id: &WorkerId| self.workers.iter().position(|(worker, _)| worker == id);
        owner
            .filter(|owner| holders.contains(owner))
            .and_then(position)
            .or_else(|| holders.iter().find_map(position))
            .ok_or_else(|| {
                let message = format!("slice {slice} is held by no worker that can be reached");
                SqlError::new(ErrorCode::Unavailable, message)
                    .with_hint("start the missing worker again; sys.workers shows which one it is")
                    .into()
            })
    }

    /// The address of the worker that runs task `task` of a stage: the first of its group.
    pub fn url_of_task(&self, task: usize) -> Option<&Url> {
        self.workers.get(task).map(|(_, url)| url)
    }
}

impl WorkerResolver for Topology {
    fn get_urls(&self) -> Result<Vec<Url>> {
        if self.workers.is_empty() {
            let message = "no worker has joined the cluster";
            return Err(SqlError::new(ErrorCode::Unavailable, message)
                .with_hint("start one: basalt worker --coordinator URL --secret-file FILE")
                .into());
        }
        Ok(self.workers.iter().map(|(_, url)| url.clone()).collect())
    }
}
