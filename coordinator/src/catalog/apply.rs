//! What each change means: a draft of the next state that is installed whole or dropped.
//!
//! The draft copies the few maps of pointers that changes can touch and collects additions to
//! the two large sets, so that a refused command costs nothing to undo.

mod chosen_key;
mod cluster;
mod log_members;
mod rebuild;
mod rows;
mod statistics;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use basalt_engine::segment_list::SegmentList;
use basalt_engine::snapshot::{Relation, SchemaSnapshot, TableSnapshot, ViewSnapshot};
use basalt_storage::ids::{SegmentId, TableId, TxnId};

use super::command::{Change, NewTable};
use super::error::{CatalogError, ObjectKind};
use super::lookup::{suggest_relation, suggest_schema};
use super::members::LogSets;
use super::rules;
use super::state::{ClusterState, DROPS_KEPT_MAX, DroppedTable, State, TableEntry};

/// What differs between a state and the next one.
pub(super) struct Delta {
    cluster: Option<Arc<ClusterState>>,
    schemas: BTreeMap<String, Arc<SchemaSnapshot>>,
    tables: Arc<BTreeMap<TableId, TableEntry>>,
    next_table: u64,
    unused_tables: Arc<BTreeSet<TableId>>,
    segments_added: HashSet<SegmentId>,
    segments_dropped: Vec<SegmentId>,
    drops: Vec<DroppedTable>,
    log_sets: LogSets,
}

impl Delta {
    /// Makes the draft real. Cannot fail: every check is behind us.
    pub(super) fn install(self, state: &mut State) {
        state.cluster = self.cluster;
        state.schemas = self.schemas;
        state.tables = self.tables;
        state.next_table = self.next_table;
        state.unused_tables = self.unused_tables;
        state.segments.extend(self.segments_added);
        for segment in &self.segments_dropped {
            state.segments.remove(segment);
        }
        state.drops.extend(self.drops);
        let surplus = state.drops.len().saturating_sub(DROPS_KEPT_MAX);
        state.drops.drain(..surplus);
        state.log_sets = self.log_sets;
    }
}

/// One command on its way into a state.
pub(super) struct Draft<'a> {
    base: &'a State,
    txn: TxnId,
    version: u64,
    reserved: Range<u64>,
    next: Delta,
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a State, txn: TxnId) -> Self {
        let next = Delta {
            cluster: base.cluster.clone(),
            schemas: base.schemas.clone(),
            tables: Arc::clone(&base.tables),
            next_table: base.next_table,
            unused_tables: Arc::clone(&base.unused_tables),
            segments_added: HashSet::new(),
            segments_dropped: Vec::new(),
            drops: Vec::new(),
            log_sets: base.log_sets.clone(),
        };
        let reserved = base.next_table..base.next_table;
        Self { base, txn, version: base.version + 1, reserved, next }
    }

    pub(super) fn finish(self) -> (Delta, Range<u64>) {
        (self.next, self.reserved)
    }

    pub(super) fn change(&mut self, change: Change) -> Result<(), CatalogError> {
        let founds = matches!(change, Change::CreateCluster(_) | Change::RebuildCluster { .. });
        if self.next.cluster.is_none() && !founds {
            return Err(CatalogError::invalid("there is no cluster yet"));
        }
        match change {
            Change::CreateCluster(new) => self.create_cluster(&new),
            Change::RegisterWorker { worker } => self.register_worker(worker),
            Change::DescribeWorker { worker, candidate } => self.describe_worker(worker, candidate),
            Change::AssignSlices { epoch, owners } => self.assign_slices(epoch, owners),
            Change::PlaceSlices { epoch, workers } => self.place_slices(epoch, workers),
            Change::DrainWorker { worker, drain } => self.drain_worker(worker, drain),
            Change::RemoveWorker { worker } => self.remove_worker(worker),
            Change::MoveCopies { moves } => self.move_copies(moves),
            Change::ReserveTableIds { count } => self.reserve_table_ids(count),
            Change::RebuildCluster { cluster, tables, next_table } => {
                self.rebuild_cluster(cluster, tables, next_table)
            }
            Change::RebuildSegments { table, written_for, segments } => {
                self.rebuild_segments(table, written_for, segments)
            }
            Change::CreateSchema { name } => self.create_schema(name),
            Change::DropSchema { name } => self.drop_schema(&name),
            Change::CreateTable(new) => self.create_table(new),
            Change::DropTable { table, version } => self.drop_table(table, version),
            Change::CreateView { schema, name, query } => self.create_view(schema, name, query),
            Change::DropView { schema, name } => self.drop_view(&schema, &name),
            Change::AddSegments { table, schema_version, segments } => {
                self.add_segments(table, schema_version, segments)
            }
            Change::DeleteRows { table, segments } => self.delete_rows(table, segments),
            Change::ReplaceSegments { table, schema_version, replaced, segments } => {
                self.replace_segments(table, schema_version, &replaced, segments)
            }
            Change::RecordAnalysis { table, analysis } => self.record_analysis(table, analysis),
            Change::ChooseKey { table, key } => self.choose_key(table, key),
            Change::SetLogMembers { set, forced } => self.set_log_members(set, forced),
        }
    }

    fn reserve_table_ids(&mut self, count: u16) -> Result<(), CatalogError> {
        if !self.reserved.is_empty() {
            return Err(CatalogError::invalid("one command reserves table ids twice"));
        }
        let start = self.next.next_table;
        let end = start
            .checked_add(u64::from(count))
            .ok_or(CatalogError::LimitReached { what: "table ids", limit: usize::MAX })?;
        self.reserved = start..end;
        self.next.next_table = end;
        Arc::make_mut(&mut self.next.unused_tables).extend((start..end).map(TableId));
        Ok(())
    }

    fn create_schema(&mut self, name: String) -> Result<(), CatalogError> {
        rules::check_new_schema(&name)?;
        if self.next.schemas.contains_key(&name) {
            return Err(CatalogError::AlreadyExists { kind: ObjectKind::Schema, name });
        }
        self.next.schemas.insert(name, Arc::default());
        Ok(())
    }

    fn drop_schema(&mut self, name: &str) -> Result<(), CatalogError> {
        rules::check_droppable_schema(name)?;
        let relations = self.schema(name)?.relations.len();
        if relations > 0 {
            return Err(CatalogError::SchemaNotEmpty { schema: name.to_owned(), relations });
        }
        self.next.schemas.remove(name);
        Ok(())
    }

    fn schema(&self, name: &str) -> Result<&SchemaSnapshot, CatalogError> {
        self.next.schemas.get(name).map(Arc::as_ref).ok_or_else(|| CatalogError::UnknownSchema {
            schema: name.to_owned(),
            suggestion: suggest_schema(&self.next.schemas, name),
        })
    }

    /// Adds a relation to a schema that has none of that name.
    fn add_relation(
        &mut self,
        schema: &str,
        name: &str,
        relation: Relation,
    ) -> Result<(), CatalogError> {
        match self.schema(schema)?.relations.get(name) {
            None => self.put_relation(schema, name, Some(relation)),
            Some(taken) => Err(CatalogError::AlreadyExists {
                kind: kind_of(taken),
                name: format!("{schema}.{name}"),
            }),
        }
    }

    /// Replaces or, with `None`, removes a relation. Copies the schema when readers share it.
    fn put_relation(
        &mut self,
        schema: &str,
        name: &str,
        relation: Option<Relation>,
    ) -> Result<(), CatalogError> {
        let Some(schema) = self.next.schemas.get_mut(schema) else {
            return Err(CatalogError::invalid(format!("schema \"{schema}\" vanished")));
        };
        let relations = &mut Arc::make_mut(schema).relations;
        match relation {
            Some(relation) => relations.insert(name.to_owned(), relation),
            None => relations.remove(name),
        };
        Ok(())
    }

    fn create_table(&mut self, new: NewTable) -> Result<(), CatalogError> {
        rules::check_new_table(&new)?;
        if !self.next.unused_tables.contains(&new.id) {
            return Err(CatalogError::invalid(format!(
                "table id {} was not set aside or is used up",
                new.id
            )));
        }
        let table = TableSnapshot {
            id: new.id,
            schema_name: new.schema.clone(),
            name: new.name.clone(),
            version: self.version,
            schema: Arc::new(new.columns),
            distribution: new.distribution,
            chosen_key: None,
            sort_key: new.sort_key,
            replicas: new.replicas,
            segments: SegmentList::default(),
            statistics: None,
        };
        self.add_relation(&new.schema, &new.name, Relation::Table(Arc::new(table)))?;
        let entry = TableEntry {
            schema: new.schema,
            name: new.name,
            created_by: self.txn,
            changed_by: self.txn,
        };
        Arc::make_mut(&mut self.next.unused_tables).remove(&new.id);
        Arc::make_mut(&mut self.next.tables).insert(new.id, entry);
        Ok(())
    }

    /// A live table by id; a table that somebody dropped is a conflict.
    fn table(&self, id: TableId) -> Result<(TableEntry, &Arc<TableSnapshot>), CatalogError> {
        let Some(entry) = self.next.tables.get(&id) else {
            return Err(self.no_table(id));
        };
        let relation = self.schema(&entry.schema)?.relations.get(&entry.name);
        match relation {
            Some(Relation::Table(table)) => Ok((entry.clone(), table)),
            _ => Err(CatalogError::invalid(format!("table {id} has no entry in its schema"))),
        }
    }

    fn no_table(&self, id: TableId) -> CatalogError {
        let drops = self.next.drops.iter().chain(self.base.drops.iter().rev());
        match drops.into_iter().find(|drop| drop.table == id) {
            Some(drop) => CatalogError::Conflict {
                object: format!("table \"{}\"", drop.name),
                what: "dropped",
                winner: drop.by,
            },
            None => CatalogError::invalid(format!("table {id} does not exist")),
        }
    }

    fn drop_table(&mut self, id: TableId, version: Option<u64>) -> Result<(), CatalogError> {
        let (entry, table) = self.table(id)?;
        if version.is_some_and(|read| read != table.version) {
            return Err(CatalogError::Conflict {
                object: format!("table \"{}.{}\"", entry.schema, entry.name),
                what: "changed",
                winner: entry.changed_by,
            });
        }
        let table = Arc::clone(table);
        self.put_relation(&entry.schema, &entry.name, None)?;
        Arc::make_mut(&mut self.next.tables).remove(&id);
        self.next.segments_dropped.extend(table.segments.iter().map(|segment| segment.segment));
        let name = format!("{}.{}", entry.schema, entry.name);
        self.next.drops.push(DroppedTable { table: id, name, by: self.txn });
        Ok(())
    }

    fn create_view(
        &mut self,
        schema: String,
        name: String,
        query: String,
    ) -> Result<(), CatalogError> {
        rules::check_new_view(&name, &query)?;
        let view = ViewSnapshot { schema_name: schema.clone(), name: name.clone(), query };
        self.add_relation(&schema, &name, Relation::View(Arc::new(view)))
    }

    fn drop_view(&mut self, schema: &str, name: &str) -> Result<(), CatalogError> {
        let found = self.schema(schema)?;
        match found.relations.get(name) {
            Some(Relation::View(_)) => self.put_relation(schema, name, None),
            Some(Relation::Table(_)) => Err(CatalogError::WrongKind {
                name: format!("{schema}.{name}"),
                actual: ObjectKind::Table,
                wanted: ObjectKind::View,
            }),
            None => Err(CatalogError::UnknownRelation {
                schema: schema.to_owned(),
                name: name.to_owned(),
                suggestion: suggest_relation(found, name),
            }),
        }
    }
}

fn kind_of(relation: &Relation) -> ObjectKind {
    match relation {
        Relation::Table(_) => ObjectKind::Table,
        Relation::View(_) => ObjectKind::View,
    }
}
