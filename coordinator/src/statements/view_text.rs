//! The text of a view, as it is kept: its names go on to mean what they meant when it was made.
//!
//! Views are planned along the default search path, so a name that another one decided about is
//! written with its schema.

use basalt_engine::dialect::{self, CreateView, Statement};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::session::stored_view_state;
use basalt_engine::snapshot::{CATALOG, DEFAULT_SCHEMA};
use datafusion::logical_expr::LogicalPlan;

use super::definition::quoted;
use super::session::Pinned;

impl Pinned {
    /// The text of a new view's query, with a schema before each name that needs one.
    pub(super) fn view_text(&self, create: &CreateView) -> String {
        let mut text = String::with_capacity(create.query_text.len());
        let mut copied = 0;
        for (name, start) in &create.unqualified {
            if let Some(schema) = self.schema_with(name).filter(|found| *found != DEFAULT_SCHEMA) {
                text.push_str(create.query_text.get(copied..*start).unwrap_or_default());
                text.push_str(&quoted(schema));
                text.push('.');
                copied = *start;
            }
        }
        text.push_str(create.query_text.get(copied..).unwrap_or_default());
        text
    }

    /// The first schema of the search path that has a relation of this name, computed or stored.
    fn schema_with(&self, name: &str) -> Option<&str> {
        let catalog = self.state.catalog_list().catalog(CATALOG)?;
        let path = self.spec.settings.search_path.iter().map(String::as_str);
        let mut having = path
            .filter(|schema| catalog.schema(schema).is_some_and(|found| found.table_exist(name)));
        having.next()
    }

    /// The plan of a view's text, as when the view is used.
    pub(super) async fn stored_view_plan(&self, query: &str) -> Result<LogicalPlan, SqlError> {
        let state = stored_view_state(&self.spec).map_err(|error| self.error(error))?;
        let stored = self.with_state(state);
        // Positions count in the text of the view, which may be none that the user wrote.
        let nowhere = |error| SqlError { position: None, ..error };
        match dialect::parse_one(query).map_err(nowhere)?.statement {
            Statement::Query(query) => stored.query_plan(query).await.map_err(nowhere),
            other => {
                let message = format!("the text of a view is a {}", other.kind());
                Err(SqlError::new(ErrorCode::Internal, message))
            }
        }
    }
}
