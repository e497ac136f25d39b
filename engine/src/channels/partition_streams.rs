//! One gRPC stream per partition of an exchange.
//!
//! datafusion-distributed reads all partitions of a task through one stream, and stops reading
//! when what is not consumed yet exceeds a budget. A merge consumes one partition until its values
//! pass another's: once the others fill the budget, the batch it waits for is behind them, for
//! ever. Partitions that share nothing cannot wait for each other (RULES 23).

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::stream::BoxStream;
use http::HeaderMap;

/// A worker's client that asks for each partition by itself.
pub(super) struct PartitionStreams {
    channel: BoxCloneSyncChannel,
}

impl PartitionStreams {
    pub(super) fn new(channel: BoxCloneSyncChannel) -> Self {
        Self { channel }
    }

    fn client(&self) -> Box<dyn WorkerChannel> {
        create_worker_client(self.channel.clone())
    }
}

#[async_trait]
impl WorkerChannel for PartitionStreams {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        plan: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        self.client().coordinator_channel(headers, plan, messages, metrics, context).await
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let partitions = request.target_partition_start..request.target_partition_end;
        let mut streams = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let own = ExecuteTaskRequest {
                task_key: request.task_key,
                target_partition_start: partition,
                target_partition_end: partition + 1,
                producer_head: request.producer_head.clone(),
            };
            // This sends nothing yet: the worker is asked at the first poll of a stream.
            let client = &mut self.client();
            let stream = client.execute_task(headers.clone(), own, metrics.clone(), context);
            streams.extend(stream.await?);
        }
        Ok(streams)
    }

    async fn get_worker_info(
        &mut self,
        request: GetWorkerInfoRequest,
    ) -> Result<GetWorkerInfoResponse> {
        self.client().get_worker_info(request).await
    }
}
