//! Names without a schema: which schema of the session's search path each of them means.
//!
//! Invariant: once a statement went through [`Statements::qualified`], every relation that it
//! names outside of its queries has a schema. Names inside of queries are found by the planner,
//! along the same path (`engine/src/snapshot_catalog.rs`).

use basalt_engine::dialect::{Analyze, KeySpecKind, ObjectRef, ParsedStatement, Statement};
use basalt_engine::error::{ErrorCode, SqlError};
use basalt_engine::settings::SEARCH_PATH;
use basalt_engine::snapshot::Snapshot;

use super::Statements;
use crate::backend::SessionId;
use crate::catalog::find_schema;

/// Schemas that the engine fills, which a search path may have as well.
const COMPUTED_SCHEMAS: [&str; 2] = ["information_schema", "sys"];

/// What PostgreSQL calls the schema of the user's name: nobody has one here.
const USER_SCHEMA: &str = "$user";

impl Statements {
    /// The statement with a schema for each relation that it creates, changes, drops or shows.
    pub(super) fn qualified(
        &self,
        session: SessionId,
        mut parsed: ParsedStatement,
    ) -> Result<ParsedStatement, SqlError> {
        let path = self.inner.sessions.settings(session).search_path;
        let snapshot = self.inner.catalog.snapshot();
        qualify(&mut parsed.statement, &snapshot, &path)?;
        Ok(parsed)
    }

    /// `SET name = value`.
    pub(super) fn set(&self, session: SessionId, name: &str, value: &str) -> Result<(), SqlError> {
        let snapshot = self.inner.catalog.snapshot();
        self.inner.sessions.change(session, |settings| {
            settings.set(name, value)?;
            match name {
                SEARCH_PATH => check_path(&snapshot, &mut settings.search_path),
                _ => Ok(()),
            }
        })
    }

    /// The schema that a session creates in when a name has none.
    pub(super) fn creation_schema(&self, session: SessionId) -> Result<String, SqlError> {
        first(&self.inner.sessions.settings(session).search_path)
    }

    /// The schema of an existing relation, or of a new one, that a session names without one.
    pub(super) fn schema_of_name(
        &self,
        session: SessionId,
        name: &str,
    ) -> Result<String, SqlError> {
        let path = self.inner.sessions.settings(session).search_path;
        let mut name = ObjectRef { schema: None, name: name.to_owned() };
        find(&mut name, &self.inner.catalog.snapshot(), &path)?;
        name.schema.map_or_else(|| first(&path), Ok)
    }
}

fn qualify(
    statement: &mut Statement,
    snapshot: &Snapshot,
    path: &[String],
) -> Result<(), SqlError> {
    match statement {
        Statement::Explain(explain) => qualify(&mut explain.statement, snapshot, path),
        Statement::CreateTable(create) => {
            make(&mut create.name, path)?;
            let (own, keys) = (create.name.clone(), create.keys.iter_mut());
            for key in keys {
                let KeySpecKind::Foreign { table, .. } = &mut key.kind else { continue };
                if table.schema.is_none() && table.name == own.name {
                    table.schema.clone_from(&own.schema);
                }
                find(table, snapshot, path)?;
            }
            Ok(())
        }
        Statement::CreateView(create) => make(&mut create.name, path),
        Statement::DropTable(drop) => {
            drop.names.iter_mut().try_for_each(|name| find(name, snapshot, path))
        }
        Statement::DropView(drop) => {
            drop.names.iter_mut().try_for_each(|name| find(name, snapshot, path))
        }
        Statement::Insert(insert) => find(&mut insert.table, snapshot, path),
        Statement::Delete(delete) => find(&mut delete.rows.table, snapshot, path),
        Statement::Update(update) => find(&mut update.rows.table, snapshot, path),
        Statement::CopyFrom(copy) => find(&mut copy.table, snapshot, path),
        Statement::Vacuum(Some((table, _))) => find(table, snapshot, path),
        Statement::AnalyzeCompression(analyze) => find(&mut analyze.table, snapshot, path),
        Statement::Analyze(Analyze { table: Some((table, _)), .. }) => find(table, snapshot, path),
        Statement::ShowColumns(name) | Statement::Describe(name) | Statement::ShowCreate(name) => {
            find(name, snapshot, path)
        }
        _ => Ok(()),
    }
}

/// A name to create: in the first schema of the path.
fn make(name: &mut ObjectRef, path: &[String]) -> Result<(), SqlError> {
    if name.schema.is_none() {
        name.schema = Some(first(path)?);
    }
    Ok(())
}

/// A name of something that exists: in the first schema of the path that has it. What none has is
/// looked for in the first, so that the error says where.
fn find(name: &mut ObjectRef, snapshot: &Snapshot, path: &[String]) -> Result<(), SqlError> {
    if name.schema.is_none() {
        name.schema = match schema_with(&name.name, snapshot, path) {
            Some(schema) => Some(schema.to_owned()),
            None => Some(first(path)?),
        };
    }
    Ok(())
}

/// The first schema of the path that has a relation of this name.
fn schema_with<'a>(name: &str, snapshot: &Snapshot, path: &'a [String]) -> Option<&'a str> {
    let has = |schema: &&String| {
        snapshot.schemas.get(*schema).is_some_and(|found| found.relations.contains_key(name))
    };
    path.iter().find(has).map(String::as_str)
}

fn first(path: &[String]) -> Result<String, SqlError> {
    path.first().cloned().ok_or_else(|| {
        SqlError::new(ErrorCode::UndefinedTable, "the search path has no schema")
            .with_hint("name one, as in SET search_path TO public, or write schema.name")
    })
}

/// Checks a new search path against the schemas there are.
fn check_path(snapshot: &Snapshot, path: &mut Vec<String>) -> Result<(), SqlError> {
    path.retain(|name| name != USER_SCHEMA);
    for name in path.iter().filter(|name| !COMPUTED_SCHEMAS.contains(&name.as_str())) {
        find_schema(snapshot, name)?;
    }
    Ok(())
}
