//! Writes a rebuilt catalog: a log of its own that begins with the cluster as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use basalt_engine::secret::ClusterSecret;
use basalt_engine::snapshot::{ChosenKey, Distribution};
use basalt_storage::ids::{ColumnId, TableId, TxnId};
use basalt_storage::manifest::SegmentRecord;

use super::{Rebuilt, RebuiltTable};
use crate::catalog::command::{Change, Command};
use crate::catalog::commit_record::record_bytes;
use crate::catalog::directory::Directory;
use crate::catalog::error::CatalogError;
use crate::catalog::log::{Log, Missing, Opened};
use crate::catalog::members::{LOG_COPIES_DEFAULT, LogSet};
use crate::catalog::record::Mark;
use crate::catalog::restore::keep_secret;
use crate::catalog::state::State;
use crate::catalog::{serialise, wall_clock_ms};

/// Changes of one record. The widest table's definition has a few MiB.
const CHANGES_AT_ONCE: usize = 16;

/// About how many bytes of segments one record has, of the 256 MiB that it can have.
const SEGMENT_BYTES_AT_ONCE: usize = 32 << 20;

/// Writes the catalog into `path`, which must hold none. Blocks.
///
/// On `Ok` it survives a crash, and a coordinator can be started there; workers register with it as
/// they are. After an error or a crash there is none.
///
/// # Errors
/// [`CatalogError::ClusterExists`], [`CatalogError::CannotRebuild`] when `path` has another secret.
pub fn found(path: &Path, secret: &ClusterSecret, rebuilt: &Rebuilt) -> Result<(), CatalogError> {
    let directory = Directory::create(path)?;
    if directory.has_catalog()? {
        return Err(CatalogError::ClusterExists { path: path.to_owned() });
    }
    let new = directory.new_catalog()?;
    let Opened { mut log, mut state, committed: _ } = Log::open(&new, Missing::Create)?;
    for changes in records(rebuilt) {
        append(&mut log, &mut state, changes)?;
    }
    let set = LogSet {
        log_epoch: rebuilt.log_epoch,
        coordinator: log.coordinator(),
        workers: BTreeSet::new(),
        copies: LOG_COPIES_DEFAULT,
    };
    append(&mut log, &mut state, vec![Change::SetLogMembers { set, forced: true }])?;
    drop(log);
    keep_secret(&directory, secret)?;
    directory.adopt_catalog(&new)
}

/// The changes of each record.
fn records(rebuilt: &Rebuilt) -> Vec<Vec<Change>> {
    let Rebuilt { cluster, schemas, tables, recovered, views, next_table, .. } = rebuilt;
    let tables = || tables.iter().chain(&recovered.tables);
    let ids: BTreeSet<TableId> = tables().map(|table| table.definition.id).collect();
    let (cluster, next_table) = (cluster.clone(), *next_table);
    let mut records = vec![vec![Change::RebuildCluster { cluster, tables: ids, next_table }]];
    let schemas = schemas.iter().map(|name| Change::CreateSchema { name: name.clone() });
    let defined = tables().map(|table| Change::CreateTable(table.definition.clone()));
    let views = views.iter().map(|(name, query)| Change::CreateView {
        schema: name.schema.clone(),
        name: name.name.clone(),
        query: query.clone(),
    });
    let definitions: Vec<_> = schemas.chain(defined).chain(views).collect();
    records.extend(definitions.chunks(CHANGES_AT_ONCE).map(<[_]>::to_vec));
    for table in tables() {
        let id = table.definition.id;
        // Salvaged once and rebuilt again, a table has segments that were written for several.
        for same in table.segments.chunk_by(|a, b| a.table == b.table) {
            records.extend(by_bytes(same, SEGMENT_BYTES_AT_ONCE).map(|segments| {
                let written_for = segments.first().map_or(id, |segment| segment.table);
                vec![Change::RebuildSegments {
                    table: id,
                    written_for,
                    segments: segments.to_vec(),
                }]
            }));
        }
    }
    let chosen: Vec<_> = tables().filter_map(chosen_key).collect();
    records.extend(chosen.chunks(CHANGES_AT_ONCE).map(<[_]>::to_vec));
    records
}

/// The key that was chosen for a table, as most of its rows say: workers are not told of it.
fn chosen_key(table: &RebuiltTable) -> Option<Change> {
    if table.definition.distribution != Distribution::Auto {
        return None;
    }
    let mut rows: BTreeMap<ColumnId, u64> = BTreeMap::new();
    for segment in &table.segments {
        if let Some(key) = segment.routed_by {
            *rows.entry(key).or_default() += segment.rows;
        }
    }
    let (column, _) = rows.into_iter().max_by_key(|(_, rows)| *rows)?;
    table.definition.columns.column(column)?;
    let reason = "its rows lay by it when the catalog was rebuilt".to_owned();
    Some(Change::ChooseKey { table: table.definition.id, key: ChosenKey { column, reason } })
}

/// Runs of segments whose records have about `bytes` bytes each: at least one segment.
fn by_bytes(segments: &[SegmentRecord], bytes: usize) -> impl Iterator<Item = &[SegmentRecord]> {
    let mut rest = segments;
    std::iter::from_fn(move || {
        let mut left = bytes;
        let fits = |segment: &&SegmentRecord| {
            let size = record_bytes(segment);
            let fits = size <= left;
            left = left.saturating_sub(size);
            fits
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (run, after) = rest.split_at(count);
        rest = after;
        (!run.is_empty()).then_some(run)
    })
}

/// Appends one record. There is nobody else yet: what is on this disk is durable.
fn append(log: &mut Log, state: &mut State, changes: Vec<Change>) -> Result<(), CatalogError> {
    let command = Command::new(TxnId::generate(), wall_clock_ms(), changes);
    let payload = serialise(&command)?;
    state.apply(command)?;
    let mut chain = log.chain();
    let record = chain.append(state.epoch(), state.log_epoch(), &payload)?;
    log.append(chain, &[record.into()], Mark::at(chain))
}

#[cfg(test)]
mod tests {
    use basalt_storage::digest::Digest;
    use basalt_storage::ids::{SegmentId, SliceId, WorkerId};
    use basalt_storage::manifest::Layout;

    use super::*;

    #[test]
    fn segments_are_cut_into_records_by_their_bytes() {
        let segment = SegmentRecord {
            table: TableId(1),
            slice: SliceId(0),
            segment: SegmentId::generate(),
            txn: TxnId::generate(),
            layout: Layout::Packed,
            rows: 1,
            row_groups: vec![1],
            bytes: 1,
            meta_digest: Digest::of(b""),
            columns: BTreeMap::new(),
            holders: vec![WorkerId::generate()],
            deleted: None,
            routed_by: None,
        };
        let segments = vec![segment; 10];
        let each = record_bytes(&segments[0]);
        let runs = |bytes| by_bytes(&segments, bytes).map(<[_]>::len).collect::<Vec<_>>();
        assert_eq!(runs(3 * each), [3, 3, 3, 1]);
        assert_eq!(runs(1), [1; 10], "one that is larger than all is a record of its own");
        assert_eq!(runs(usize::MAX), [10]);
        assert_eq!(by_bytes(&[], each).count(), 0);
    }
}
