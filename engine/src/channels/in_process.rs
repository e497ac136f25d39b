//! Workers in the same process, reached without a network.
//!
//! An embedded cluster is one process: a batch that one of its workers hands to another needs no
//! encoding, and a fragment no connection. What stays is what makes a fragment the worker's own:
//! its plan is encoded and decoded, so that two tasks never share the state of one plan, and it
//! runs in a session and in tasks of its own.
//!
//! Invariant: a worker is here from when it serves until it stops. Whoever asks for it later is
//! answered by the network, with the error that a dead worker means.

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::{
    CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    MaybeEncoded, SetPlanRequest, Worker, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use http::HeaderMap;
use tokio::sync::mpsc;
use url::Url;

use crate::guarded::panicked;
use crate::session::FragmentSessions;

/// Batches of a partition that a worker makes ahead of who reads them; as over the network.
const BATCHES_AHEAD: usize = 2;

/// The workers of one process, by their addresses. Clones are the same set.
#[derive(Clone, Default)]
pub struct LocalWorkers {
    workers: Arc<Mutex<HashMap<Url, LocalWorker>>>,
}

/// A worker of this process.
#[derive(Clone)]
struct LocalWorker {
    fragments: Worker,
    sessions: Arc<FragmentSessions>,
}

impl LocalWorkers {
    /// Adds a worker that runs fragments at `url`, in these sessions.
    pub fn add(&self, url: Url, fragments: Worker, sessions: Arc<FragmentSessions>) {
        self.lock().insert(url, LocalWorker { fragments, sessions });
    }

    /// Removes a worker: it stops.
    pub fn remove(&self, url: &Url) {
        let removed = self.lock().remove(url);
        // Not under the lock: a worker holds connections, and those this set.
        drop(removed);
    }

    pub(super) fn get(&self, url: &Url) -> Option<InProcess> {
        self.lock().get(url).map(|local| InProcess { worker: local.fragments.clone() })
    }

    pub(super) fn sessions(&self, url: &Url) -> Option<Arc<FragmentSessions>> {
        self.lock().get(url).map(|local| Arc::clone(&local.sessions))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Url, LocalWorker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LocalWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys().map(Url::as_str)).finish()
    }
}

/// A worker's client in the worker's own process.
pub(super) struct InProcess {
    worker: Worker,
}

#[async_trait]
impl WorkerChannel for InProcess {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        mut plan: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        _: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        plan.plan = MaybeEncoded::Encoded(plan.plan.encode(context)?);
        self.worker.coordinator_channel(headers, plan, messages.map(Ok).boxed()).await
    }

    async fn execute_task(
        &mut self,
        _: HeaderMap,
        request: ExecuteTaskRequest,
        _: ExecutionPlanMetricsSet,
        _: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let (partitions, _) = self.worker.execute_task(request).await?;
        Ok(partitions.into_iter().map(in_own_task).collect())
    }

    async fn get_worker_info(&mut self, _: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        Ok(GetWorkerInfoResponse { version: self.worker.version().to_owned() })
    }
}

/// A partition that runs in a task of its own from when it is first read, so that neither its
/// work nor a panic of it is the reader's.
pub(crate) fn in_own_task(
    mut partition: SendableRecordBatchStream,
) -> BoxStream<'static, Result<RecordBatch>> {
    let running = async move {
        let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
        let task = SpawnedTask::spawn(async move {
            loop {
                // Unwind safe: the partition is dropped after a panic, not polled again.
                let item = AssertUnwindSafe(partition.next()).catch_unwind().await;
                let (item, is_last) = match item {
                    Ok(Some(item)) => {
                        let is_last = item.is_err();
                        (item, is_last)
                    }
                    Ok(None) => return,
                    Err(_) => (Err(panicked()), true),
                };
                // A reader that is gone wants no more.
                if sender.send(item).await.is_err() || is_last {
                    return;
                }
            }
        });
        // The task lives as long as the stream: dropping it aborts the task.
        stream::poll_fn(move |context| {
            let _running = &task;
            batches.poll_recv(context)
        })
    };
    running.flatten_stream().boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use datafusion::error::DataFusionError;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;

    use super::*;

    fn partition(
        items: impl futures::Stream<Item = Result<RecordBatch>> + Send + 'static,
    ) -> SendableRecordBatchStream {
        Box::pin(RecordBatchStreamAdapter::new(Arc::new(Schema::empty()), items))
    }

    fn batch() -> RecordBatch {
        RecordBatch::new_empty(Arc::new(Schema::empty()))
    }

    #[tokio::test]
    async fn batches_come_through_in_order_and_end() {
        let batches = stream::iter((0..5).map(|_| Ok(batch())));
        let read: Vec<_> = in_own_task(partition(batches)).collect().await;
        assert_eq!(read.len(), 5);
        assert!(read.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn an_error_is_the_last_item() {
        let failing = stream::iter([
            Ok(batch()),
            Err(DataFusionError::Execution("of a test".to_owned())),
            Ok(batch()),
        ]);
        let read: Vec<_> = in_own_task(partition(failing)).collect().await;
        assert_eq!(read.len(), 2);
        assert!(read[1].as_ref().unwrap_err().to_string().contains("of a test"));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_of_the_reader() {
        let panicking = stream::once(async { panic!("of a test") });
        let read: Vec<_> = in_own_task(partition(panicking)).collect().await;
        assert_eq!(read.len(), 1);
        assert!(read[0].as_ref().unwrap_err().to_string().contains("panicked"), "{read:?}");
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_the_partition() {
        let (dropped, gone) = tokio::sync::oneshot::channel::<()>();
        let endless = stream::unfold(dropped, |held| async { Some((Ok(batch()), held)) });
        let mut reading = in_own_task(partition(endless));
        reading.next().await.unwrap().unwrap();
        drop(reading);
        // The other end is dropped with the partition.
        assert!(gone.await.is_err());
    }
}
