//! A folder of log files in memory, that can be cut off from power.
//!
//! Model: what `append` and `create` returned `Ok` for survives. When the power fails during an
//! append, any part of it may be there afterwards; a file that was being made may be there or not.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_storage::command_log::{LogDisk, LogFile};

/// What goes wrong next.
#[allow(dead_code, reason = "not all of the tests that include this file use all of it")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power fails in the next write: of an append so many bytes are kept.
    PowerFails(usize),
    /// The next write finds no space, after so many bytes.
    Full(usize),
    /// The next sync fails; the bytes may be there.
    SyncFails,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Option<Fault>,
    is_off: bool,
    syncs: usize,
}

/// The folder. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemDisk(Arc<Mutex<State>>);

impl MemDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Lets the next write go wrong.
    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Nothing is written any more by those who have it open.
    #[allow(dead_code, reason = "used by some of the tests that include this file")]
    pub(crate) fn power_off(&self) {
        self.state().is_off = true;
    }

    /// Whether the power failed.
    #[allow(dead_code, reason = "used by some of the tests that include this file")]
    pub(crate) fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// The folder after the power came back; what had it open cannot write to it.
    pub(crate) fn power_on(&self) -> Self {
        let files = self.state().files.clone();
        Self(Arc::new(Mutex::new(State { files, ..State::default() })))
    }

    /// How often something was synced.
    #[allow(dead_code, reason = "used by some of the tests that include this file")]
    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// Every file.
    #[allow(dead_code, reason = "used by some of the tests that include this file")]
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.state().files.clone()
    }

    /// Changes a file behind everybody's back.
    #[allow(dead_code, reason = "used by some of the tests that include this file")]
    pub(crate) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        edit(self.state().files.get_mut(name).unwrap());
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemDisk,
    name: String,
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl LogFile for MemFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.is_off {
            return Err(off());
        }
        let fault = state.fault.take();
        let kept = match fault {
            None | Some(Fault::SyncFails) => bytes.len(),
            Some(Fault::PowerFails(kept) | Fault::Full(kept)) => kept.min(bytes.len()),
        };
        let file = state.files.get_mut(&self.name).unwrap();
        file.extend_from_slice(&bytes[..kept]);
        state.syncs += 1;
        match fault {
            None => Ok(()),
            Some(Fault::PowerFails(_)) => {
                state.is_off = true;
                Err(off())
            }
            Some(Fault::Full(_)) => Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::SyncFails) => Err(io::Error::other("a sync failed")),
        }
    }
}

impl LogDisk for MemDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().files.keys().cloned().collect())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let state = self.state();
        Ok(state.files.get(name).ok_or(io::ErrorKind::NotFound)?.len() as u64)
    }

    fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let state = self.state();
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let start = usize::try_from(offset).unwrap();
        let bytes = file.get(start..start + length).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(bytes.to_vec())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        let mut state = self.state();
        if state.is_off {
            return Err(off());
        }
        assert!(!state.files.contains_key(name), "{name} is made twice");
        state.files.insert(name.to_owned(), Vec::new());
        if let Some(Fault::PowerFails(kept)) = state.fault
            && kept == 0
        {
            (state.fault, state.is_off) = (None, true);
            return Err(off());
        }
        Ok(Box::new(MemFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn LogFile>> {
        if self.state().is_off {
            return Err(off());
        }
        assert!(self.state().files.contains_key(name), "{name} does not exist");
        Ok(Box::new(MemFile { disk: self.clone(), name: name.to_owned() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        if state.is_off {
            return Err(off());
        }
        state.files.remove(name);
        Ok(())
    }
}
