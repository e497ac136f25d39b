//! The file system as this crate uses it, behind a trait so that tests can crash it.
//!
//! Invariant: a file is written once, under a name that did not exist, and synced by consuming
//! its handle: a failed fsync leaves nothing to retry on (after a failed fsync Linux marks the
//! pages clean, so a second one would lie). Which steps make what durable is said in
//! [`crate::durable_write`], not here.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, CWD, FlockOperation, Mode, OFlags, RenameFlags};

/// A file being written.
pub trait VfsFile: Send {
    /// Appends all of `bytes`.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// On `Ok` the content survives a crash; its name does so only once the directory is synced.
    /// On an error the content is unknown and the file must not be used.
    fn sync(self: Box<Self>) -> io::Result<()>;
}

/// Holds an advisory lock until dropped.
pub trait VfsLock: Send + Sync + fmt::Debug {}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VfsEntry {
    /// Its name.
    pub name: OsString,
    /// Whether it is a directory; symbolic links are not followed.
    pub is_dir: bool,
}

/// What the store needs of a file system. All paths are absolute or relative to the process.
pub trait Vfs: fmt::Debug + Send + Sync {
    /// Creates a file that must not exist.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>>;
    /// Renames a file or directory to a name that must not exist. Not durable by itself.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates a directory that must not exist. Not durable by itself.
    fn mkdir(&self, path: &Path) -> io::Result<()>;
    /// On `Ok` the entries of the directory, as they are now, survive a crash.
    fn fsync_dir(&self, path: &Path) -> io::Result<()>;
    /// Reads exactly `length` bytes at `offset` of a regular file; a shorter file is
    /// [`io::ErrorKind::UnexpectedEof`]. Symbolic links are refused.
    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes>;
    /// Bytes in a regular file. Symbolic links are refused.
    fn file_length(&self, path: &Path) -> io::Result<u64>;
    /// Forgets what is cached of a regular file, so that the next read is one of the disk. Bytes
    /// that were not synced stay cached. Symbolic links are refused.
    fn drop_cached(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<VfsEntry>>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock of a file, which is created when missing; `None` when it is taken.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>>;
    /// Bytes that this process may still write to the volume of a path.
    fn free_space(&self, path: &Path) -> io::Result<u64>;
}

/// The file system of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealVfs;

#[derive(Debug)]
struct RealFile(File);

#[derive(Debug)]
struct RealLock {
    /// Closing the file releases the lock.
    _file: File,
}

impl VfsLock for RealLock {}

impl VfsFile for RealFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Vfs for RealVfs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let (file, file_length) = open_regular(path)?;
        // Before the allocation: a length out of a damaged file must not decide its size.
        if offset.checked_add(length as u64).is_none_or(|end| end > file_length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let position = offset + buffer.len() as u64;
            match rustix::io::pread(&file, spare_capacity(&mut buffer), position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        buffer.truncate(length);
        Ok(buffer.into())
    }

    fn file_length(&self, path: &Path) -> io::Result<u64> {
        open_regular(path).map(|(_, length)| length)
    }

    fn drop_cached(&self, path: &Path) -> io::Result<()> {
        let (file, _) = open_regular(path)?;
        // No length: to the end of the file.
        Ok(rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<VfsEntry>> {
        std::fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                Ok(VfsEntry { name: entry.file_name(), is_dir: entry.file_type()?.is_dir() })
            })
            .collect()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(RealLock { _file: file }))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Opens a regular file and tells its length. `O_NONBLOCK`: a FIFO put in place of a chunk must
/// not hang the reader; `O_NOFOLLOW`: a link put there must not lead out of the directory.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    Ok((file, metadata.size()))
}
