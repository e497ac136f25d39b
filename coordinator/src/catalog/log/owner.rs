//! Whose copy of the log this is.
//!
//! A coordinator counts as the member that its log names only on the very file that the log was
//! written to. A copy of the file is another coordinator: the first may still run, and both would
//! count for one member.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use basalt_storage::command_log::record::Reader;
use basalt_storage::ids::CoordinatorId;
use redb::{Database, ReadableDatabase};
use uuid::Uuid;

use super::head::{with_crc, without_crc};
use super::{CatalogError, META};

const OWNER: &str = "coordinator";

/// The coordinator of the open log at `path`; a new one when the log has none or is a copy. On
/// `Ok` its id survives a crash.
pub(super) fn claim(db: &Database, path: &Path) -> Result<CoordinatorId, CatalogError> {
    let metadata = std::fs::metadata(path)
        .map_err(|source| CatalogError::Io { path: path.to_owned(), source })?;
    let file = metadata.ino();
    match stored(db)? {
        Some((coordinator, of)) if of == file => return Ok(coordinator),
        Some((before, _)) => {
            tracing::warn!(%before, path = %path.display(),
                "the catalog is a copy of another coordinator's: this is a new coordinator");
        }
        None => {}
    }
    let coordinator = CoordinatorId::generate();
    let mut bytes = coordinator.0.as_bytes().to_vec();
    bytes.extend_from_slice(&file.to_le_bytes());
    let write = || -> Result<(), redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_two_phase_commit(true);
        txn.open_table(META)?.insert(OWNER, with_crc(bytes).as_slice())?;
        txn.commit()?;
        Ok(())
    };
    write().map_err(CatalogError::database)?;
    Ok(coordinator)
}

fn stored(db: &Database) -> Result<Option<(CoordinatorId, u64)>, CatalogError> {
    let txn = db.begin_read().map_err(CatalogError::database)?;
    let meta = txn.open_table(META).map_err(CatalogError::database)?;
    let Some(bytes) = meta.get(OWNER).map_err(CatalogError::database)? else { return Ok(None) };
    let mut at = Reader(without_crc(bytes.value())?);
    let corrupt = || CatalogError::Corrupt {
        place: "the owner of the log".to_owned(),
        problem: "has another length than it should".to_owned(),
    };
    let id = Uuid::from_bytes(at.take().ok_or_else(corrupt)?);
    let file = u64::from_le_bytes(at.take().ok_or_else(corrupt)?);
    Ok(Some((CoordinatorId(id), file)))
}
