//! The sessions that statements are planned in.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::catalog::{
    CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableFunction,
};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::registry::FunctionRegistry;
use datafusion_distributed::{DistributedExt, SessionStateBuilderExt};
use uuid::Uuid;

use super::{FragmentOptions, base_config, running_context, sort_spill_reservation_bytes};
use crate::arithmetic::with_checked_arithmetic;
use crate::channels::Channels;
use crate::codec::EngineCodec;
use crate::distribute::{
    Colocation, LimitedBuildSides, Topology, WholeBuilds, desired_tasks, route_tasks, scale_up_leaf,
};
use crate::empty_grouping_set::EmptyGroupingSet;
use crate::files::{AllowedRoots, CsvOptions, FileFormat, ReadFiles};
use crate::functions;
use crate::join_order::JoinOrder;
use crate::logical_rules::hold_back;
use crate::physical_rules::physical_rules;
use crate::plan_cache::PlanCache;
use crate::portable_windows::PortableWindows;
use crate::query_memory;
use crate::rewording::reworded;
use crate::session_functions::session_functions;
use crate::settings::{CacheUse, Settings};
use crate::snapshot::{CATALOG, Snapshot};
use crate::snapshot_catalog::{SEARCH_PATH_SCHEMA, SnapshotCatalog, view_path};
use crate::statistics::Estimates;
use crate::subqueries::{GuardScalarSubqueries, ProjectScalarSubqueries};
use crate::types::SqlTypes;
use crate::write::{PeerSink, SliceSinkExtension};
use crate::yielding::YieldAfterExpansion;

/// What the planning sessions of a coordinator have in common, made once: to register all
/// functions and rules takes a good part of the time that a small query is planned in.
pub struct PlanningSessions {
    /// What files the coordinator itself may look at.
    pub allowed_roots: AllowedRoots,
    pub(crate) plans: PlanCache,
    common: SessionState,
}

impl PlanningSessions {
    /// The planning sessions of a coordinator with these connections to workers, that may use
    /// `runtime` for its own part of queries.
    ///
    /// # Errors
    /// A function that cannot be registered.
    pub fn new(
        channels: Channels,
        runtime: Arc<RuntimeEnv>,
        allowed_roots: AllowedRoots,
    ) -> Result<Self> {
        let sink = PeerSink::new(channels.clone());
        let config = base_config()
            // Ours is a schema of the catalog like any other.
            .with_information_schema(false)
            .with_default_catalog_and_schema(CATALOG, SEARCH_PATH_SCHEMA)
            .with_create_default_catalog_and_schema(false)
            .with_extension(Arc::new(allowed_roots.clone()))
            .with_extension(Arc::new(SliceSinkExtension(Arc::new(sink))));
        let builder = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(runtime)
            .with_default_features()
            .with_type_planner(Arc::new(SqlTypes))
            .with_analyzer_rule(Arc::new(GuardScalarSubqueries))
            .with_analyzer_rule(Arc::new(ProjectScalarSubqueries))
            .with_analyzer_rule(Arc::new(PortableWindows))
            .with_analyzer_rule(Arc::new(EmptyGroupingSet))
            .with_physical_optimizer_rules(physical_rules())
            .with_physical_optimizer_rule(Arc::new(YieldAfterExpansion))
            .with_physical_optimizer_rule(Arc::new(LimitedBuildSides))
            .with_distributed_planner()
            .with_distributed_channel_resolver(channels)
            .with_distributed_user_codec(EngineCodec)
            .with_distributed_desired_task_count_handler(desired_tasks)
            .with_distributed_scale_up_leaf_node_handler(scale_up_leaf)
            .with_distributed_route_tasks_handler(route_tasks);
        let mut builder = with_checked_arithmetic(reworded(builder));
        if let Some(optimizer) = builder.optimizer() {
            hold_back(&mut optimizer.rules);
        }
        let functions = builder.table_functions().get_or_insert_default();
        functions.clear();
        let roots = Arc::new(allowed_roots.clone());
        for format in [FileFormat::Parquet, FileFormat::Csv] {
            let read = ReadFiles::new(format, Arc::clone(&roots), CsvOptions::default());
            let name = read.name().to_owned();
            functions.insert(name.clone(), Arc::new(TableFunction::new(name, Arc::new(read))));
        }
        let generate = datafusion::functions_table::all_default_table_functions();
        functions.extend(generate.into_iter().map(|f| (f.name().to_owned(), f)));
        let mut common = builder.build();
        functions::bound(&mut common)?;
        Ok(Self { allowed_roots, plans: PlanCache::default(), common })
    }
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
    /// What it has in common with all others.
    pub sessions: Arc<PlanningSessions>,
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

/// The moment that now() and current_date are of in a statement.
#[derive(Debug, Clone)]
pub struct Moment(ExecutionProps);

impl Moment {
    /// That of the session that a statement was planned in.
    pub fn of(state: &SessionState) -> Self {
        Self(state.execution_props().clone())
    }
}

/// The session that a statement is planned in again: its moment stays, as parts of it may have run.
pub fn replanning_state(spec: &Arc<SessionSpec>, moment: &Moment) -> Result<SessionState> {
    let mut state = planning_state(spec)?;
    state.execution_props_mut().query_execution_start_time = moment.0.query_execution_start_time;
    Ok(state)
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
    let topology = Topology::new(&spec.snapshot.cluster, spec.settings.one_task_rows);
    let fragment = FragmentOptions {
        query: Uuid::new_v4().to_string(),
        batch_rows: spec.settings.batch_rows,
        time_zone: spec.settings.time_zone.clone(),
        smaller_builds: spec.settings.smaller_builds,
        target_partitions: spec.settings.target_partitions,
        filter_pushdown: spec.settings.scans.filter_pushdown,
        pruning: spec.settings.scans.pruning,
        sorted_scans: spec.settings.scans.sorted_scans,
        caches_columns: spec.settings.scans.column_cache != CacheUse::Off,
        finds_columns: spec.settings.scans.column_cache == CacheUse::On,
    };
    let mut state = spec.sessions.common.clone();
    let mut config = spec.settings.apply(state.config().clone())?;
    config.options_mut().execution.sort_spill_reservation_bytes =
        sort_spill_reservation_bytes(state.runtime_env(), spec.settings.target_partitions);
    *state.config_mut() = config
        .with_extension(Arc::new(topology.clone()))
        .with_extension(Arc::clone(&spec.snapshot.cluster))
        .with_extension(Arc::clone(spec))
        .with_extension(Arc::new(Estimates(spec.settings.statistics)))
        .with_extension(Arc::new(JoinOrder(spec.settings.join_order)))
        .with_extension(Arc::new(Colocation(spec.settings.colocation)))
        .with_extension(Arc::new(WholeBuilds(spec.settings.whole_builds)))
        .with_distributed_option_extension(fragment)
        .with_distributed_worker_resolver(topology);
    let catalogs = MemoryCatalogProviderList::new();
    let catalog = SnapshotCatalog::new(Arc::clone(spec), view_depth, search_path);
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    state.register_catalog_list(Arc::new(catalogs));
    // The moment that now() and current_date are of; without it they cannot be planned.
    state.mark_start_execution();
    for function in session_functions(&spec.settings) {
        state.register_udf(function)?;
    }
    Ok(state)
}

/// What a plan that was made in a session runs with.
pub fn execution_context(state: &SessionState) -> Arc<TaskContext> {
    let (id, config) = (state.session_id().to_owned(), state.config().clone());
    running_context(id, config, query_memory::of_coordinator(state.runtime_env()))
}
