//! The sessions that fragments run in.

use std::sync::Arc;

use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedExt, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse, WorkerQueryContext,
};

use super::{FragmentOptions, running_context, sort_spill_reservation_bytes};
use crate::allow_list::check_allowed;
use crate::arithmetic::with_checked_functions;
use crate::channels::Channels;
use crate::chunks::{ChunkSource, ChunkSourceExtension};
use crate::codec::EngineCodec;
use crate::column_cache::ColumnCache;
use crate::fence::Fence;
use crate::files::AllowedRoots;
use crate::functions;
use crate::guarded::guarded;
use crate::late_builds::late_builds;
use crate::portable_windows::flagged_functions;
use crate::query_memory::QueryMemory;
use crate::sketches::{distinct_sketch, row_sample};
use crate::subqueries::single_row;
use crate::window_memory::count_windows;
use crate::write::{SliceSink, SliceSinkExtension};

/// What a worker gives to the fragments it runs.
#[derive(Debug, Clone)]
pub struct WorkerServices {
    /// Where scans read chunks.
    pub chunks: Arc<dyn ChunkSource>,
    /// What they decoded lately.
    pub columns: Arc<ColumnCache>,
    /// Where appends put rows.
    pub sink: Arc<dyn SliceSink>,
    /// What files scans may read.
    pub allowed_roots: AllowedRoots,
    /// Connections to peers.
    pub channels: Channels,
    /// Whose plans the worker runs.
    pub fence: Fence,
    /// How much of the worker's memory one query may have, in bytes.
    pub query_memory_bytes: usize,
}

/// The sessions of a worker's fragments: what they have in common is made once, since to register
/// all functions takes longer than to run a small fragment.
#[derive(Debug, Clone)]
pub struct FragmentSessions {
    services: WorkerServices,
    common: SessionState,
    memory: QueryMemory,
}

impl FragmentSessions {
    /// The sessions of one worker.
    ///
    /// # Errors
    /// A function that cannot be registered.
    pub fn new(services: WorkerServices, runtime: Arc<RuntimeEnv>) -> Result<Self> {
        let memory = QueryMemory::new(Arc::clone(&runtime), services.query_memory_bytes);
        let builder = SessionStateBuilder::new().with_default_features().with_runtime_env(runtime);
        let mut common = with_checked_functions(builder).build();
        functions::bound(&mut common)?;
        for function in [single_row(), distinct_sketch(), row_sample()] {
            common.register_udaf(function)?;
        }
        for function in flagged_functions() {
            common.register_udwf(function)?;
        }
        Ok(Self { services, common, memory })
    }

    /// The session of one fragment.
    ///
    /// # Errors
    /// Settings of the coordinator that make no sense.
    pub fn session(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let mut builder = context
            .builder
            .with_distributed_option_extension_from_headers::<FragmentOptions>(&context.headers)?;
        let mut config = builder.config().take().unwrap_or_default();
        let fragment = FragmentOptions::of(config.options());
        let memory = self.memory.of(&fragment.query);
        self.configure(&mut config, fragment, &memory)?;
        let services = &self.services;
        let fence = services.fence.clone();
        let admit = move |event: WorkerPlanRewriteEvent<'_>| {
            check_allowed(&event.plan, &fence)?;
            let plan = late_builds(count_windows(event.plan)?)?;
            let plan = guarded(plan, Arc::clone(&memory))?;
            Ok(WorkerPlanRewriteEventResponse::new(plan))
        };
        let mut state = self.common.clone();
        *state.config_mut() = config
            .with_distributed_user_codec(EngineCodec)
            .with_distributed_channel_resolver(services.channels.clone())
            .with_distributed_worker_plan_rewrite_handler(admit);
        Ok(state)
    }

    /// The session of a plan that was made in this process.
    ///
    /// # Errors
    /// As [`FragmentSessions::session`].
    pub(crate) fn own_context(&self, fragment: FragmentOptions) -> Result<Arc<TaskContext>> {
        let mut config = self.common.config().clone();
        let memory = self.memory.of(&fragment.query);
        self.configure(&mut config, fragment, &memory)?;
        Ok(running_context(self.common.session_id().to_owned(), config, memory))
    }

    /// What every fragment's session has, whatever plan it runs, in the memory of its query.
    fn configure(
        &self,
        config: &mut SessionConfig,
        fragment: FragmentOptions,
        memory: &RuntimeEnv,
    ) -> Result<()> {
        let options = config.options_mut();
        options.execution.enable_file_stream_work_stealing = false;
        options.set(
            "datafusion.execution.batch_size",
            &fragment.batch_rows.clamp(1, 65_536).to_string(),
        )?;
        let partitions = fragment.target_partitions.clamp(2, 256);
        options.execution.target_partitions = partitions;
        options.execution.sort_spill_reservation_bytes =
            sort_spill_reservation_bytes(memory, partitions);
        options.execution.time_zone = Some(fragment.time_zone.clone());
        options.extensions.insert(fragment);
        let services = &self.services;
        config.set_extension(Arc::new(ChunkSourceExtension(Arc::clone(&services.chunks))));
        config.set_extension(Arc::clone(&services.columns));
        config.set_extension(Arc::new(SliceSinkExtension(Arc::clone(&services.sink))));
        config.set_extension(Arc::new(services.allowed_roots.clone()));
        Ok(())
    }
}
