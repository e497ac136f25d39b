//! The pinned snapshot as DataFusion's catalog: names resolve to the tables of one commit.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, SchemaProvider, TableProvider};
use datafusion::datasource::ViewTable;
use datafusion::error::Result;

use crate::error::{ErrorCode, SqlError};
use crate::plan_size::check_plan_size;
use crate::session::{SessionSpec, nested_state};
use crate::snapshot::{Relation, SchemaSnapshot, ViewSnapshot};
use crate::table::SegmentTable;

/// How deep views may refer to views.
const VIEW_DEPTH_MAX: usize = 32;

/// The one catalog of a cluster at one commit.
pub(crate) struct SnapshotCatalog {
    spec: Arc<SessionSpec>,
    view_depth: usize,
    /// Schemas that are computed, not stored: `sys`.
    computed: HashMap<String, Arc<dyn SchemaProvider>>,
}

impl SnapshotCatalog {
    pub(crate) fn new(spec: Arc<SessionSpec>, view_depth: usize) -> Self {
        let computed = spec.computed_schemas.clone();
        Self { spec, view_depth, computed }
    }
}

impl fmt::Debug for SnapshotCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotCatalog(version {})", self.spec.snapshot.version)
    }
}

impl CatalogProvider for SnapshotCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.spec.snapshot.schemas.keys().chain(self.computed.keys()).cloned().collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(schema) = self.computed.get(name) {
            return Some(Arc::clone(schema));
        }
        let schema = self.spec.snapshot.schemas.get(name)?;
        Some(Arc::new(SnapshotSchema {
            spec: Arc::clone(&self.spec),
            schema: Arc::clone(schema),
            view_depth: self.view_depth,
        }))
    }
}

/// One schema at one commit.
struct SnapshotSchema {
    spec: Arc<SessionSpec>,
    schema: Arc<SchemaSnapshot>,
    view_depth: usize,
}

impl SnapshotSchema {
    async fn view(&self, view: &ViewSnapshot) -> Result<Arc<dyn TableProvider>> {
        if self.view_depth >= VIEW_DEPTH_MAX {
            let message = format!("view \"{}\" is nested too deeply", view.name);
            return Err(SqlError::new(ErrorCode::InvalidStatement, message)
                .with_hint(format!("views may refer to views {VIEW_DEPTH_MAX} levels deep"))
                .into());
        }
        let state = nested_state(&self.spec, self.view_depth + 1)?;
        let plan = state.create_logical_plan(&view.query).await?;
        check_plan_size(&plan)?;
        Ok(Arc::new(ViewTable::new(plan, Some(view.query.clone()))))
    }
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
            Some(Relation::View(view)) => Box::pin(self.view(view)).await.map(Some),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        self.schema.relations.contains_key(name)
    }
}
