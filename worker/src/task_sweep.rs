//! Plans of ended fragments are let go of, and with them what they hold.
//!
//! datafusion-distributed keeps the plan of each task in a cache and takes it out when its query ends. The
//! cache ([`moka`](https://docs.rs/moka)) drops what was taken out when it next tidies up, which it does
//! as part of being used: a worker that nobody asks for anything would keep the build sides of the last
//! joins, and their part of the memory that queries and the column cache share, for ever.
//!
//! Not here: what ends a fragment.

use std::time::Duration;

use datafusion_distributed::{ExecuteTaskRequest, ProducerHead, TaskKey, Worker};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How often the cache is made to tidy up. It does so at most every 300 ms.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// How long one use of the cache may take: to look for a task that is not there would go on.
const USED_WITHIN: Duration = Duration::from_millis(20);

/// Uses the cache of a worker's tasks now and then, until the handle is aborted.
pub(crate) fn sweep_tasks(worker: Worker) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // A task that nobody plans: to ask for it is to use the cache, and finds nothing. Always the
            // same one, so that the cache does not grow by it.
            let task_key = TaskKey { query_id: Uuid::nil(), stage_id: 0, task_number: 0 };
            let nothing = ExecuteTaskRequest {
                task_key,
                target_partition_start: 0,
                target_partition_end: 0,
                producer_head: ProducerHead::None,
            };
            let _not_there = tokio::time::timeout(USED_WITHIN, worker.execute_task(nothing)).await;
        }
    })
}
