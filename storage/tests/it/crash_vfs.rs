//! A file system that forgets what was not synced.
//!
//! Model: a file's content survives a crash once the file was synced; a name in a directory, or
//! the absence of one, once the directory was synced. Whatever was not synced may survive or not,
//! each thing on its own (`Loss::Random`), or does not (`Loss::All`). Real file systems lose less:
//! ext4's journal carries names along with other syncs. This model does not forgive.
//!
//! What is read is the cache; [`CrashVfs::damage_disk`] changes what lies under it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use basalt_storage::vfs::{Vfs, VfsEntry, VfsFile, VfsLock};
use bytes::Bytes;

use crate::arrays::Random;

/// What a crash takes of the unsynced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loss {
    /// Everything.
    All,
    /// Each thing by the toss of a coin, from this seed; contents are torn.
    Random(u64),
}

/// What goes wrong, and when. Steps and syncs count from 1 since the last [`CrashVfs::plan`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// The power fails at this step: it and everything after it does nothing and fails.
    pub(crate) freeze_at: Option<usize>,
    /// This sync fails, with this kind of error.
    pub(crate) fail_sync: Option<(usize, io::ErrorKind)>,
    /// This step does nothing (a write does half) and fails with this kind of error; what comes
    /// after works.
    pub(crate) fail_step: Option<(usize, io::ErrorKind)>,
    /// Every read fails with this error number.
    pub(crate) fail_reads: Option<i32>,
    /// Directory syncs do nothing: a planted bug, to see that the tests see it.
    pub(crate) forget_dir_syncs: bool,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Write,
    Sync,
    Rename,
    Mkdir,
    Remove,
}

#[derive(Debug, Clone)]
enum Node {
    /// `synced`: nothing was written since the last sync.
    File {
        data: Vec<u8>,
        durable: Vec<u8>,
        synced: bool,
    },
    Dir {
        entries: Entries,
        durable: Entries,
    },
}

type Entries = BTreeMap<OsString, usize>;

impl Node {
    fn empty_file() -> Self {
        Self::File { data: Vec::new(), durable: Vec::new(), synced: true }
    }
}

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    plan: Plan,
    steps: usize,
    file_syncs: usize,
    dir_syncs: usize,
    /// What the step did that failed as planned.
    failed: Option<Step>,
    locked: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct CrashVfs(Arc<Mutex<State>>);

impl CrashVfs {
    /// An empty, durable `/data`.
    pub(crate) fn new() -> Self {
        let data: Entries = [("data".into(), 1)].into();
        let empty = Node::Dir { entries: Entries::new(), durable: Entries::new() };
        let root = Node::Dir { entries: data.clone(), durable: data };
        Self(Arc::new(Mutex::new(State { nodes: vec![root, empty], ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Sets what goes wrong from now on, and starts counting again.
    pub(crate) fn plan(&self, plan: Plan) {
        let mut state = self.state();
        (state.plan, state.steps, state.file_syncs, state.dir_syncs) = (plan, 0, 0, 0);
        state.failed = None;
    }

    /// What the step did that failed as planned.
    pub(crate) fn failed(&self) -> Option<Step> {
        self.state().failed
    }

    /// Puts a file there, durably, or takes it away.
    pub(crate) fn put(&self, path: &str, content: Option<&[u8]>) {
        let mut state = self.state();
        let path = Path::new(path);
        let _ = state.remove(path);
        if let Some(content) = content {
            let data = content.to_vec();
            let file = Node::File { durable: data.clone(), data, synced: true };
            state.add(path, file).unwrap();
        }
        let dir = state.find(path.parent().unwrap()).unwrap();
        if let Node::Dir { entries, durable } = &mut state.nodes[dir] {
            durable.clone_from(entries);
        }
    }

    /// Flips a bit of a file under the cache.
    pub(crate) fn damage_disk(&self, path: &str, at: usize) {
        let mut state = self.state();
        let node = state.find(Path::new(path)).unwrap();
        if let Node::File { durable, .. } = &mut state.nodes[node] {
            durable[at] ^= 1;
        }
    }

    /// Steps that changed or synced something, file syncs, directory syncs.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.steps, state.file_syncs, state.dir_syncs)
    }

    /// The disk after a power failure now.
    pub(crate) fn crash(&self, loss: Loss) -> Self {
        let state = self.state();
        let mut random = match loss {
            Loss::All => None,
            Loss::Random(seed) => Some(Random(seed)),
        };
        let mut nodes = Vec::new();
        survive(&state.nodes, 0, &mut nodes, &mut random);
        Self(Arc::new(Mutex::new(State { nodes, ..State::default() })))
    }

    /// Every file under a directory, with its content.
    pub(crate) fn files(&self, dir: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in self.list(Path::new(&dir)).unwrap() {
                let path = format!("{dir}/{}", entry.name.to_str().unwrap());
                if entry.is_dir {
                    dirs.push(path);
                } else {
                    let length = self.file_length(Path::new(&path)).unwrap();
                    let bytes = self.read_at(Path::new(&path), 0, length as usize).unwrap();
                    found.insert(path, bytes.to_vec());
                }
            }
        }
        found
    }
}

/// Copies what survives of a node, and returns its new number.
fn survive(old: &[Node], node: usize, new: &mut Vec<Node>, random: &mut Option<Random>) -> usize {
    let at = new.len();
    match &old[node] {
        Node::File { data, durable, synced } => {
            let content = match random {
                Some(random) if !synced => {
                    let kept = random.below(data.len() as u64 + 1) as usize;
                    data[..kept].to_vec()
                }
                _ => durable.clone(),
            };
            new.push(Node::File { data: content.clone(), durable: content, synced: true });
        }
        Node::Dir { entries, durable } => {
            let mut kept = durable.clone();
            if let Some(random) = random {
                // A name that was taken over is two things: it went, and it came again.
                for (name, node) in durable {
                    if entries.get(name) != Some(node) && random.below(2) == 0 {
                        kept.remove(name);
                    }
                }
                for (name, node) in entries {
                    if !kept.contains_key(name) && random.below(2) == 0 {
                        kept.insert(name.clone(), *node);
                    }
                }
            }
            new.push(Node::Dir { entries: Entries::new(), durable: Entries::new() });
            let mut copied = Entries::new();
            for (name, node) in kept {
                copied.insert(name, survive(old, node, new, random));
            }
            new[at] = Node::Dir { entries: copied.clone(), durable: copied };
        }
    }
    at
}

impl State {
    /// Counts a step; after the power failed there are none.
    fn step(&mut self, step: Step) -> io::Result<()> {
        self.steps += 1;
        if self.plan.freeze_at.is_some_and(|at| self.steps >= at) {
            return Err(io::Error::other("the power failed"));
        }
        match self.plan.fail_step {
            Some((at, kind)) if self.steps == at => {
                self.failed = Some(step);
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    fn read(&self) -> io::Result<()> {
        self.plan.fail_reads.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn sync_fails(&self) -> io::Result<()> {
        match self.plan.fail_sync {
            Some((at, kind)) if self.file_syncs + self.dir_syncs == at => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut at = 0;
        for name in path.components().skip(1) {
            let Node::Dir { entries, .. } = &self.nodes[at] else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            at = *entries.get(name.as_os_str()).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn entries(&mut self, path: &Path) -> io::Result<&mut Entries> {
        let node = self.find(path)?;
        match &mut self.nodes[node] {
            Node::Dir { entries, .. } => Ok(entries),
            Node::File { .. } => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let number = self.nodes.len();
        let entries = self.entries(path.parent().unwrap())?;
        let name = path.file_name().unwrap().to_owned();
        if entries.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        entries.insert(name, number);
        self.nodes.push(node);
        Ok(number)
    }

    fn remove(&mut self, path: &Path) -> io::Result<usize> {
        let entries = self.entries(path.parent().unwrap())?;
        Ok(entries.remove(path.file_name().unwrap()).ok_or(io::ErrorKind::NotFound)?)
    }
}

struct CrashFile {
    vfs: CrashVfs,
    node: usize,
}

impl VfsFile for CrashFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.vfs.state();
        let stepped = state.step(Step::Write);
        let written = match state.failed {
            None if stepped.is_err() => 0,
            Some(_) if stepped.is_err() => bytes.len() / 2,
            _ => bytes.len(),
        };
        if let Node::File { data, synced, .. } = &mut state.nodes[self.node] {
            data.extend_from_slice(&bytes[..written]);
            *synced = false;
        }
        stepped
    }

    fn sync(self: Box<Self>) -> io::Result<()> {
        let mut state = self.vfs.state();
        state.step(Step::Sync)?;
        state.file_syncs += 1;
        state.sync_fails()?;
        if let Node::File { data, durable, synced } = &mut state.nodes[self.node] {
            durable.clone_from(data);
            *synced = true;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct CrashLock(CrashVfs);

impl VfsLock for CrashLock {}

impl Drop for CrashLock {
    fn drop(&mut self) {
        self.0.state().locked = false;
    }
}

impl Vfs for CrashVfs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn VfsFile>> {
        let mut state = self.state();
        state.step(Step::Create)?;
        let node = state.add(path, Node::empty_file())?;
        Ok(Box::new(CrashFile { vfs: self.clone(), node }))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Step::Rename)?;
        if state.find(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.entries(to.parent().unwrap())?;
        let node = state.remove(from)?;
        let name = to.file_name().unwrap().to_owned();
        state.entries(to.parent().unwrap())?.insert(name, node);
        Ok(())
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Step::Mkdir)?;
        state.add(path, Node::Dir { entries: Entries::new(), durable: Entries::new() })?;
        Ok(())
    }

    fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Step::Sync)?;
        state.dir_syncs += 1;
        state.sync_fails()?;
        let node = state.find(path)?;
        if state.plan.forget_dir_syncs {
            return Ok(());
        }
        if let Node::Dir { entries, durable } = &mut state.nodes[node] {
            durable.clone_from(entries);
        }
        Ok(())
    }

    fn read_at(&self, path: &Path, offset: u64, length: usize) -> io::Result<Bytes> {
        let state = self.state();
        state.read()?;
        let node = state.find(path)?;
        let Node::File { data, .. } = &state.nodes[node] else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        let range = offset as usize..offset as usize + length;
        let bytes = data.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn file_length(&self, path: &Path) -> io::Result<u64> {
        let state = self.state();
        state.read()?;
        let node = state.find(path)?;
        match &state.nodes[node] {
            Node::File { data, .. } => Ok(data.len() as u64),
            Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn drop_cached(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(path)?;
        if let Node::File { data, durable, synced: true } = &mut state.nodes[node] {
            data.clone_from(durable);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<VfsEntry>> {
        let mut state = self.state();
        let entries = state.entries(path)?.clone();
        let is_dir = |node: usize| matches!(state.nodes[node], Node::Dir { .. });
        Ok(entries
            .into_iter()
            .map(|(name, node)| VfsEntry { name, is_dir: is_dir(node) })
            .collect())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Step::Remove)?;
        state.remove(path).map(|_| ())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step(Step::Remove)?;
        if !state.entries(path)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.remove(path).map(|_| ())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn VfsLock>>> {
        let mut state = self.state();
        if state.find(path).is_err() {
            state.add(path, Node::empty_file())?;
        }
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(CrashLock(self.clone()))))
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
