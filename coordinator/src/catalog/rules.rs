//! What a name, a definition and a segment must be, each by itself: pure checks without a state.

use std::collections::BTreeSet;
use std::mem::discriminant;

use basalt_engine::snapshot::{DEFAULT_SCHEMA, Distribution, TableSnapshot};
use basalt_storage::ids::{ColumnVersion, TxnId};
use basalt_storage::manifest::SegmentRecord;

use super::command::NewTable;
use super::error::{CatalogError, ObjectKind};
use super::state::ClusterState;

/// The longest name, in characters.
pub(super) const NAME_CHARS_MAX: usize = 255;
/// The most columns a table can have: every segment of it carries a zone map for each.
pub(super) const COLUMNS_MAX: usize = 32_768;
/// The longest text of a view.
pub(super) const VIEW_BYTES_MAX: usize = 1 << 20;
/// The most copies of a chunk that can be asked for.
pub(super) const REPLICAS_MAX: u16 = 16;

/// Schemas that the engine itself fills.
const BUILT_IN_SCHEMAS: [&str; 3] = ["information_schema", "pg_catalog", "sys"];

pub(super) fn check_new_schema(name: &str) -> Result<(), CatalogError> {
    if BUILT_IN_SCHEMAS.contains(&name) {
        return Err(CatalogError::BuiltInSchema { schema: name.to_owned() });
    }
    check_name(ObjectKind::Schema, name)
}

pub(super) fn check_droppable_schema(name: &str) -> Result<(), CatalogError> {
    if name == DEFAULT_SCHEMA || BUILT_IN_SCHEMAS.contains(&name) {
        return Err(CatalogError::BuiltInSchema { schema: name.to_owned() });
    }
    Ok(())
}

/// Names are any text without control characters, which would forge lines in logs. Columns may
/// have them all but NUL: foreign Parquet files do.
fn check_name(kind: ObjectKind, name: &str) -> Result<(), CatalogError> {
    let forbidden = |c: char| if kind == ObjectKind::Column { c == '\0' } else { c.is_control() };
    let problem = if name.is_empty() {
        "is empty"
    } else if name.chars().count() > NAME_CHARS_MAX {
        "is longer than 255 characters"
    } else if name.chars().any(forbidden) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(CatalogError::InvalidName { kind, name: name.chars().take(32).collect(), problem })
}

pub(super) fn check_new_view(name: &str, query: &str) -> Result<(), CatalogError> {
    check_name(ObjectKind::View, name)?;
    if query.len() > VIEW_BYTES_MAX {
        return Err(CatalogError::InvalidDefinition {
            name: name.to_owned(),
            problem: format!("its query is longer than {VIEW_BYTES_MAX} bytes"),
        });
    }
    Ok(())
}

pub(super) fn check_new_table(new: &NewTable) -> Result<(), CatalogError> {
    check_name(ObjectKind::Table, &new.name)?;
    let invalid =
        |problem: String| Err(CatalogError::InvalidDefinition { name: new.name.clone(), problem });
    let columns = &new.columns.columns;
    if columns.is_empty() || columns.len() > COLUMNS_MAX {
        let count = columns.len();
        return invalid(format!("it has {count} columns, and can have 1 to {COLUMNS_MAX}"));
    }
    let mut names = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for column in columns {
        check_name(ObjectKind::Column, &column.name)?;
        if !names.insert(column.name.as_str()) {
            return invalid(format!("column \"{}\" is there twice", column.name));
        }
        if !ids.insert(column.id) {
            return Err(CatalogError::invalid(format!("two columns have id {}", column.id)));
        }
        if let Some(encode) = column.declared.encode.filter(|e| !e.fits(&column.data_type)) {
            let (encode, name) = (encode.name(), &column.name);
            return invalid(format!("encoding {encode} does not fit its column \"{name}\""));
        }
    }
    if let Distribution::Key(key) = new.distribution
        && !ids.contains(&key)
    {
        return invalid("its distribution key is none of its columns".to_owned());
    }
    let mut sorted = BTreeSet::new();
    for key in &new.sort_key {
        if !ids.contains(key) {
            return invalid("its sort key is none of its columns".to_owned());
        }
        if !sorted.insert(key) {
            return invalid("its sort key names a column twice".to_owned());
        }
    }
    for key in &new.columns.keys {
        if key.columns.is_empty() {
            return invalid(format!("its key \"{}\" has no columns", key.name));
        }
        if key.columns.iter().any(|column| !ids.contains(column)) {
            return invalid(format!(
                "its key \"{}\" names a column that it does not have",
                key.name
            ));
        }
    }
    if !(1..=REPLICAS_MAX).contains(&new.replicas) {
        return invalid(format!("it wants {} replicas, not 1 to {REPLICAS_MAX}", new.replicas));
    }
    Ok(())
}

/// Checks everything about a new segment that needs no other segment.
pub(super) fn check_new_segment(
    segment: &SegmentRecord,
    table: &TableSnapshot,
    cluster: &ClusterState,
    txn: TxnId,
) -> Result<(), CatalogError> {
    let invalid = |problem: &str| {
        Err(CatalogError::invalid(format!(
            "segment {} of table {} {problem}",
            segment.segment, table.id
        )))
    };
    if segment.table != table.id {
        return invalid("names another table");
    }
    if segment.txn != txn {
        return invalid("was written by another transaction");
    }
    if segment.slice.0 >= cluster.slices {
        return invalid("is of a slice that does not exist");
    }
    if table.distribution == Distribution::All && segment.slice.0 != 0 {
        return invalid("is not of slice 0, where all rows of an ALL table are");
    }
    if segment.deleted.is_some() {
        return invalid("is new and has deleted rows");
    }
    if segment.routed_by.is_some_and(|key| table.schema.column(key).is_none()) {
        return invalid("was given to its slice by a column that is not there");
    }
    let rows: u64 = segment.row_groups.iter().map(|&rows| u64::from(rows)).sum();
    if rows != segment.rows || rows == 0 || segment.row_groups.contains(&0) {
        return invalid("has row groups that do not add up to its rows, or no rows");
    }
    let holders: BTreeSet<_> = segment.holders.iter().collect();
    if holders.is_empty() || holders.len() != segment.holders.len() {
        return invalid("has no holder, or one twice");
    }
    if let Some(stranger) = holders.iter().find(|holder| !cluster.workers.contains(holder)) {
        // It was lost while the statement ran and is no member any more, for which it first lost its
        // slices: run again, the statement goes to others.
        return Err(CatalogError::Conflict {
            object: format!("holder {stranger} of segment {}", segment.segment),
            what: "removed from the cluster",
            winner: cluster.assigned_by,
        });
    }
    check_columns(segment, table).and_then(|problem| problem.map_or(Ok(()), invalid))
}

/// The columns of a segment are exactly those of its table (RULES 10); `Some` says what is wrong.
fn check_columns(
    segment: &SegmentRecord,
    table: &TableSnapshot,
) -> Result<Option<&'static str>, CatalogError> {
    if segment.columns.len() != table.schema.columns.len() {
        return Ok(Some("has another number of columns than its table"));
    }
    for column in &table.schema.columns {
        let Some(record) = segment.columns.get(&column.id) else {
            return Ok(Some("lacks a column of its table"));
        };
        if record.version != ColumnVersion::FIRST {
            return Ok(Some("is new and has a rewritten column"));
        }
        let zone = &record.zone;
        if zone.null_count > segment.rows {
            return Ok(Some("has a column with more NULLs than rows"));
        }
        if let (Some(min), Some(max)) = (&zone.min, &zone.max)
            && discriminant(min) != discriminant(max)
        {
            return Ok(Some("has a column with bounds of two types"));
        }
        if !column.nullable && zone.null_count > 0 {
            return Err(CatalogError::NotNull {
                table: table.name.clone(),
                column: column.name.clone(),
                nulls: zone.null_count,
            });
        }
    }
    Ok(None)
}
