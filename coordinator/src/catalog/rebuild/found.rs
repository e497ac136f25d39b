//! Writes a rebuilt catalog: a log of its own that begins with the cluster as it was.

use std::collections::BTreeSet;
use std::path::Path;

use basalt_engine::secret::ClusterSecret;
use basalt_storage::ids::{TableId, TxnId};

use super::Rebuilt;
use crate::catalog::command::{Change, Command};
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

/// Segments of one record, far below what a record can hold even when they have many columns.
const SEGMENTS_AT_ONCE: usize = 1_000;

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
            records.extend(same.chunks(SEGMENTS_AT_ONCE).map(|segments| {
                let written_for = segments.first().map_or(id, |segment| segment.table);
                vec![Change::RebuildSegments {
                    table: id,
                    written_for,
                    segments: segments.to_vec(),
                }]
            }));
        }
    }
    records
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
