//! The end of [`IncomingSegment::finish`]: names for what is staged, whatever is here already.
//!
//! Invariant: what is good here stays as it is, and what is bad is judged by reading the disk.
//! A process that died after a failed fsync leaves a page cache that is right where the disk is
//! not.

use std::io;
use std::path::Path;

use super::IncomingSegment;
use crate::chunk_store::ReadFrom;
use crate::chunk_store::check::judged;
use crate::durable_write::Replacement;
use crate::error::{Result, StorageError};
use crate::manifest::Layout;
use crate::segment_meta::ChunkFile;

impl IncomingSegment {
    /// Everything is staged and synced, and this has the segment's turn.
    pub(super) fn place(&self) -> Result<()> {
        match (self.whole, self.copy.layout) {
            (false, _) => self.replace_wanted(),
            (true, Layout::Packed) => self.replace_bad(),
            (true, Layout::Wide) => {
                if self.place_dir()? || (self.clear_no_dir()? && self.place_dir()?) {
                    return Ok(());
                }
                self.replace_bad()
            }
        }
    }

    /// Gives the staged directory its name. Says whether it could: the name may be taken.
    fn place_dir(&self) -> Result<bool> {
        let [target, meta] =
            [self.copy.key.wide_dir(), self.meta_path()].map(|path| self.store.root.join(path));
        match self.store.writer.place_dir(self.store.vfs.as_ref(), &self.dir, &target, &meta) {
            Err(StorageError::Io { op: "rename", source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(false)
            }
            placed => placed.map(|()| true),
        }
    }

    /// Clears away what has the name of a wide segment and is no directory. Says whether there
    /// was such a thing.
    fn clear_no_dir(&self) -> Result<bool> {
        let dir = self.store.root.join(self.copy.key.wide_dir());
        let slice = self.store.list(&self.store.root.join(self.copy.key.slice_dir()))?;
        let entry = slice.into_iter().find(|entry| Some(entry.name.as_os_str()) == dir.file_name());
        Ok(entry.is_some_and(|entry| !entry.is_dir) && self.store.move_to_quarantine(&dir)?)
    }

    /// Replaces what is bad or missing of a whole segment: everything, where nothing is here.
    fn replace_bad(&self) -> Result<()> {
        let files = self.meta.chunk_files();
        let mut bad = Vec::new();
        for file in &files {
            if self.found_here(file)?.is_err() {
                bad.push(file);
            }
        }
        self.replace(&bad, self.is_meta_bad()?)
    }

    /// Replaces the files that were sent, however those here look.
    fn replace_wanted(&self) -> Result<()> {
        let files = self.meta.chunk_files();
        let is_sent = |file: usize| self.wanted.iter().any(|wanted| wanted.file == file);
        let (sent, others): (Vec<_>, Vec<_>) =
            files.iter().enumerate().partition(|(file, _)| is_sent(*file));
        let is_meta_bad = self.is_meta_bad()?;
        if is_meta_bad {
            // The new metadata will vouch for them.
            for (_, file) in others {
                self.found_here(file)??;
            }
        }
        let sent: Vec<&ChunkFile<'_>> = sent.into_iter().map(|(_, file)| file).collect();
        self.replace(&sent, is_meta_bad)
    }

    fn found_here(&self, file: &ChunkFile<'_>) -> Result<Result<()>> {
        judged(self.store.check_file(file, ReadFrom::Media, &mut 0))
    }

    fn is_meta_bad(&self) -> Result<bool> {
        self.store.prepare(&self.meta_path(), ReadFrom::Media);
        let found = self.store.read_segment_meta(self.copy.key, self.copy.layout);
        Ok(judged(found)?.map_or(true, |bytes| bytes != self.meta_bytes))
    }

    /// Gives staged files their names, and makes everything that is here durable: an earlier try
    /// may have died before it did.
    fn replace(&self, files: &[&ChunkFile<'_>], meta: bool) -> Result<()> {
        let store = self.store.as_ref();
        let vfs = store.vfs.as_ref();
        let dir = store.durable_dir(&self.copy)?;
        let files: Vec<_> = files.iter().map(|file| self.replacement(&file.path)).collect();
        let meta = meta.then(|| self.replacement(&self.meta_path()));
        let replaced = store.writer.replace(vfs, &dir, &files, meta.as_ref());
        store.prune_quarantine();
        replaced
    }

    fn replacement(&self, path: &Path) -> Replacement {
        let target = self.store.root.join(path);
        let staged = self.dir.join(path.file_name().unwrap_or_default());
        Replacement { staged, aside: self.store.aside(&target), target }
    }
}
