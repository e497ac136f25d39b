//! The pinned snapshot as DataFusion's catalog: names resolve to the tables of one commit.
//!
//! A name without a schema is looked for in [`SEARCH_PATH_SCHEMA`], which has what the schemas of
//! the search path have, the first of them first. That is the one place where the path is walked,
//! so a WITH clause or an alias hides a table exactly where DataFusion says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::common::Column;
use datafusion::datasource::ViewTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};

use crate::dialect::{Statement, parse_one, shown_names};
use crate::error::{ErrorCode, SqlError, from_datafusion, printable};
use crate::information_schema::{INFORMATION_SCHEMA, InformationSchema};
use crate::plan_size::check_plan_size;
use crate::session::{SessionSpec, nested_state};
use crate::snapshot::{DEFAULT_SCHEMA, Relation, SchemaSnapshot, ViewSnapshot};
use crate::table::SegmentTable;

/// How deep views may refer to views.
const VIEW_DEPTH_MAX: usize = 32;

/// The schema that names without one are resolved in. No user's schema can be called so.
pub(crate) const SEARCH_PATH_SCHEMA: &str = "\u{1}search_path";

/// The one catalog of a cluster at one commit.
#[derive(Clone)]
pub(crate) struct SnapshotCatalog {
    spec: Arc<SessionSpec>,
    view_depth: usize,
    /// Where names without a schema are looked for.
    search_path: Arc<[String]>,
    /// Schemas that are computed, not stored: `sys`.
    computed: HashMap<String, Arc<dyn SchemaProvider>>,
}

impl SnapshotCatalog {
    pub(crate) fn new(
        spec: Arc<SessionSpec>,
        view_depth: usize,
        search_path: Arc<[String]>,
    ) -> Self {
        let computed = spec.computed_schemas.clone();
        Self { spec, view_depth, search_path, computed }
    }
}

impl fmt::Debug for SnapshotCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotCatalog(version {})", self.spec.snapshot.version)
    }
}

impl CatalogProvider for SnapshotCatalog {
    fn schema_names(&self) -> Vec<String> {
        let built_in = [INFORMATION_SCHEMA.to_owned()];
        let stored = self.spec.snapshot.schemas.keys().chain(self.computed.keys());
        stored.cloned().chain(built_in).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(schema) = self.computed.get(name) {
            return Some(Arc::clone(schema));
        }
        if name == SEARCH_PATH_SCHEMA {
            return Some(Arc::new(SearchPath(self.clone())));
        }
        if name == INFORMATION_SCHEMA {
            return Some(Arc::new(InformationSchema::new(self.spec.clone(), self.view_depth)));
        }
        let schema = self.spec.snapshot.schemas.get(name)?;
        Some(Arc::new(SnapshotSchema {
            spec: Arc::clone(&self.spec),
            schema: Arc::clone(schema),
            view_depth: self.view_depth,
        }))
    }
}

/// The schemas of a search path as one.
struct SearchPath(SnapshotCatalog);

impl SearchPath {
    fn schemas(&self) -> impl Iterator<Item = Arc<dyn SchemaProvider>> {
        self.0.search_path.iter().filter_map(|name| self.0.schema(name))
    }
}

impl fmt::Debug for SearchPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SearchPath({:?})", self.0.search_path)
    }
}

#[async_trait]
impl SchemaProvider for SearchPath {
    fn table_names(&self) -> Vec<String> {
        self.schemas().flat_map(|schema| schema.table_names()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.schemas().find(|schema| schema.table_exist(name)) {
            Some(schema) => schema.table(name).await,
            None => Ok(None),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schemas().any(|schema| schema.table_exist(name))
    }
}

/// The search path of a view's query: what its names meant elsewhere is written into its text.
pub(crate) fn view_path() -> Arc<[String]> {
    Arc::from([DEFAULT_SCHEMA.to_owned()])
}

/// A view's query as a plan, and the provider that reads it.
pub(crate) async fn view_table(
    spec: &Arc<SessionSpec>,
    view: &ViewSnapshot,
    view_depth: usize,
) -> Result<Arc<dyn TableProvider>> {
    if view_depth >= VIEW_DEPTH_MAX {
        let message = format!("view \"{}\" is nested too deeply", view.name);
        return Err(SqlError::new(ErrorCode::InvalidStatement, message)
            .with_hint(format!("views may refer to views {VIEW_DEPTH_MAX} levels deep"))
            .into());
    }
    let state = nested_state(spec, view_depth + 1, view_path())?;
    let plan = view_plan(&state, view).await.map_err(|error| in_view(error, view))?;
    Ok(Arc::new(ViewTable::new(plan, Some(view.query.clone()))))
}

async fn view_plan(state: &SessionState, view: &ViewSnapshot) -> Result<LogicalPlan> {
    let plan = match parse_one(&view.query)?.statement {
        Statement::Query(query) => state.statement_to_plan(query).await?,
        other => {
            let message = format!("view \"{}\" is a {}", view.name, other.kind());
            return Err(SqlError::new(ErrorCode::DataCorrupted, message).into());
        }
    };
    check_plan_size(&plan)?;
    with_shown_names(plan)
}

/// The plan with its columns called as they are shown, as its text may have the mark of one that is repeated.
fn with_shown_names(plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = plan.schema();
    let shown = shown_names(schema.as_arrow());
    if shown.fields() == schema.as_arrow().fields() {
        return Ok(plan);
    }
    let columns = schema.iter().zip(shown.fields());
    let columns: Vec<_> = columns
        .map(|(column, shown)| Expr::Column(Column::from(column)).alias(shown.name()))
        .collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

/// An error in the text of a view, whose positions are not those of the statement. What a view
/// lacks is told with the view, the outermost one.
fn in_view(error: DataFusionError, view: &ViewSnapshot) -> DataFusionError {
    let error = SqlError { position: None, ..from_datafusion(error) };
    let lacks = matches!(
        error.code,
        ErrorCode::UndefinedTable | ErrorCode::UndefinedColumn | ErrorCode::UndefinedFunction
    );
    if !lacks {
        return error.into();
    }
    let inner = error.message.split_once("\": ").filter(|_| error.message.starts_with("view \""));
    let what = inner.map_or(error.message.as_str(), |(_, what)| what);
    let message = format!("view \"{}\": {what}", printable(&view.name));
    SqlError::new(error.code, message)
        .with_hint("make what it needs again, or replace the view")
        .into()
}

/// One schema at one commit.
struct SnapshotSchema {
    spec: Arc<SessionSpec>,
    schema: Arc<SchemaSnapshot>,
    view_depth: usize,
}

impl fmt::Debug for SnapshotSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotSchema({} relations)", self.schema.relations.len())
    }
}

#[async_trait]
impl SchemaProvider for SnapshotSchema {
    fn table_names(&self) -> Vec<String> {
        self.schema.relations.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match self.schema.relations.get(name) {
            None => Ok(None),
            Some(Relation::Table(table)) => {
                let cluster = Arc::clone(&self.spec.snapshot.cluster);
                Ok(Some(Arc::new(SegmentTable::new(Arc::clone(table), cluster))))
            }
            Some(Relation::View(view)) => {
                Box::pin(view_table(&self.spec, view, self.view_depth)).await.map(Some)
            }
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schema.relations.contains_key(name)
    }
}
