//! The copy in a worker's data directory, and the note beside it that says whose it is.
//!
//! ```text
//! <data-dir>/log/00000001.log ...    the copy
//! <data-dir>/LOG_IDENTITY            "<cluster> <worker>" and a line break; the copy was begun
//! ```
//! Invariant: promises are not taken back by a folder that was emptied or came from elsewhere. Once
//! the note is there, a worker without log files does not start, nor one of another cluster: who
//! knows that the copy is not needed removes both.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::copy::{LogCopy, LogError};
use super::disk::{DirDisk, LOG_DIR, LogDisk};
use crate::chunk_store::Identity;
use crate::durable_write::write_file_durable;

const NOTE: &str = "LOG_IDENTITY";

/// Opens the copy in a worker's data directory, or begins one. The caller holds the directory's
/// lock. Blocks.
///
/// On `Ok` the copy and the note survive a crash; only a full disk leaves that for the next start.
///
/// # Errors
/// [`LogError::Misplaced`], and as [`LogCopy::open`].
pub fn open(data_dir: &Path, identity: Identity) -> Result<LogCopy, LogError> {
    let (mut copy, is_noted) = look_at(data_dir, identity)?;
    if is_noted {
        return Ok(copy);
    }
    let note = note_of(identity);
    let begun = copy.begin().and_then(|()| {
        write_file_durable(&data_dir.join(NOTE), note.as_bytes()).map_err(LogError::io("writing"))
    });
    match begun {
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::StorageFull => {
            tracing::warn!(%source, "the copy of the command log cannot be begun yet");
        }
        begun => begun?,
    }
    Ok(copy)
}

/// Opens the copy in a worker's data directory to read it. Blocks.
///
/// # Errors
/// As [`open`].
pub fn look(data_dir: &Path, identity: Identity) -> Result<LogCopy, LogError> {
    look_at(data_dir, identity).map(|(copy, _)| copy)
}

fn look_at(data_dir: &Path, identity: Identity) -> Result<(LogCopy, bool), LogError> {
    let disk = DirDisk::new(&data_dir.join(LOG_DIR)).map_err(LogError::io("opening"))?;
    let ours = note_of(identity);
    let is_noted = match std::fs::read_to_string(data_dir.join(NOTE)) {
        Ok(found) if found == ours => true,
        Ok(found) => {
            return Err(LogError::Misplaced {
                problem: format!("it belongs to \"{}\" (cluster, worker)", found.trim()),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(LogError::io("reading")(error)),
    };
    if is_noted && disk.list().map_err(LogError::io("listing"))?.is_empty() {
        return Err(LogError::Misplaced { problem: "its files are gone".to_owned() });
    }
    Ok((LogCopy::open(Arc::new(disk))?, is_noted))
}

fn note_of(identity: Identity) -> String {
    format!("{} {}\n", identity.cluster, identity.worker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, WorkerId};

    fn identity() -> Identity {
        Identity { cluster: ClusterId::generate(), worker: WorkerId::generate() }
    }

    #[test]
    fn a_copy_whose_files_are_gone_is_not_begun_again() {
        let (dir, identity) = (tempfile::tempdir().unwrap(), identity());
        open(dir.path(), identity).unwrap();
        open(dir.path(), identity).unwrap();
        std::fs::remove_dir_all(dir.path().join(LOG_DIR)).unwrap();
        for opened in [open(dir.path(), identity), look(dir.path(), identity)] {
            let refused = opened.unwrap_err().to_string();
            assert!(refused.contains("its files are gone"), "{refused}");
        }
        // The operator says that it is not needed.
        std::fs::remove_file(dir.path().join(NOTE)).unwrap();
        open(dir.path(), identity).unwrap();
    }

    #[test]
    fn a_copy_of_another_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path(), identity()).unwrap();
        let refused = open(dir.path(), identity()).unwrap_err().to_string();
        assert!(refused.contains("it belongs to"), "{refused}");
    }
}
