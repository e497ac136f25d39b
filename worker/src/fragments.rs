//! Running parts of plans: datafusion-distributed's worker with our session and limits.

use std::sync::Arc;

use basalt_engine::protocol::MESSAGE_BYTES_MAX;
use basalt_engine::session::{FragmentSessions, WorkerServices};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion_distributed::{Worker, WorkerQueryContext};

/// The fragment runner of a worker process, and the sessions it runs them in.
///
/// # Errors
/// As [`FragmentSessions::new`].
pub fn fragment_runner(
    services: WorkerServices,
    runtime: Arc<RuntimeEnv>,
) -> Result<(Worker, Arc<FragmentSessions>)> {
    let sessions = Arc::new(FragmentSessions::new(services, Arc::clone(&runtime))?);
    let shared = Arc::clone(&sessions);
    let build = move |context: WorkerQueryContext| {
        let sessions = Arc::clone(&shared);
        async move { sessions.session(context) }
    };
    let worker = Worker::from_session_builder(build)
        .with_runtime_env(runtime)
        .with_max_message_size(MESSAGE_BYTES_MAX)
        .with_version(env!("CARGO_PKG_VERSION"));
    Ok((worker, sessions))
}
