//! What lies on the disks of workers although a rebuilt catalog does not name it, as tables of
//! their own in the schema `recovered`.
//!
//! ```text
//! on a disk, not live, not known to be gone ─▶ orphans ─▶ their metadata ─▶ recovered.public_orders
//! ```
//! Inexact, and kept apart for that: such a segment may be of a commit that no record tells of, may
//! never have been committed, may hold the same rows as another one (before and after a VACUUM), and
//! nobody knows which of its rows were deleted. People decide: `INSERT INTO ... SELECT`, or `DROP`.
//!
//! The files stay where they are, under the id of the table that they were written for; only the
//! table that lists them has an id of its own. Without that the collection of garbage would take
//! them.
//!
//! Not here: reading metadata from workers ([`crate::commit_sources`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_engine::snapshot::Distribution;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{ColumnId, SegmentId, TableId, WorkerId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::{Layout, SegmentRecord};
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::segment_meta::SegmentMeta;

use super::{Rebuilt, RebuiltTable, WorkerRecords};
use crate::catalog::command::{NewTable, REPLICAS_DEFAULT};

/// The schema that salvaged tables are in.
pub const RECOVERED_SCHEMA: &str = "recovered";

/// Characters of a salvaged table's name, without the number that makes it unique.
const NAME_CHARS: usize = 240;

/// A segment on a worker's disk that the catalog does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orphan {
    /// Whose disk.
    pub worker: WorkerId,
    /// The segment.
    pub key: SegmentKey,
    /// How it lies there.
    pub layout: Layout,
}

/// An orphan whose metadata could be read.
#[derive(Debug, Clone)]
pub struct FoundSegment {
    /// Whose disk.
    pub worker: WorkerId,
    /// Its metadata.
    pub meta: Arc<SegmentMeta>,
    /// The digest of the metadata file.
    pub meta_digest: Digest,
}

/// What was salvaged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recovered {
    /// Tables in [`RECOVERED_SCHEMA`].
    pub tables: Vec<RebuiltTable>,
    /// Why a segment was not taken.
    pub left: Vec<String>,
}

/// Segments on disks that are neither live nor known to be gone, copies one by one.
pub fn orphans(workers: &[WorkerRecords], rebuilt: &Rebuilt) -> Vec<Orphan> {
    let live: BTreeSet<SegmentId> =
        rebuilt.tables.iter().flat_map(|table| &table.segments).map(|s| s.segment).collect();
    let is_gone = |key: &SegmentKey| {
        workers.iter().any(|worker| {
            worker.known.gone.contains(&key.segment)
                || worker.known.tables_gone.contains(&key.table)
        })
    };
    let mut orphans: Vec<_> = workers
        .iter()
        .flat_map(|worker| {
            let copies = worker.on_disk.values();
            copies.map(|(key, layout)| Orphan { worker: worker.worker, key: *key, layout: *layout })
        })
        .filter(|orphan| !live.contains(&orphan.key.segment) && !is_gone(&orphan.key))
        .collect();
    orphans.sort_by_key(|orphan| (orphan.key, orphan.worker));
    orphans
}

/// What makes segments fit into one table: the table they were written for, and their columns.
type Shape = (TableId, Vec<(ColumnId, String, String)>);

/// Puts segments that were found into tables of their own.
pub fn salvage(rebuilt: &mut Rebuilt, found: Vec<FoundSegment>) {
    let mut shapes: BTreeMap<Shape, (Arc<SegmentMeta>, Vec<SegmentRecord>)> = BTreeMap::new();
    for (meta, record) in one_of_each(rebuilt, found) {
        let columns = meta
            .columns()
            .map(|column| (column.id(), column.name().to_owned(), column.data_type().to_string()));
        let shape = (meta.key().table, columns.collect());
        shapes.entry(shape).or_insert_with(|| (meta, Vec::new())).1.push(record);
    }
    if shapes.is_empty() {
        return;
    }
    rebuilt.schemas.insert(RECOVERED_SCHEMA.to_owned());
    let mut shapes: Vec<_> =
        shapes.into_iter().map(|((table, _), (meta, segments))| (table, meta, segments)).collect();
    // The plain name is for those that look as their table does now.
    shapes.sort_by_key(|(table, meta, _)| {
        (*table, !known(rebuilt, *table).is_some_and(|known| fits(&known.columns, meta)))
    });
    for (table, meta, segments) in shapes {
        let definition = definition(rebuilt, table, &meta);
        rebuilt.recovered.tables.push(RebuiltTable { definition, segments });
    }
}

/// Each segment once, with all who have the very same copy: where copies differ, those that most
/// workers have.
fn one_of_each(
    rebuilt: &mut Rebuilt,
    found: Vec<FoundSegment>,
) -> Vec<(Arc<SegmentMeta>, SegmentRecord)> {
    let mut copies: BTreeMap<SegmentId, BTreeMap<Digest, Vec<FoundSegment>>> = BTreeMap::new();
    for segment in found {
        match misplaced(rebuilt, &segment) {
            None => {
                let same = copies.entry(segment.meta.key().segment).or_default();
                same.entry(segment.meta_digest).or_default().push(segment);
            }
            Some(problem) => {
                let (key, worker) = (segment.meta.key(), segment.worker);
                rebuilt.recovered.left.push(format!("segment {key} of worker {worker} {problem}"));
            }
        }
    }
    let mut taken = Vec::new();
    for (segment, versions) in copies {
        let differ = versions.len() > 1;
        let Some((digest, same)) = versions.into_iter().max_by_key(|(_, same)| same.len()) else {
            continue;
        };
        let Some(first) = same.first() else { continue };
        let holders: Vec<_> = same.iter().map(|copy| copy.worker).collect();
        if differ {
            let problem = format!("segment {segment} has copies that differ: one was taken");
            rebuilt.recovered.left.push(problem);
        }
        taken.push((Arc::clone(&first.meta), first.meta.record(digest, holders)));
    }
    taken
}

/// Why a segment cannot be in this cluster's catalog.
fn misplaced(rebuilt: &Rebuilt, found: &FoundSegment) -> Option<String> {
    let (meta, cluster) = (&found.meta, &rebuilt.cluster);
    if meta.cluster() != cluster.cluster {
        Some(format!("is of cluster {}", meta.cluster()))
    } else if meta.key().slice.0 >= cluster.slices {
        Some("is of a slice that there is not".to_owned())
    } else if !cluster.workers.contains(&found.worker) {
        Some("is on a worker that is no member".to_owned())
    } else if meta.rows() == 0 {
        Some("has no rows".to_owned())
    } else {
        None
    }
}

/// The table for segments that look like `meta`: its columns as the table has them that they were
/// written for, if it is known and has the same ones, else as their files say.
fn definition(rebuilt: &mut Rebuilt, table: TableId, meta: &SegmentMeta) -> NewTable {
    let known = known(rebuilt, table).cloned();
    let columns = match &known {
        Some(known) if fits(&known.columns, meta) => {
            TableSchema { version: 1, keys: Vec::new(), ..known.columns.clone() }
        }
        _ => columns_of(meta),
    };
    let wanted = match &known {
        Some(known) => format!("{}_{}", known.schema, known.name),
        None => format!("table_{table}"),
    };
    let id = TableId(rebuilt.next_table);
    rebuilt.next_table += 1;
    NewTable {
        id,
        schema: RECOVERED_SCHEMA.to_owned(),
        name: free_name(rebuilt, &wanted),
        columns,
        // Whatever slices they are in.
        distribution: Distribution::Even,
        sort_key: Vec::new(),
        replicas: known.map_or(REPLICAS_DEFAULT, |known| known.replicas),
    }
}

fn known(rebuilt: &Rebuilt, table: TableId) -> Option<&NewTable> {
    rebuilt.tables.iter().map(|table| &table.definition).find(|known| known.id == table)
}

fn fits(columns: &TableSchema, meta: &SegmentMeta) -> bool {
    columns.columns.len() == meta.columns().len()
        && columns.columns.iter().all(|column| {
            meta.column(column.id).is_some_and(|found| {
                *found.data_type() == column.data_type && found.nullable() == column.nullable
            })
        })
}

fn columns_of(meta: &SegmentMeta) -> TableSchema {
    let mut names = BTreeSet::new();
    let columns = meta.columns().map(|column| {
        // Two columns may have had one name, one after the other.
        let mut name = column.name().to_owned();
        while !names.insert(name.clone()) {
            name = format!("{name}_{}", column.id());
        }
        Column {
            id: column.id(),
            name,
            data_type: column.data_type().clone(),
            nullable: column.nullable(),
            declared: Default::default(),
        }
    });
    TableSchema { version: 1, columns: columns.collect(), keys: Vec::new() }
}

/// A name that nothing in the schema has.
fn free_name(rebuilt: &Rebuilt, wanted: &str) -> String {
    let wanted: String = wanted.chars().take(NAME_CHARS).collect();
    let tables = rebuilt.tables.iter().chain(&rebuilt.recovered.tables);
    let here = tables.map(|table| &table.definition).filter(|t| t.schema == RECOVERED_SCHEMA);
    let views = rebuilt.views.keys().filter(|view| view.schema == RECOVERED_SCHEMA);
    let taken: BTreeSet<&str> =
        here.map(|table| table.name.as_str()).chain(views.map(|view| view.name.as_str())).collect();
    let numbered = (2..).map(|number| format!("{wanted}_{number}"));
    let mut names = std::iter::once(wanted.clone()).chain(numbered);
    names.find(|name| !taken.contains(name.as_str())).unwrap_or(wanted)
}
