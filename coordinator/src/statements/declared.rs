//! What `CREATE TABLE` declares of columns beyond their types: defaults, lengths, encodings, keys.
//!
//! Invariant: every declaration is either enforced (NOT NULL, lengths), used (defaults,
//! encodings) or kept and
//! shown as not enforced (keys); none is dropped silently.

use std::collections::HashSet;

use basalt_engine::defaults::check_default;
use basalt_engine::dialect::{ColumnSpec, CreateTable, KeySpec, KeySpecKind, ObjectRef, encodings};
use basalt_engine::error::{ErrorCode, SqlError, printable};
use basalt_engine::snapshot::Snapshot;
use basalt_engine::types::{column_type_name, split_length};
use basalt_storage::encoding::ChunkEncoding;
use basalt_storage::ids::ColumnId;
use basalt_storage::schema::{Column, KeyKind, TableKey, TableSchema};
use datafusion::common::Column as ColumnName;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast};

use super::definition::{declared, schema_of, table_schema};
use super::session::Pinned;
use crate::catalog::find_table;

impl Pinned {
    /// The rows of `CREATE TABLE t (columns) AS query` as the declared columns: by their places,
    /// cast to their types; and these columns.
    pub(super) fn as_declared(
        &self,
        rows: LogicalPlan,
        create: &CreateTable,
    ) -> Result<(LogicalPlan, TableSchema), SqlError> {
        let mut columns = table_schema(create.columns.iter().map(declared))?;
        declare(&self.state, &self.spec.snapshot, create, &mut columns)?;
        let (given, wanted) = (rows.schema().fields().len(), columns.columns.len());
        if given != wanted {
            let message = format!("the query has {given} columns, and {wanted} are declared");
            return Err(SqlError::new(ErrorCode::InvalidStatement, message)
                .at(create.name_position)
                .with_hint("declare one column for each of the query, or none"));
        }
        let rows = cast_to(rows, &columns).map_err(|error| self.error(error))?;
        Ok((rows, columns))
    }
}

fn cast_to(rows: LogicalPlan, columns: &TableSchema) -> Result<LogicalPlan, DataFusionError> {
    let names = rows.schema().iter().map(ColumnName::from);
    let casts: Vec<Expr> = names
        .zip(&columns.columns)
        .map(|(name, column)| {
            cast(Expr::Column(name), column.data_type.clone()).alias(&column.name)
        })
        .collect();
    LogicalPlanBuilder::from(rows).project(casts)?.build()
}

/// Puts the declarations of a new table into its columns and keys.
pub(super) fn declare(
    state: &SessionState,
    snapshot: &Snapshot,
    create: &CreateTable,
    columns: &mut TableSchema,
) -> Result<(), SqlError> {
    for (column, spec) in columns.columns.iter_mut().zip(&create.columns) {
        declare_column(state, column, spec)?;
    }
    let mut names: HashSet<String> =
        create.keys.iter().filter_map(|key| key.name.clone()).collect();
    if names.len() < create.keys.iter().filter(|key| key.name.is_some()).count() {
        let message = "two keys of the table have the same name";
        return Err(SqlError::new(ErrorCode::DuplicateObject, message).at(create.name_position));
    }
    for spec in &create.keys {
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => free_name(create, spec, &mut names),
        };
        let kind = key_kind(snapshot, create, spec)
            .map_err(|error| SqlError { position: Some(spec.position), ..error })?;
        let ids = spec.columns.iter().filter_map(|(name, _)| id_of(columns, name)).collect();
        columns.keys.push(TableKey { name, kind, columns: ids });
    }
    Ok(())
}

fn declare_column(
    state: &SessionState,
    column: &mut Column,
    spec: &ColumnSpec,
) -> Result<(), SqlError> {
    column.declared.chars_max = split_length(&spec.data_type)?.1;
    if let Some((encode, position)) = spec.encode {
        if !encode.fits(&column.data_type) {
            return Err(unfit_encoding(column, encode).at(position));
        }
        column.declared.encode = Some(encode);
    }
    if let Some((text, position)) = &spec.default {
        column.declared.default = Some(text.clone());
        check_default(state, column)
            .map_err(|error| SqlError { position: Some(*position), ..error })?;
    }
    Ok(())
}

fn unfit_encoding(column: &Column, encode: ChunkEncoding) -> SqlError {
    let data_type = column_type_name(column);
    let message = format!(
        "column \"{}\" of type {data_type} cannot have ENCODE {}",
        printable(&column.name),
        encode.name()
    );
    let fitting = encodings(|encoding| encoding.fits(&column.data_type));
    SqlError::new(ErrorCode::DatatypeMismatch, message)
        .with_hint(format!("encodings of {data_type} are {fitting}"))
}

fn id_of(columns: &TableSchema, name: &str) -> Option<ColumnId> {
    columns.columns.iter().find(|column| column.name == name).map(|column| column.id)
}

/// A name for a key that has none, as PostgreSQL makes them: `t_pkey`, `t_a_b_key`, `t_a_fkey`.
fn free_name(create: &CreateTable, key: &KeySpec, taken: &mut HashSet<String>) -> String {
    const NAME_CHARS_MAX: usize = 200;
    let columns = || key.columns.iter().map(|(name, _)| format!("_{name}")).collect::<String>();
    let (middle, end) = match key.kind {
        KeySpecKind::Primary => (String::new(), "_pkey"),
        KeySpecKind::Unique => (columns(), "_key"),
        KeySpecKind::Foreign { .. } => (columns(), "_fkey"),
    };
    let start: String =
        format!("{}{middle}", create.name.name).chars().take(NAME_CHARS_MAX).collect();
    let mut name = format!("{start}{end}");
    let mut number = 0_u32;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{start}{end}{number}");
    }
    name
}

/// What a key says; the table that a foreign key refers to must be there, with its columns.
fn key_kind(
    snapshot: &Snapshot,
    create: &CreateTable,
    spec: &KeySpec,
) -> Result<KeyKind, SqlError> {
    let (table, columns) = match &spec.kind {
        KeySpecKind::Primary => return Ok(KeyKind::Primary),
        KeySpecKind::Unique => return Ok(KeyKind::Unique),
        KeySpecKind::Foreign { table, columns } => (table, columns),
    };
    let (known, primary) = match *table == create.name {
        true => own_columns(create),
        false => other_columns(snapshot, table)?,
    };
    let columns = if columns.is_empty() { primary } else { columns.clone() };
    if columns.is_empty() {
        let message = format!("table \"{table}\" has no PRIMARY KEY to refer to");
        return Err(SqlError::new(ErrorCode::InvalidStatement, printable(&message))
            .with_hint("name its columns after it"));
    }
    if let Some(missing) = columns.iter().find(|column| !known.contains(column)) {
        let message = format!("column \"{missing}\" of table \"{table}\" does not exist");
        let error = SqlError::new(ErrorCode::UndefinedColumn, printable(&message));
        let names = known.iter().map(String::as_str);
        return Err(basalt_engine::error::did_you_mean(error, missing, names));
    }
    if columns.len() != spec.columns.len() {
        let message = format!(
            "the foreign key has {} columns and the PRIMARY KEY that it refers to has {}",
            spec.columns.len(),
            columns.len()
        );
        return Err(SqlError::new(ErrorCode::InvalidStatement, message));
    }
    Ok(KeyKind::Foreign { schema: schema_of(table), table: table.name.clone(), columns })
}

/// Columns and primary key of the table that is being created.
fn own_columns(create: &CreateTable) -> (Vec<String>, Vec<String>) {
    let known = create.columns.iter().map(|column| column.name.clone()).collect();
    let primary = create.keys.iter().find(|key| key.kind == KeySpecKind::Primary);
    let primary = primary.into_iter().flat_map(|key| &key.columns);
    (known, primary.map(|(name, _)| name.clone()).collect())
}

/// Columns and primary key of a stored table.
fn other_columns(
    snapshot: &Snapshot,
    table: &ObjectRef,
) -> Result<(Vec<String>, Vec<String>), SqlError> {
    let found = find_table(snapshot, &schema_of(table), &table.name)?;
    let known = found.schema.columns.iter().map(|column| column.name.clone()).collect();
    let primary = found.schema.keys.iter().find(|key| key.kind == KeyKind::Primary);
    let ids = primary.into_iter().flat_map(|key| &key.columns);
    let names = ids.filter_map(|id| found.schema.column(*id)).map(|column| column.name.clone());
    Ok((known, names.collect()))
}
