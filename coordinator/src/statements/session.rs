//! What SET changed, per connection, and the planning session of a statement.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use basalt_engine::distribute::plan_distributed;
use basalt_engine::error::{SqlError, did_you_mean_among, from_datafusion};
use basalt_engine::session::{SessionSpec, planning_state};
use basalt_engine::settings::Settings;
use basalt_engine::types::identifier;
use datafusion::catalog::SchemaProvider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use super::Statements;
use super::registry::RunNotes;
use crate::backend::SessionId;
use crate::catalog::find_schema;
use crate::sys_schema::SysSchema;

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
    /// The statement's run, where it has one: compactions have none.
    run: Option<RunNotes>,
}

impl Statements {
    /// Pins the newest snapshot for one statement.
    pub(super) fn pin(&self, session: SessionId) -> Result<Pinned, SqlError> {
        self.pin_with(self.inner.sessions.settings(session))
    }

    /// The same with settings that are no session's.
    pub(super) fn pin_with(&self, settings: Settings) -> Result<Pinned, SqlError> {
        let snapshot = self.inner.catalog.snapshot();
        let (members, registry) = (&self.inner.members, &self.inner.registry);
        let sys: Arc<dyn SchemaProvider> = Arc::new(SysSchema::new(
            self.inner.catalog.clone(),
            Arc::clone(&snapshot),
            Arc::clone(members),
            Arc::clone(registry),
            self.inner.reconciler.clone(),
        ));
        let spec = Arc::new(SessionSpec {
            snapshot,
            settings,
            computed_schemas: HashMap::from([("sys".to_owned(), sys)]),
            sessions: Arc::clone(&self.inner.planning),
        });
        let state = planning_state(&spec).map_err(from_datafusion)?;
        Ok(Pinned { spec, state, run: None })
    }

    /// The same for a statement whose plans are noted with its run.
    pub(super) fn pin_run(&self, run: &RunNotes) -> Result<Pinned, SqlError> {
        let mut settings = self.inner.sessions.settings(run.session());
        if let Some(consistency) = run.consistency() {
            settings.write_consistency = consistency;
        }
        Ok(Pinned { run: Some(run.clone()), ..self.pin_with(settings)? })
    }
}

impl Pinned {
    /// The same snapshot, for a plan in another session.
    pub(super) fn with_state(&self, state: SessionState) -> Self {
        Self { spec: Arc::clone(&self.spec), state, run: self.run.clone() }
    }

    /// Plans over the workers; a plan that has to run as one task is noted with the run.
    pub(super) async fn distributed(
        &self,
        plan: &LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>, SqlError> {
        let distributed =
            plan_distributed(&self.state, plan).await.map_err(|error| self.error(error))?;
        if let Some(run) = &self.run {
            run.note_fallback(distributed.fallback);
        }
        Ok(distributed.plan)
    }

    /// An error of DataFusion's as the user reads it, with the tables that exist as suggestions.
    pub(super) fn error(&self, error: datafusion::error::DataFusionError) -> SqlError {
        let names: Vec<&str> = self
            .spec
            .snapshot
            .schemas
            .values()
            .flat_map(|schema| schema.relations.keys().map(String::as_str))
            .collect();
        let error = basalt_engine::error::from_datafusion_with_relations(error, &names);
        let error = self.unknown_schema(error);
        self.other_schema(error)
    }

    /// A table that exists in a schema outside of the search path.
    fn other_schema(&self, error: SqlError) -> SqlError {
        let name = error.message.strip_prefix("table \"");
        let name = name.and_then(|rest| rest.strip_suffix("\" does not exist"));
        let Some(name) = name else { return error };
        let mut schemas = self.spec.snapshot.schemas.iter();
        match schemas.find(|(_, found)| found.relations.contains_key(name)) {
            None => error,
            Some((schema, _)) => {
                let written = format!("{}.{}", identifier(schema), identifier(name));
                error.with_hint(format!("write {written}, or add its schema to search_path"))
            }
        }
    }

    /// A table that does not exist because its schema does not.
    fn unknown_schema(&self, error: SqlError) -> SqlError {
        let missing = error.message.strip_prefix("table \"").and_then(|rest| {
            let (name, end) = rest.split_once('"')?;
            (end == " does not exist").then_some(name.split_once('.')?.0)
        });
        let computed = self.spec.computed_schemas.keys().map(String::as_str);
        let mut known = computed.chain(["information_schema"]);
        match missing.filter(|schema| !known.any(|known| known == *schema)) {
            None => error,
            Some(schema) => match find_schema(&self.spec.snapshot, schema) {
                Ok(_) => error,
                Err(unknown) => {
                    let unknown = SqlError { hint: None, ..SqlError::from(unknown) };
                    let schemas: Vec<_> =
                        self.spec.snapshot.schemas.keys().map(String::as_str).collect();
                    let told = did_you_mean_among(unknown, schema, "schemas", &schemas);
                    SqlError { position: error.position, ..told }
                }
            },
        }
    }
}
