//! `SHOW CREATE`: the statement that makes the same relation again.
//!
//! Invariant: run in an empty schema of the same name, the text makes a table with the same
//! columns, types, encodings, defaults, keys, distribution, sort key and copies, or a view of the same query.

use basalt_engine::error::{ErrorCode, SqlError, printable};
use basalt_engine::snapshot::{Distribution, Relation, TableSnapshot};
use basalt_engine::types::{column_type_name, identifier, type_name};
use basalt_storage::ids::ColumnId;
use basalt_storage::schema::{Column, KeyKind, TableKey};

use crate::catalog::command::REPLICAS_DEFAULT;

/// The statement that creates a relation.
pub(super) fn create_text(relation: &Relation) -> Result<String, SqlError> {
    match relation {
        Relation::Table(table) => table_text(table),
        Relation::View(view) => Ok(format!(
            "CREATE VIEW {}.{} AS {}",
            identifier(&view.schema_name),
            identifier(&view.name),
            view.query
        )),
    }
}

fn table_text(table: &TableSnapshot) -> Result<String, SqlError> {
    let columns = table.schema.columns.iter().map(column_text).collect::<Result<Vec<_>, _>>()?;
    let keys = table.schema.keys.iter().map(|key| key_text(table, key));
    let lines: Vec<_> = columns.into_iter().chain(keys).collect();
    let mut text = format!(
        "CREATE TABLE {}.{} (\n  {}\n)",
        identifier(&table.schema_name),
        identifier(&table.name),
        lines.join(",\n  ")
    );
    match table.distribution {
        Distribution::Auto => {}
        Distribution::Even => text.push_str(" DISTSTYLE EVEN"),
        Distribution::All => text.push_str(" DISTSTYLE ALL"),
        Distribution::Key(id) => text.push_str(&format!(" DISTKEY ({})", names(table, &[id]))),
    }
    if !table.sort_key.is_empty() {
        text.push_str(&format!(" SORTKEY ({})", names(table, &table.sort_key)));
    }
    if table.replicas != REPLICAS_DEFAULT {
        text.push_str(&format!(" REPLICAS {}", table.replicas));
    }
    Ok(text)
}

fn column_text(column: &Column) -> Result<String, SqlError> {
    if let Err(arrow) = type_name(&column.data_type) {
        let message =
            format!("column \"{}\" has type {arrow}, which has no name in SQL", column.name);
        return Err(SqlError::new(ErrorCode::FeatureNotSupported, printable(&message))
            .with_hint("such a column is made by CREATE TABLE ... AS SELECT or by an upload"));
    }
    let mut text = format!("{} {}", identifier(&column.name), column_type_name(column));
    if let Some(encode) = column.declared.encode {
        text.push_str(" ENCODE ");
        text.push_str(encode.name());
    }
    if let Some(default) = &column.declared.default {
        text.push_str(" DEFAULT ");
        text.push_str(default);
    }
    if !column.nullable {
        text.push_str(" NOT NULL");
    }
    Ok(text)
}

fn key_text(table: &TableSnapshot, key: &TableKey) -> String {
    let columns = names(table, &key.columns);
    let what = match &key.kind {
        KeyKind::Primary => format!("PRIMARY KEY ({columns})"),
        KeyKind::Unique => format!("UNIQUE ({columns})"),
        KeyKind::Foreign { schema, table, columns: referred } => {
            let referred: Vec<_> = referred.iter().map(|name| identifier(name)).collect();
            format!(
                "FOREIGN KEY ({columns}) REFERENCES {}.{} ({})",
                identifier(schema),
                identifier(table),
                referred.join(", ")
            )
        }
    };
    format!("CONSTRAINT {} {what} NOT ENFORCED", identifier(&key.name))
}

fn names(table: &TableSnapshot, ids: &[ColumnId]) -> String {
    let columns = ids.iter().filter_map(|id| table.schema.column(*id));
    columns.map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ")
}
