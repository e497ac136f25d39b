//! Whose copy of the log this is.
//!
//! A coordinator counts as the member that its log names only on the very file that the log was
//! written to, on the machine where it was written. A copy of the file is another coordinator: the
//! first may still run, and both would count for one member. So is an older image of it that is put
//! back in its place: it lacks what was acknowledged since.
//!
//! ```text
//! "coordinator" in catalog.redb   id 16, inode 8, birth time 16, machine 32, start 16, before 16, CRC 4
//! catalog.start, beside it        the start
//! ```
//! Every opening is a **start** with a random id, in the file and beside it: an image from an earlier
//! start finds another one there. What nothing here can tell: an image of the same start, and a clone
//! of the whole volume on the same machine. README says what operators must not do.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use basalt_storage::command_log::record::Reader;
use basalt_storage::digest::Digest;
use basalt_storage::durable_write::write_file_durable;
use basalt_storage::ids::CoordinatorId;
use redb::{Database, ReadableDatabase};
use uuid::Uuid;

use super::head::{with_crc, without_crc};
use super::{CatalogError, META};

const OWNER: &str = "coordinator";
const START: &str = "catalog.start";
/// systemd's and dbus' id of this installation; not everywhere.
const MACHINE_ID: &str = "/etc/machine-id";

/// Where a log is: the file, and the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not know.
    born: u128,
    machine: Digest,
}

#[derive(Debug, Clone, Copy)]
struct Owner {
    coordinator: CoordinatorId,
    place: Place,
    /// This start, and the one before: a crash may come between the two writes.
    start: Uuid,
    before: Uuid,
}

/// The coordinator of the open log at `path`; a new one when the log has none, is a copy or was put
/// back. On `Ok` its id survives a crash.
pub(super) fn claim(db: &Database, path: &Path) -> Result<CoordinatorId, CatalogError> {
    let place = place_of(path)?;
    let beside = path.with_file_name(START);
    let shown = read_start(&beside)?;
    let known = stored(db)?;
    let is_same = |owner: &Owner| {
        owner.place == place && shown.is_some_and(|at| at == owner.start || at == owner.before)
    };
    let coordinator = match &known {
        Some(owner) if is_same(owner) => owner.coordinator,
        Some(owner) => {
            tracing::warn!(before = %owner.coordinator, path = %path.display(),
                "the catalog is a copy of another coordinator's, or was put back: this is a new \
                 coordinator");
            CoordinatorId::generate()
        }
        None => CoordinatorId::generate(),
    };
    let before = shown.unwrap_or_else(Uuid::nil);
    let owner = Owner { coordinator, place, start: Uuid::new_v4(), before };
    store(db, &owner)?;
    write_file_durable(&beside, format!("{}\n", owner.start).as_bytes())
        .map_err(|source| CatalogError::Io { path: beside, source })?;
    Ok(coordinator)
}

fn place_of(path: &Path) -> Result<Place, CatalogError> {
    let metadata = std::fs::metadata(path)
        .map_err(|source| CatalogError::Io { path: path.to_owned(), source })?;
    let born = metadata.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let machine = match std::fs::read(MACHINE_ID) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|source| CatalogError::Io { path: MACHINE_ID.into(), source })?,
    };
    Ok(Place {
        inode: metadata.ino(),
        born: born.map_or(0, |since| since.as_nanos()),
        machine: Digest::of(&machine),
    })
}

/// The start that is noted beside the log; `None` when none is, or something else.
fn read_start(beside: &Path) -> Result<Option<Uuid>, CatalogError> {
    match std::fs::read_to_string(beside) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CatalogError::Io { path: beside.to_owned(), source }),
    }
}

fn store(db: &Database, owner: &Owner) -> Result<(), CatalogError> {
    let mut bytes = owner.coordinator.0.as_bytes().to_vec();
    bytes.extend_from_slice(&owner.place.inode.to_le_bytes());
    bytes.extend_from_slice(&owner.place.born.to_le_bytes());
    bytes.extend_from_slice(owner.place.machine.as_bytes());
    bytes.extend_from_slice(owner.start.as_bytes());
    bytes.extend_from_slice(owner.before.as_bytes());
    let write = || -> Result<(), redb::Error> {
        let mut txn = db.begin_write()?;
        txn.set_two_phase_commit(true);
        txn.open_table(META)?.insert(OWNER, with_crc(bytes).as_slice())?;
        txn.commit()?;
        Ok(())
    };
    write().map_err(CatalogError::database)
}

fn stored(db: &Database) -> Result<Option<Owner>, CatalogError> {
    let txn = db.begin_read().map_err(CatalogError::database)?;
    let meta = txn.open_table(META).map_err(CatalogError::database)?;
    let Some(bytes) = meta.get(OWNER).map_err(CatalogError::database)? else { return Ok(None) };
    let owner = decode(without_crc(bytes.value())?).ok_or_else(|| CatalogError::Corrupt {
        place: "the owner of the log".to_owned(),
        problem: "has another length than it should".to_owned(),
    })?;
    Ok(Some(owner))
}

fn decode(bytes: &[u8]) -> Option<Owner> {
    let mut at = Reader(bytes);
    let coordinator = CoordinatorId(Uuid::from_bytes(at.take()?));
    let place = Place {
        inode: u64::from_le_bytes(at.take()?),
        born: u128::from_le_bytes(at.take()?),
        machine: Digest::from_bytes(at.take()?),
    };
    let (start, before) = (Uuid::from_bytes(at.take()?), Uuid::from_bytes(at.take()?));
    at.0.is_empty().then_some(Owner { coordinator, place, start, before })
}

#[cfg(test)]
mod tests {
    use super::super::{Log, Missing};
    use super::*;

    fn coordinator(path: &Path) -> CoordinatorId {
        Log::open(path, Missing::Create).unwrap().log.coordinator()
    }

    #[test]
    fn the_same_file_is_the_same_coordinator_and_a_copy_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let first = coordinator(&path);
        assert_eq!(coordinator(&path), first);
        let copy = tempfile::tempdir().unwrap();
        let copied = copy.path().join("catalog.redb");
        for name in ["catalog.redb", START] {
            std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
        }
        assert_ne!(coordinator(&copied), first);
        assert_eq!(coordinator(&path), first, "the first one is not told");
        std::fs::remove_file(dir.path().join(START)).unwrap();
        assert_ne!(coordinator(&path), first);
    }

    #[test]
    fn an_image_of_an_earlier_start_that_is_put_back_is_another_coordinator() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let first = coordinator(&path);
        let image = std::fs::read(&path).unwrap();
        assert_eq!(coordinator(&path), first);
        // Written over it, so the inode and its birth stay.
        std::fs::write(&path, image).unwrap();
        assert_ne!(coordinator(&path), first);
    }

    #[test]
    fn a_crash_between_the_two_writes_of_a_start_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.redb");
        let first = coordinator(&path);
        let beside = dir.path().join(START);
        let before = std::fs::read(&beside).unwrap();
        coordinator(&path);
        std::fs::write(&beside, before).unwrap();
        assert_eq!(coordinator(&path), first);
    }
}
