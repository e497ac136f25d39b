//! The coordinator's data directory, and the lock that keeps a second process out.
//!
//! ```text
//! <data-dir>/LOCK             held with flock while the process lives (FAULTS F29)
//! <data-dir>/catalog.redb     the command log (log.rs)
//! <data-dir>/catalog.start    its last start (log/owner.rs)
//! <data-dir>/cluster.secret   the secret of internal RPCs (identity.rs)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use basalt_storage::durable_write::create_dir_durable;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::error::CatalogError;

const LOCK: &str = "LOCK";
const CATALOG: &str = "catalog.redb";
const NEW_CATALOG: &str = "catalog.redb.new";
const SECRET: &str = "cluster.secret";

/// A data directory that this process owns. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Holds the lock; the kernel releases it with the descriptor, also after SIGKILL.
    _lock: File,
}

impl Directory {
    /// Locks `path`, making it first when it is missing. On `Ok` it survives a crash.
    ///
    /// Fails as [`Self::lock`] does.
    pub(super) fn create(path: &Path) -> Result<Self, CatalogError> {
        create_dir_durable(path)
            .map_err(|source| CatalogError::Io { path: path.to_owned(), source })?;
        Self::lock(path)
    }

    /// Locks `path`. Fails with [`CatalogError::NoCluster`] when there is no such directory and
    /// with [`CatalogError::Locked`] when another process has it.
    pub(super) fn lock(path: &Path) -> Result<Self, CatalogError> {
        let at = |source| CatalogError::Io { path: path.to_owned(), source };
        if !path.try_exists().map_err(at)? {
            return Err(CatalogError::NoCluster { path: path.to_owned() });
        }
        let lock = path.join(LOCK);
        let file = (OpenOptions::new().create(true).append(true).open(&lock))
            .map_err(|source| CatalogError::Io { path: lock.clone(), source })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: file }),
            Err(Errno::WOULDBLOCK) => Err(CatalogError::Locked { path: path.to_owned() }),
            Err(errno) => Err(CatalogError::Io { path: lock, source: errno.into() }),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn catalog(&self) -> PathBuf {
        self.path.join(CATALOG)
    }

    pub(super) fn secret(&self) -> PathBuf {
        self.path.join(SECRET)
    }

    /// Whether there is a catalog file. A file system error is an error, not a "no".
    pub(super) fn has_catalog(&self) -> Result<bool, CatalogError> {
        let path = self.catalog();
        path.try_exists().map_err(|source| CatalogError::Io { path, source })
    }

    /// Whether there is a secret.
    pub(super) fn has_secret(&self) -> Result<bool, CatalogError> {
        let path = self.secret();
        path.try_exists().map_err(|source| CatalogError::Io { path, source })
    }

    /// Where a catalog is made before it gets its name; what a crash left there is removed.
    pub(super) fn new_catalog(&self) -> Result<PathBuf, CatalogError> {
        let path = self.path.join(NEW_CATALOG);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CatalogError::Io { path, source })
            }
            _ => Ok(path),
        }
    }

    /// Gives a catalog that is whole and closed its name. On `Ok` the name survives a crash.
    #[expect(clippy::disallowed_methods, reason = "the directory is synced here")]
    pub(super) fn adopt_catalog(&self, new: &Path) -> Result<(), CatalogError> {
        let adopt = || {
            File::open(new)?.sync_all()?;
            fs::rename(new, self.catalog())?;
            sync_directory(&self.path)
        };
        adopt().map_err(|source| CatalogError::Io { path: self.catalog(), source })
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
