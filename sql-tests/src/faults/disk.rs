//! Damage below a data directory: bits flipped, files cut, grown, gone, or put in each other's
//! place, by kind of file.
//!
//! Damage is chosen from a seed over the files that are there, described by what it does to which
//! byte of which file, and can be taken back: one loaded cluster serves hundreds of trials.
//!
//! Invariant: only the files that a [`Damage`] names are touched, and [`Undo`] puts back their
//! bytes and names as they were.
//! Not here: failing disks (`inject`), lost writes (`power`).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::choices::Choices;

/// Zeros that [`Mutation::Extend`] adds: more than a block of checksums covers would be as good.
const EXTEND_BYTES: usize = 4_096;

/// What a file of a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// A column of a wide segment: `c<column>.v<version>.parquet`.
    Column,
    /// All columns of a packed segment: `<segment>.pack.parquet`.
    Pack,
    /// `segment.meta` or `<segment>.pack.meta`.
    SegmentMeta,
    /// The coordinator's `catalog.redb`.
    Catalog,
    /// A worker's copy of the command log, below `log/`.
    Log,
}

impl FileKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Column, Self::Pack, Self::SegmentMeta, Self::Catalog, Self::Log];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Column => "column file",
            Self::Pack => "pack",
            Self::SegmentMeta => "segment metadata",
            Self::Catalog => "catalog",
            Self::Log => "log copy",
        }
    }

    /// The kind of a file by its path in the data directory; `None` for what damage leaves alone:
    /// locks, identities, secrets, staging.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        match path.components().next()?.as_os_str().to_str()? {
            "chunks" if name.ends_with(".pack.parquet") => Some(Self::Pack),
            "chunks" if name.ends_with(".parquet") => Some(Self::Column),
            "chunks" if name.ends_with(".meta") => Some(Self::SegmentMeta),
            "catalog.redb" => Some(Self::Catalog),
            "log" if !name.eq_ignore_ascii_case("lock") => Some(Self::Log),
            _ => None,
        }
    }
}

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MutationKind {
    /// One bit is turned over.
    FlipBit,
    /// The file has no bytes any more.
    TruncateToZero,
    /// The second half is gone.
    TruncateToHalf,
    /// Zeros follow its end.
    Extend,
    /// The file is gone.
    Delete,
    /// The folder that the file lies in is gone, with everything in it.
    DeleteFolder,
    /// Another valid file takes its place: an older version, or the same column of elsewhere.
    Swap,
}

impl MutationKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::FlipBit,
        Self::TruncateToZero,
        Self::TruncateToHalf,
        Self::Extend,
        Self::Delete,
        Self::DeleteFolder,
        Self::Swap,
    ];
}

/// A [`MutationKind`] with its choices made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mutation {
    FlipBit { byte: u64, bit: u8 },
    Truncate { from: u64, to: u64 },
    Extend,
    Delete,
    DeleteFolder,
    Swap { with: PathBuf },
}

/// One fault of one file.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The data directory.
    home: PathBuf,
    /// The file, in the data directory.
    file: PathBuf,
    kind: FileKind,
    mutation: Mutation,
}

/// From which files [`Damage::choose`] chooses, and what it may do.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The kind of file; any when `None`.
    pub file: Option<FileKind>,
    /// What is done; anything when `None`.
    pub mutation: Option<MutationKind>,
    /// A copy of the data directory from an earlier time: what a swap takes older files from.
    pub older: Option<PathBuf>,
}

impl Damage {
    /// Chooses damage to a file of the data directory `home`, or `None` when it has no such file.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn choose(
        home: &Path,
        wanted: &Wanted,
        choices: &mut Choices,
    ) -> anyhow::Result<Option<Self>> {
        let mut files = files_below(home)?;
        files.retain(|(_, kind)| wanted.file.is_none_or(|wanted| wanted == *kind));
        if files.is_empty() {
            return Ok(None);
        }
        let (file, kind) = choices.pick(&files).clone();
        let length = fs::metadata(home.join(&file))?.len();
        let mutation = wanted.mutation.unwrap_or(*choices.pick(&MutationKind::ALL));
        let flip = |choices: &mut Choices| {
            let bit = u8::try_from(choices.below(8)).unwrap_or(0);
            Mutation::FlipBit { byte: choices.below(length), bit }
        };
        let mutation = match mutation {
            // An empty file has no bit to flip and nothing to cut.
            _ if length == 0 => Mutation::Extend,
            MutationKind::FlipBit => flip(choices),
            MutationKind::TruncateToZero => Mutation::Truncate { from: length, to: 0 },
            MutationKind::TruncateToHalf => Mutation::Truncate { from: length, to: length / 2 },
            MutationKind::Extend => Mutation::Extend,
            MutationKind::Delete => Mutation::Delete,
            MutationKind::DeleteFolder if file.parent() == Some(Path::new("")) => Mutation::Delete,
            MutationKind::DeleteFolder => Mutation::DeleteFolder,
            MutationKind::Swap => match stand_ins(home, &file, kind, wanted.older.as_deref())? {
                // A lone file has no other to be taken for.
                none if none.is_empty() => flip(choices),
                stand_ins => Mutation::Swap { with: choices.pick(&stand_ins).clone() },
            },
        };
        Ok(Some(Self { home: home.to_owned(), file, kind, mutation }))
    }

    /// The kind of file that is hit.
    pub fn file_kind(&self) -> FileKind {
        self.kind
    }

    /// The file that is hit, in its data directory.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Does it. Files that are open in a process change under it, as they do on a bad disk.
    ///
    /// # Errors
    /// What the file system says.
    pub fn apply(&self) -> anyhow::Result<Undo> {
        let path = self.home.join(&self.file);
        let undo = match self.mutation {
            Mutation::DeleteFolder => Undo::keep_folder(path.parent().context("a file in none")?)?,
            _ => Undo::keep_file(&path)?,
        };
        self.damage(&path).with_context(|| format!("{self} is not possible"))?;
        Ok(undo)
    }

    fn damage(&self, path: &Path) -> io::Result<()> {
        match &self.mutation {
            Mutation::FlipBit { byte, bit } => {
                let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
                let mut hit = [0];
                file.read_exact_at(&mut hit, *byte)?;
                file.write_all_at(&[hit[0] ^ (1 << bit)], *byte)
            }
            Mutation::Truncate { to, .. } => {
                fs::OpenOptions::new().write(true).open(path)?.set_len(*to)
            }
            Mutation::Extend => {
                let file = fs::OpenOptions::new().write(true).open(path)?;
                let end = file.metadata()?.len();
                file.write_all_at(&[0; EXTEND_BYTES], end)
            }
            Mutation::Delete => fs::remove_file(path),
            Mutation::DeleteFolder => fs::remove_dir_all(path.parent().unwrap_or(path)),
            Mutation::Swap { with } => overwrite(path, &fs::read(with)?),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.home.join(&self.file);
        let (kind, path) = (self.kind.name(), path.display());
        match &self.mutation {
            Mutation::FlipBit { byte, bit } => {
                write!(f, "{kind}: bit {bit} of byte {byte} of {path} flipped")
            }
            Mutation::Truncate { from, to } => {
                write!(f, "{kind}: {path} cut from {from} to {to} bytes")
            }
            Mutation::Extend => write!(f, "{kind}: {EXTEND_BYTES} zeros behind {path}"),
            Mutation::Delete => write!(f, "{kind}: {path} deleted"),
            Mutation::DeleteFolder => write!(f, "{kind}: the folder of {path} deleted"),
            Mutation::Swap { with } => {
                write!(f, "{kind}: {path} replaced by {}", with.display())
            }
        }
    }
}

/// What was there before a [`Damage`].
#[derive(Debug)]
#[must_use = "without it the damage stays"]
pub struct Undo(Vec<(PathBuf, Vec<u8>)>);

impl Undo {
    fn keep_file(path: &Path) -> io::Result<Self> {
        Ok(Self(vec![(path.to_owned(), fs::read(path)?)]))
    }

    fn keep_folder(folder: &Path) -> io::Result<Self> {
        let mut kept = Vec::new();
        walk(folder, &mut |path| {
            kept.push((path.to_owned(), fs::read(path)?));
            Ok(())
        })?;
        Ok(Self(kept))
    }

    /// Puts everything back as it was.
    ///
    /// # Errors
    /// What the file system says.
    pub fn undo(self) -> io::Result<()> {
        for (path, bytes) in self.0 {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            overwrite(&path, &bytes)?;
        }
        Ok(())
    }

    /// Leaves the damage for somebody else to repair.
    pub fn leave(self) {}
}

/// Gives a file other bytes in place, so that who has it open sees them.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// The files of a data directory that damage may hit, in the order of their names.
fn files_below(home: &Path) -> anyhow::Result<Vec<(PathBuf, FileKind)>> {
    let mut found = Vec::new();
    walk(home, &mut |path| {
        let file = path.strip_prefix(home).unwrap_or(path);
        if let Some(kind) = FileKind::of(file) {
            found.push((file.to_owned(), kind));
        }
        Ok(())
    })
    .with_context(|| format!("{} cannot be searched", home.display()))?;
    found.sort();
    Ok(found)
}

/// Files that could be taken for `file`: its older self, another version of the column, the same
/// column of another segment, or any file of the kind.
fn stand_ins(
    home: &Path,
    file: &Path,
    kind: FileKind,
    older: Option<&Path>,
) -> anyhow::Result<Vec<PathBuf>> {
    let bytes = fs::read(home.join(file))?;
    let differs = |path: &PathBuf| fs::read(path).is_ok_and(|other| other != bytes);
    if let Some(older) = older.map(|older| older.join(file)).filter(differs) {
        return Ok(vec![older]);
    }
    let others: Vec<_> = files_below(home)?
        .into_iter()
        .filter(|(other, other_kind)| *other_kind == kind && other != file)
        .map(|(other, _)| other)
        .collect();
    let same_column: Vec<_> =
        others.iter().filter(|other| column_of(other) == column_of(file)).cloned().collect();
    let best = if same_column.is_empty() { others } else { same_column };
    Ok(best.into_iter().map(|other| home.join(other)).filter(differs).collect())
}

/// `c7` of `c7.v2.parquet`; of other files their names' ends, which all of a kind share.
fn column_of(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    match name.split_once(".v") {
        Some((column, _)) => Some(column),
        None => name.split_once('.').map(|(_, rest)| rest),
    }
}

/// Calls `found` with each regular file below a folder.
fn walk(folder: &Path, found: &mut dyn FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), found)?;
        } else if kind.is_file() {
            found(&entry.path())?;
        }
    }
    Ok(())
}

/// Copies a folder with everything in it, as [`Wanted::older`] or to keep what failed.
///
/// # Errors
/// What the file system says.
pub fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    walk(from, &mut |path| {
        let target = to.join(path.strip_prefix(from).unwrap_or(path));
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(path, target).map(|_| ())
    })
}

#[cfg(test)]
mod tests;
