//! CREATE and DROP of tables, views and schemas.

use std::collections::HashSet;

use arrow::datatypes::Fields;
use basalt_engine::dialect::{
    ColumnSpec, CreateSchema, CreateTable, CreateView, DistributionSpec, DropSchema, DropTable,
    DropView, ObjectRef, shown_names,
};
use basalt_engine::error::{ErrorCode, SqlError, printable};
use basalt_engine::session::view_state;
use basalt_engine::snapshot::{
    ClusterView, DEFAULT_SCHEMA, Distribution, Relation, SchemaSnapshot, Snapshot,
};
use basalt_engine::types::{storage_type, storage_type_of};
use basalt_storage::ids::{ColumnId, TableId};
use basalt_storage::schema::{Column, Declared, TableSchema};
use datafusion::sql::parser::Statement as DFStatement;
use datafusion::sql::sqlparser::ast;

use super::Statements;
use super::declared::declare;
use super::registry::RunNotes;
use super::replan::Attempts;
use super::session::Pinned;
use crate::catalog::command::REPLICAS_DEFAULT;
use crate::catalog::{Change, NewTable, find_relation, find_schema};

/// Columns that cannot be stored that one error lists; the rest is counted.
const REFUSED_SHOWN: usize = 100;

/// The schema a name is in.
pub(super) fn schema_of(name: &ObjectRef) -> String {
    name.schema.clone().unwrap_or_else(|| DEFAULT_SCHEMA.to_owned())
}

fn existing<'a>(snapshot: &'a Snapshot, name: &ObjectRef) -> Option<&'a Relation> {
    snapshot.schemas.get(&schema_of(name))?.relations.get(&name.name)
}

/// What dropping a relation means, and an error when it is of the other kind.
fn drop_relation(
    snapshot: &Snapshot,
    name: &ObjectRef,
    if_exists: bool,
    view: bool,
) -> Result<Option<Change>, SqlError> {
    if if_exists && existing(snapshot, name).is_none() {
        return Ok(None);
    }
    let schema = schema_of(name);
    let missing = |error| {
        let error = SqlError::from(error);
        match error.hint {
            Some(_) => error,
            None => error.with_hint("IF EXISTS drops what may not be there"),
        }
    };
    match (find_relation(snapshot, &schema, &name.name).map_err(missing)?, view) {
        (Relation::Table(table), false) => {
            Ok(Some(Change::DropTable { table: table.id, version: None }))
        }
        (Relation::View(_), true) => Ok(Some(Change::DropView { schema, name: name.name.clone() })),
        (relation, _) => Err(wrong_kind(name, relation)),
    }
}

fn wrong_kind(name: &ObjectRef, relation: &Relation) -> SqlError {
    let (is, keyword) = match relation {
        Relation::Table(_) => ("a table", "TABLE"),
        Relation::View(_) => ("a view", "VIEW"),
    };
    let message = format!("\"{}\" is {is}", name.name);
    SqlError::new(ErrorCode::InvalidStatement, message)
        .with_hint(format!("use DROP {keyword} {}", name.name))
}

/// What must happen to an existing relation of the name before it is created.
pub(super) enum Existing {
    /// Nothing is there, or it is dropped by these changes in the same commit.
    Free(Vec<Change>),
    /// It is there and that is fine: nothing is to be done.
    Keep,
}

/// Decides what CREATE does about a relation that is there already.
pub(super) fn make_room(
    snapshot: &Snapshot,
    name: &ObjectRef,
    or_replace: bool,
    if_not_exists: bool,
    view: bool,
) -> Result<Existing, SqlError> {
    match existing(snapshot, name) {
        None => Ok(Existing::Free(vec![])),
        Some(_) if if_not_exists => Ok(Existing::Keep),
        // What replaces a table may be made of its rows: rows that came since would be lost.
        Some(Relation::Table(table)) if or_replace && !view => {
            let version = Some(table.version);
            Ok(Existing::Free(vec![Change::DropTable { table: table.id, version }]))
        }
        Some(_) if or_replace => drop_relation(snapshot, name, false, view)
            .map(|change| Existing::Free(change.into_iter().collect())),
        Some(_) => {
            let message = format!("relation \"{}\" already exists", name.name);
            Err(SqlError::new(ErrorCode::DuplicateObject, message)
                .with_hint("use IF NOT EXISTS or OR REPLACE, or another name"))
        }
    }
}

/// The columns of a new table, with ids from 1.
pub(super) fn table_schema(
    columns: impl IntoIterator<Item = Result<(String, arrow::datatypes::DataType, bool), SqlError>>,
) -> Result<TableSchema, SqlError> {
    let mut seen = HashSet::new();
    let columns = (1..)
        .zip(columns)
        .map(|(id, column)| {
            let (name, data_type, nullable) = column?;
            if !seen.insert(name.clone()) {
                let message = format!("column \"{name}\" is named more than once");
                return Err(SqlError::new(ErrorCode::DuplicateObject, message)
                    .with_hint("give each column a name of its own, with AS in a query"));
            }
            let declared = Declared::default();
            Ok(Column { id: ColumnId(id), name, data_type, nullable, declared })
        })
        .collect::<Result<Vec<_>, _>>()?;
    if columns.is_empty() {
        return Err(SqlError::new(
            ErrorCode::InvalidStatement,
            "a table needs at least one column",
        ));
    }
    Ok(TableSchema { version: 1, columns, keys: vec![] })
}

/// The columns of a table that is made for rows of these fields; one error lists every column
/// that cannot be stored.
pub(super) fn stored_columns(fields: &Fields) -> Result<TableSchema, SqlError> {
    let mut refused = Vec::new();
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        match storage_type(field.data_type()) {
            Ok(data_type) => columns.push(Ok((field.name().clone(), data_type, true))),
            Err(error) => {
                refused.push(format!("column \"{}\": {}", printable(field.name()), error.message));
            }
        }
    }
    if refused.is_empty() {
        return table_schema(columns);
    }
    let more = refused.len().saturating_sub(REFUSED_SHOWN);
    refused.truncate(REFUSED_SHOWN);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    let message = format!("{}{rest}", refused.join("; "));
    Err(SqlError::new(ErrorCode::FeatureNotSupported, message).with_hint(
        "leave the column out or cast it to a type that can be stored, as in CREATE TABLE t AS \
         SELECT CAST(c AS DECIMAL(38, 2)) AS c FROM read_parquet('...')",
    ))
}

/// Name, stored type and whether it can be NULL of a declared column.
pub(super) fn declared(
    spec: &ColumnSpec,
) -> Result<(String, arrow::datatypes::DataType, bool), SqlError> {
    let data_type = storage_type_of(&spec.data_type).map_err(|error| {
        let message = format!("column \"{}\": {}", spec.name, error.message);
        SqlError { message, ..error }.at(spec.position)
    })?;
    Ok((spec.name.clone(), data_type, !spec.not_null))
}

fn column_id(schema: &TableSchema, name: &str, role: &str) -> Result<ColumnId, SqlError> {
    schema.columns.iter().find(|column| column.name == name).map(|column| column.id).ok_or_else(
        || {
            let message = format!("{role} column \"{name}\" does not exist");
            let names: Vec<_> = schema.columns.iter().map(|c| c.name.as_str()).collect();
            SqlError::new(ErrorCode::UndefinedColumn, message)
                .with_hint(format!("the columns are {}", names.join(", ")))
        },
    )
}

/// The copies that a new table asks for. No two copies of a chunk are on one worker, so more than
/// there are workers cannot be had; the default is had as soon as there are enough.
fn copies_of(replicas: Option<u32>, cluster: &ClusterView) -> Result<u16, SqlError> {
    let Some(replicas) = replicas else { return Ok(REPLICAS_DEFAULT) };
    match u16::try_from(replicas) {
        Ok(copies) if usize::from(copies) <= cluster.members.max(1) => Ok(copies),
        _ => {
            let message = format!(
                "REPLICAS {replicas} needs {replicas} workers, and the cluster has {}",
                cluster.members
            );
            Err(SqlError::new(ErrorCode::InvalidParameter, message)
                .with_hint("add workers first, or ask for fewer copies"))
        }
    }
}

/// The definition of a new table.
pub(super) fn new_table(
    id: TableId,
    create: &CreateTable,
    columns: TableSchema,
    cluster: &ClusterView,
) -> Result<NewTable, SqlError> {
    let distribution = match &create.distribution {
        None | Some(DistributionSpec::Auto) => Distribution::Auto,
        Some(DistributionSpec::Even) => Distribution::Even,
        Some(DistributionSpec::All) => Distribution::All,
        Some(DistributionSpec::Key(name)) => {
            Distribution::Key(column_id(&columns, name, "DISTKEY")?)
        }
    };
    let sort_key = create
        .sort_key
        .iter()
        .map(|name| column_id(&columns, name, "SORTKEY"))
        .collect::<Result<Vec<_>, _>>()?;
    for id in sort_key.iter().chain(match &distribution {
        Distribution::Key(id) => Some(id),
        _ => None,
    }) {
        if let Some(column) = columns.column(*id).filter(|column| column.data_type.is_nested()) {
            let message = format!("column \"{}\" of a nested type cannot be a key", column.name);
            return Err(SqlError::new(ErrorCode::InvalidStatement, message));
        }
    }
    Ok(NewTable {
        id,
        schema: schema_of(&create.name),
        name: create.name.name.clone(),
        columns,
        distribution,
        sort_key,
        replicas: copies_of(create.replicas, cluster)?,
    })
}

impl Statements {
    /// `CREATE TABLE` with declared columns.
    pub(super) async fn create_table(
        &self,
        run: &RunNotes,
        create: &CreateTable,
    ) -> Result<(), SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let pinned = self.pin(run.session())?;
            let snapshot = &pinned.spec.snapshot;
            let room =
                make_room(snapshot, &create.name, create.or_replace, create.if_not_exists, false)
                    .map_err(|error| error.at(create.name_position))?;
            let Existing::Free(mut changes) = room else { return Ok(()) };
            let mut columns = table_schema(create.columns.iter().map(declared))?;
            declare(&pinned.state, snapshot, create, &mut columns)?;
            let id = self.inner.catalog.allocate_table_id().await?;
            changes.push(Change::CreateTable(new_table(id, create, columns, &snapshot.cluster)?));
            if self.commit_definition(run, snapshot, changes, &mut attempts).await? {
                return Ok(());
            }
        }
    }

    /// `DROP TABLE`: all of them, or none.
    pub(super) async fn drop_tables(
        &self,
        run: &RunNotes,
        drop: &DropTable,
    ) -> Result<(), SqlError> {
        self.drop_relations(run, &drop.names, drop.if_exists, false).await
    }

    /// `DROP VIEW`: all of them, or none.
    pub(super) async fn drop_views(&self, run: &RunNotes, drop: &DropView) -> Result<(), SqlError> {
        self.drop_relations(run, &drop.names, drop.if_exists, true).await
    }

    async fn drop_relations(
        &self,
        run: &RunNotes,
        names: &[ObjectRef],
        if_exists: bool,
        view: bool,
    ) -> Result<(), SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let snapshot = self.inner.catalog.snapshot();
            let mut changes = Vec::new();
            for name in names {
                // What is named twice goes once.
                if let Some(change) = drop_relation(&snapshot, name, if_exists, view)?
                    && !changes.contains(&change)
                {
                    changes.push(change);
                }
            }
            if changes.is_empty()
                || self.commit_definition(run, &snapshot, changes, &mut attempts).await?
            {
                return Ok(());
            }
        }
    }

    /// `CREATE VIEW`: the query must plan now, on what is there now.
    pub(super) async fn create_view(
        &self,
        run: &RunNotes,
        create: &CreateView,
    ) -> Result<(), SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let pinned = self.pin(run.session())?;
            let changes = pinned.new_view(create).await?;
            let snapshot = &pinned.spec.snapshot;
            if changes.is_empty()
                || self.commit_definition(run, snapshot, changes, &mut attempts).await?
            {
                return Ok(());
            }
        }
    }

    /// `CREATE SCHEMA`.
    pub(super) async fn create_schema(
        &self,
        run: &RunNotes,
        create: &CreateSchema,
    ) -> Result<(), SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let (snapshot, name) = (self.inner.catalog.snapshot(), create.name.clone());
            if create.if_not_exists && snapshot.schemas.contains_key(&name) {
                return Ok(());
            }
            let changes = vec![Change::CreateSchema { name }];
            if self.commit_definition(run, &snapshot, changes, &mut attempts).await? {
                return Ok(());
            }
        }
    }

    /// `DROP SCHEMA`, with its relations when CASCADE says so.
    pub(super) async fn drop_schema(
        &self,
        run: &RunNotes,
        drop: &DropSchema,
    ) -> Result<(), SqlError> {
        let mut attempts = Attempts::default();
        loop {
            let snapshot = self.inner.catalog.snapshot();
            if drop.if_exists && !snapshot.schemas.contains_key(&drop.name) {
                return Ok(());
            }
            let changes = dropped_schema(find_schema(&snapshot, &drop.name)?, drop);
            if self.commit_definition(run, &snapshot, changes, &mut attempts).await? {
                return Ok(());
            }
        }
    }
}

fn dropped_schema(schema: &SchemaSnapshot, drop: &DropSchema) -> Vec<Change> {
    let mut changes = Vec::new();
    if drop.cascade {
        changes.extend(schema.relations.values().map(|relation| match relation {
            Relation::Table(table) => Change::DropTable { table: table.id, version: None },
            Relation::View(view) => {
                Change::DropView { schema: drop.name.clone(), name: view.name.clone() }
            }
        }));
    }
    changes.push(Change::DropSchema { name: drop.name.clone() });
    changes
}

impl Pinned {
    /// What makes a view; nothing when it is there and that is fine.
    async fn new_view(&self, create: &CreateView) -> Result<Vec<Change>, SqlError> {
        let room = make_room(
            &self.spec.snapshot,
            &create.name,
            create.or_replace,
            create.if_not_exists,
            true,
        )
        .map_err(|error| error.at(create.name_position))?;
        let Existing::Free(mut changes) = room else { return Ok(vec![]) };
        let statement =
            DFStatement::Statement(Box::new(ast::Statement::Query(create.query.clone())));
        let used = self.with_state(view_state(&self.spec).map_err(|e| self.error(e))?);
        let plan = used.query_plan(statement).await?;
        let shown = shown_names(plan.schema().as_arrow());
        let fields = shown.fields();
        let names: Vec<String> = match create.columns.is_empty() {
            true => fields.iter().map(|field| field.name().clone()).collect(),
            false if create.columns.len() == fields.len() => create.columns.clone(),
            false => {
                let message = format!(
                    "view \"{}\" names {} columns and its query has {}",
                    create.name.name,
                    create.columns.len(),
                    fields.len()
                );
                return Err(
                    SqlError::new(ErrorCode::InvalidStatement, message).at(create.name_position)
                );
            }
        };
        table_schema(
            names.iter().map(|name| Ok((name.clone(), arrow::datatypes::DataType::Null, true))),
        )?;
        let text = self.view_text(create);
        let query = match create.columns.is_empty() {
            true => text,
            false => {
                let columns: Vec<_> = names.iter().map(|name| quoted(name)).collect();
                format!("SELECT * FROM ({text}) AS view_query({})", columns.join(", "))
            }
        };
        self.stored_view_plan(&query).await?;
        let (schema, name) = (schema_of(&create.name), create.name.name.clone());
        changes.push(Change::CreateView { schema, name, query });
        Ok(changes)
    }
}

/// A name as SQL quotes it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A qualified name as SQL quotes it.
pub(super) fn quoted_ref(name: &ObjectRef) -> String {
    match &name.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&name.name)),
        None => quoted(&name.name),
    }
}
