//! A folder of append-only files, as a log member uses it, behind a trait so that tests can
//! crash it.
//!
//! Not `Vfs`: a chunk is written once and synced by giving its file up, a log file is appended to
//! and synced again and again. The rules are the same: a new name is durable once its folder is
//! synced, and a failed sync is never repeated on the same file.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::durable_write::create_dir_durable;

/// The folder of a worker's copy, below its data directory.
pub const LOG_DIR: &str = "log";

/// A log file that is appended to.
pub trait LogFile: Send + fmt::Debug {
    /// Appends `bytes`. On `Ok` they survive a crash, and so does everything before them. After
    /// an error any part of them may be there, and the file must not be used again.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// The folder of a member's log files, which nobody else writes.
pub trait LogDisk: Send + Sync + fmt::Debug {
    /// The names in it, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Bytes of a file.
    fn length(&self, name: &str) -> io::Result<u64>;
    /// Reads exactly `length` bytes; a shorter file is [`io::ErrorKind::UnexpectedEof`].
    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Makes a file that must not exist. On `Ok` its name survives a crash.
    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Removes a file that nothing counts on: after a crash it may be there again. One that is not
    /// there is no error.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Opens a file to append to it. On `Ok` its name and what is in it now survive a crash.
    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>>;
    /// Removes a file. After a crash it may be there again, as it was.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// A folder of the operating system.
#[derive(Debug, Clone)]
pub struct DirDisk {
    path: PathBuf,
}

impl DirDisk {
    /// The folder at `path`, made when it is missing. On `Ok` it survives a crash.
    ///
    /// # Errors
    /// What the file system says.
    pub fn new(path: &Path) -> io::Result<Self> {
        create_dir_durable(path)?;
        Ok(Self { path: path.to_owned() })
    }
}

#[derive(Debug)]
struct DirFile(File);

impl LogFile for DirFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        // The new length is synced with the data: it is needed to read it.
        self.0.sync_data()
    }
}

/// Read and written by the owner and their group, as chunks are.
const MODE: u32 = 0o640;

impl LogDisk for DirDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(&self.path)?.map(|entry| {
            // A name that is no UTF-8 is none of ours.
            entry.map(|entry| entry.file_name().into_string().unwrap_or_default())
        });
        names.collect()
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(std::fs::metadata(self.path.join(name))?.len())
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join(name))?;
        // Before the allocation: a length out of a damaged file must not decide its size.
        if offset.checked_add(length as u64).is_none_or(|end| end > file_length(&file)) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(MODE);
        let file = options.open(self.path.join(name))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Box::new(DirFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new().append(true).open(self.path.join(name))?;
        // The last process may have died between its write and its sync.
        file.sync_data()?;
        File::open(&self.path)?.sync_all()?;
        Ok(Box::new(DirFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }
}

fn file_length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}
