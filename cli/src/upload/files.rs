//! Finding the files that a command line names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// Apache Parquet.
    Parquet,
    /// CSV with a header line.
    Csv,
}

/// A file to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it holds.
    pub kind: FileKind,
    /// Its size in bytes when it was found.
    pub bytes: u64,
}

/// The files behind `patterns`, sorted and each once: files, globs, and folders with the
/// `.parquet` and `.csv` files in them.
///
/// # Errors
/// A pattern that matches nothing, a file that cannot be read or is neither Parquet nor CSV.
pub fn find(patterns: &[String]) -> anyhow::Result<Vec<SourceFile>> {
    let mut paths = BTreeSet::new();
    for pattern in patterns {
        let before = paths.len();
        let path = PathBuf::from(pattern);
        if path.try_exists().with_context(|| format!("{pattern} cannot be looked up"))? {
            collect(path, &mut paths)?;
        } else {
            let matches = glob::glob(pattern)
                .with_context(|| format!("{pattern:?} is not a file pattern"))?;
            for path in matches {
                collect(path?, &mut paths)?;
            }
        }
        if paths.len() == before {
            bail!(
                "{pattern} matches no file: the path is on this machine (a file on the servers is \
                 loaded with COPY), and a pattern in quotes is expanded here, not by the shell"
            );
        }
    }
    paths.into_iter().map(describe).collect()
}

fn collect(path: PathBuf, paths: &mut BTreeSet<PathBuf>) -> anyhow::Result<()> {
    if !path.is_dir() {
        paths.insert(path);
        return Ok(());
    }
    let entries = std::fs::read_dir(&path)
        .with_context(|| format!("folder {} cannot be read", path.display()))?;
    for entry in entries {
        let file = entry?.path();
        if kind_by_name(&file).is_some() && file.is_file() {
            paths.insert(file);
        }
    }
    Ok(())
}

fn describe(path: PathBuf) -> anyhow::Result<SourceFile> {
    let shown = path.display();
    let mut file = File::open(&path).with_context(|| format!("{shown} cannot be opened"))?;
    let bytes = file.metadata().with_context(|| format!("{shown} cannot be read"))?.len();
    let mut start = Vec::new();
    let magic = (&mut file).take(4).read_to_end(&mut start);
    magic.with_context(|| format!("{shown} cannot be read"))?;
    let kind = match (kind_by_name(&path), start.as_slice()) {
        (_, b"PAR1") => FileKind::Parquet,
        (Some(FileKind::Csv), _) => FileKind::Csv,
        (Some(FileKind::Parquet), _) => {
            bail!("{shown} is not a Parquet file: it does not start with PAR1")
        }
        (None, _) => bail!(
            "{shown} is neither Parquet nor named .csv: convert it, or rename it when it is CSV"
        ),
    };
    Ok(SourceFile { path, kind, bytes })
}

fn kind_by_name(path: &Path) -> Option<FileKind> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "parquet" | "parq" | "pq" => Some(FileKind::Parquet),
        "csv" | "tsv" => Some(FileKind::Csv),
        _ => None,
    }
}
