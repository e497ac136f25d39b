//! The sessions that plans are made in (coordinator) and run in (workers), every setting explicit.
//!
//! Invariant: both sides agree on everything that changes results: batch size and time zone travel
//! with the plan in [`FragmentOptions`]; work stealing, which makes a task read its siblings'
//! files, is off on both (STORAGE.md T10).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use datafusion::catalog::{MemoryCatalogProviderList, SchemaProvider, TableFunction};
use datafusion::common::extensions_options;
use datafusion::config::ConfigExtension;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedExt, SessionStateBuilderExt, WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse,
    WorkerQueryContext,
};

use crate::allow_list::check_allowed;
use crate::arithmetic::{with_checked_arithmetic, with_checked_functions};
use crate::channels::Channels;
use crate::chunks::{ChunkSource, ChunkSourceExtension};
use crate::codec::EngineCodec;
use crate::distribute::{LimitedBuildSides, Topology, desired_tasks, route_tasks, scale_up_leaf};
use crate::fence::Fence;
use crate::files::{AllowedRoots, CsvOptions, FileFormat, ReadFiles};
use crate::filter_routes::physical_rules;
use crate::functions;
use crate::portable_windows::{PortableWindows, flagged_functions};
use crate::session_functions::session_functions;
use crate::settings::Settings;
use crate::snapshot::{CATALOG, Snapshot};
use crate::snapshot_catalog::{SEARCH_PATH_SCHEMA, SnapshotCatalog, view_path};
use crate::subqueries::{GuardScalarSubqueries, ProjectScalarSubqueries, single_row};
use crate::types::SqlTypes;
use crate::window_memory::count_windows;
use crate::write::{PeerSink, SliceSink, SliceSinkExtension};
use crate::yielding::YieldAfterExpansion;

extensions_options! {
    /// What travels with every fragment besides the plan.
    pub struct FragmentOptions {
        /// Rows per batch.
        pub batch_rows: usize, default = 8192
        /// The session's time zone.
        pub time_zone: String, default = "+00:00".to_owned()
        /// Partitions per task.
        pub target_partitions: usize, default = 2
    }
}

impl ConfigExtension for FragmentOptions {
    const PREFIX: &'static str = "basalt";
}

/// Everything a statement's planning session is made of.
#[derive(Clone)]
pub struct SessionSpec {
    /// What the statement sees.
    pub snapshot: Arc<Snapshot>,
    /// What the session has set.
    pub settings: Settings,
    /// Schemas that are computed when asked, by name.
    pub computed_schemas: HashMap<String, Arc<dyn SchemaProvider>>,
    /// Connections to workers.
    pub channels: Channels,
    /// What the coordinator itself may use.
    pub runtime: Arc<RuntimeEnv>,
    /// What files the coordinator itself may look at.
    pub allowed_roots: AllowedRoots,
}

impl fmt::Debug for SessionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSpec").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The session that a statement is planned in.
pub fn planning_state(spec: &Arc<SessionSpec>) -> Result<SessionState> {
    nested_state(spec, 0, spec.settings.search_path.as_slice().into())
}

/// The session that a new view's query is planned in: one view deep, as when the view is used,
/// with the names of the session that makes it.
pub fn view_state(spec: &Arc<SessionSpec>) -> Result<SessionState> {
    nested_state(spec, 1, spec.settings.search_path.as_slice().into())
}

/// The session that the text of a view is planned in when the view is used.
pub fn stored_view_state(spec: &Arc<SessionSpec>) -> Result<SessionState> {
    nested_state(spec, 1, view_path())
}

/// The session that a view's query is planned in, `view_depth` views deep.
pub(crate) fn nested_state(
    spec: &Arc<SessionSpec>,
    view_depth: usize,
    search_path: Arc<[String]>,
) -> Result<SessionState> {
    let config = spec.settings.apply(base_config())?;
    let config = config
        // Ours is a schema of the catalog like any other.
        .with_information_schema(false)
        .with_default_catalog_and_schema(CATALOG, SEARCH_PATH_SCHEMA)
        .with_create_default_catalog_and_schema(false)
        .with_extension(Arc::new(Topology::new(&spec.snapshot.cluster)))
        .with_extension(Arc::new(spec.allowed_roots.clone()))
        .with_extension(Arc::new(SliceSinkExtension(Arc::new(PeerSink::new(
            spec.channels.clone(),
        )))));
    let catalogs = MemoryCatalogProviderList::new();
    let catalog = SnapshotCatalog::new(Arc::clone(spec), view_depth, search_path);
    datafusion::catalog::CatalogProviderList::register_catalog(
        &catalogs,
        CATALOG.to_owned(),
        Arc::new(catalog),
    );
    let options = FragmentOptions {
        batch_rows: spec.settings.batch_rows,
        time_zone: spec.settings.time_zone.clone(),
        target_partitions: spec.settings.target_partitions,
    };
    let builder = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::clone(&spec.runtime))
        .with_default_features()
        .with_catalog_list(Arc::new(catalogs))
        .with_type_planner(Arc::new(SqlTypes))
        .with_analyzer_rule(Arc::new(GuardScalarSubqueries))
        .with_analyzer_rule(Arc::new(ProjectScalarSubqueries))
        .with_analyzer_rule(Arc::new(PortableWindows))
        .with_physical_optimizer_rules(physical_rules())
        .with_physical_optimizer_rule(Arc::new(YieldAfterExpansion))
        .with_physical_optimizer_rule(Arc::new(LimitedBuildSides))
        .with_distributed_option_extension(options)
        .with_distributed_planner()
        .with_distributed_worker_resolver(Topology::new(&spec.snapshot.cluster))
        .with_distributed_channel_resolver(spec.channels.clone())
        .with_distributed_user_codec(EngineCodec)
        .with_distributed_desired_task_count_handler(desired_tasks)
        .with_distributed_scale_up_leaf_node_handler(scale_up_leaf)
        .with_distributed_route_tasks_handler(route_tasks);
    let mut builder = with_checked_arithmetic(builder);
    let functions = builder.table_functions().get_or_insert_default();
    functions.clear();
    let roots = Arc::new(spec.allowed_roots.clone());
    for format in [FileFormat::Parquet, FileFormat::Csv] {
        let read = ReadFiles::new(format, Arc::clone(&roots), CsvOptions::default());
        let name = read.name().to_owned();
        functions.insert(name.clone(), Arc::new(TableFunction::new(name, Arc::new(read))));
    }
    let generate = datafusion::functions_table::all_default_table_functions();
    functions.extend(generate.into_iter().map(|f| (f.name().to_owned(), f)));
    let mut state = builder.build();
    // The moment that now() and current_date are of; without it they cannot be planned.
    state.mark_start_execution();
    functions::bound(&mut state)?;
    for function in session_functions(&spec.settings) {
        state.register_udf(function)?;
    }
    Ok(state)
}

/// What both sides have in common.
fn base_config() -> SessionConfig {
    // Made once: a new configuration asks the system for its cores, file by file.
    static BASE: LazyLock<SessionConfig> = LazyLock::new(new_base_config);
    BASE.clone()
}

fn new_base_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    let options = config.options_mut();
    options.execution.enable_file_stream_work_stealing = false;
    options.execution.parquet.schema_force_view_types = true;
    options.sql_parser.map_string_types_to_utf8view = true;
    // Errors of planning name the line and the column that they mean.
    options.sql_parser.collect_spans = true;
    config
}

/// What a worker gives to the fragments it runs.
#[derive(Debug, Clone)]
pub struct WorkerServices {
    /// Where scans read chunks.
    pub chunks: Arc<dyn ChunkSource>,
    /// Where appends put rows.
    pub sink: Arc<dyn SliceSink>,
    /// What files scans may read.
    pub allowed_roots: AllowedRoots,
    /// Connections to peers.
    pub channels: Channels,
    /// Whose plans the worker runs.
    pub fence: Fence,
}

/// The session that a fragment runs in.
pub fn fragment_state(
    context: WorkerQueryContext,
    services: &WorkerServices,
) -> Result<SessionState> {
    let mut builder = context
        .builder
        .with_distributed_option_extension_from_headers::<FragmentOptions>(&context.headers)?;
    let config = builder.config().get_or_insert_default();
    let fragment =
        config.options().extensions.get::<FragmentOptions>().cloned().unwrap_or_default();
    let options = config.options_mut();
    options.execution.enable_file_stream_work_stealing = false;
    options.set(
        "datafusion.execution.batch_size",
        &fragment.batch_rows.clamp(1, 65_536).to_string(),
    )?;
    options.execution.target_partitions = fragment.target_partitions.clamp(2, 256);
    options.execution.time_zone = Some(fragment.time_zone);
    config.set_extension(Arc::new(ChunkSourceExtension(Arc::clone(&services.chunks))));
    config.set_extension(Arc::new(SliceSinkExtension(Arc::clone(&services.sink))));
    config.set_extension(Arc::new(services.allowed_roots.clone()));
    let fence = services.fence.clone();
    let admit = move |event: WorkerPlanRewriteEvent<'_>| {
        check_allowed(&event.plan, &fence)?;
        Ok(WorkerPlanRewriteEventResponse::new(count_windows(event.plan)?))
    };
    let mut state = with_checked_functions(builder)
        .with_distributed_user_codec(EngineCodec)
        .with_distributed_channel_resolver(services.channels.clone())
        .with_distributed_worker_plan_rewrite_handler(admit)
        .build();
    functions::bound(&mut state)?;
    state.register_udaf(single_row())?;
    for function in flagged_functions() {
        state.register_udwf(function)?;
    }
    Ok(state)
}
