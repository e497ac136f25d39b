//! What SET changed, per connection, and the planning session of a statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_engine::error::{SqlError, from_datafusion};
use basalt_engine::session::{SessionSpec, planning_state};
use basalt_engine::settings::Settings;
use datafusion::execution::SessionState;

use super::Statements;
use crate::backend::SessionId;
use crate::sys_schema::sys_schema;

/// The settings of sessions that have changed any; all others have the defaults.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    changed: Mutex<HashMap<SessionId, Settings>>,
}

impl Sessions {
    pub(super) fn settings(&self, session: SessionId) -> Settings {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.get(&session).cloned().unwrap_or_default()
    }

    pub(super) fn change(
        &self,
        session: SessionId,
        change: impl FnOnce(&mut Settings) -> Result<(), SqlError>,
    ) -> Result<(), SqlError> {
        let mut settings = self.settings(session);
        change(&mut settings)?;
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.insert(session, settings);
        Ok(())
    }

    pub(super) fn forget(&self, session: SessionId) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

/// One statement's pinned snapshot and the session it is planned in.
pub(super) struct Pinned {
    pub(super) spec: Arc<SessionSpec>,
    pub(super) state: SessionState,
}

impl Statements {
    /// Pins the newest snapshot for one statement.
    pub(super) fn pin(&self, session: SessionId) -> Result<Pinned, SqlError> {
        let snapshot = self.inner.catalog.snapshot();
        let sys = sys_schema(&snapshot, &self.inner.members, &self.inner.registry);
        let spec = Arc::new(SessionSpec {
            snapshot,
            settings: self.inner.sessions.settings(session),
            computed_schemas: HashMap::from([("sys".to_owned(), sys)]),
            channels: self.inner.channels.clone(),
            runtime: Arc::clone(&self.inner.runtime),
            allowed_roots: self.inner.allowed_roots.clone(),
        });
        let state = planning_state(&spec).map_err(from_datafusion)?;
        Ok(Pinned { spec, state })
    }
}

impl Pinned {
    /// An error of DataFusion's as the user reads it, with the tables that exist as suggestions.
    pub(super) fn error(&self, error: datafusion::error::DataFusionError) -> SqlError {
        let names: Vec<&str> = self
            .spec
            .snapshot
            .schemas
            .values()
            .flat_map(|schema| schema.relations.keys().map(String::as_str))
            .collect();
        basalt_engine::error::from_datafusion_with_relations(error, &names)
    }
}
