//! What this process may read on behalf of SQL: the folders named by `--allow-path`.
//!
//! Invariant: [`AllowedRoots::open`] gives out only regular files whose real path, all links
//! followed, lies in a root. Each process checks against its own roots, whatever a plan says.

use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::{file_error, shown};
use crate::error::{ErrorCode, SqlError};

/// The folders that SQL may read files from. None by default.
///
/// Sessions carry it as an extension of their `SessionConfig`
/// (`SessionConfig::with_extension(Arc<AllowedRoots>)`); without it nothing may be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedRoots {
    /// Real paths: absolute and without links.
    roots: Vec<PathBuf>,
}

impl AllowedRoots {
    /// Nothing may be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// Files in these folders, and in folders in them, may be read.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::InvalidParameter`] when one of them is not an existing folder.
    pub fn new<P: AsRef<Path>>(roots: impl IntoIterator<Item = P>) -> Result<Self, SqlError> {
        let roots = roots
            .into_iter()
            .map(|root| {
                let root = root.as_ref();
                let real = root.canonicalize().ok().filter(|real| real.is_dir());
                real.ok_or_else(|| {
                    SqlError::new(
                        ErrorCode::InvalidParameter,
                        format!("allowed path \"{}\" is not an existing folder", shown(root)),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { roots })
    }

    /// The roots, as real paths.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The real path of a file or folder, if it may be read.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::PermissionDenied`] when it lies outside the roots, whether it exists or not;
    /// [`ErrorCode::SourceFile`] when it lies inside and does not exist.
    pub fn check(&self, path: &Path) -> Result<PathBuf, SqlError> {
        match path.canonicalize() {
            Ok(real) if self.contains(&real) => Ok(real),
            Ok(_) => Err(denied(path)),
            // What does not exist must not be told apart from what may not be read.
            Err(_) if !self.would_contain(path) => Err(denied(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(file_error(path, "does not exist"))
            }
            Err(error) => Err(file_error(path, format_args!("cannot be read: {error}"))),
        }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    ///
    /// As [`Self::check`], and [`ErrorCode::SourceFile`] when it is not a regular file: a pipe, a
    /// device or a folder would block, never end or mean nothing.
    pub fn open(&self, path: &Path) -> Result<(File, Metadata), SqlError> {
        let real = self.check(path)?;
        let failed = |error| file_error(path, format_args!("cannot be read: {error}"));
        // Looked at before opening, because opening a pipe waits for its other end.
        regular(path, &real.metadata().map_err(failed)?)?;
        let file = File::open(&real).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        regular(path, &metadata)?;
        Ok((file, metadata))
    }

    fn contains(&self, real: &Path) -> bool {
        self.roots.iter().any(|root| real.starts_with(root))
    }

    /// Whether the deepest part of the path that exists lies in a root.
    fn would_contain(&self, path: &Path) -> bool {
        // Where `..` leads from a folder that does not exist, nobody can say.
        if path.components().any(|part| part == Component::ParentDir) {
            return false;
        }
        let absolute = match std::path::absolute(path) {
            Ok(absolute) => absolute,
            Err(_) => return false,
        };
        absolute
            .ancestors()
            .find_map(|ancestor| ancestor.canonicalize().ok())
            .is_some_and(|real| self.contains(&real))
    }
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), SqlError> {
    if metadata.is_file() {
        return Ok(());
    }
    let what = if metadata.is_dir() { "is a folder" } else { "is not a regular file" };
    Err(file_error(path, what))
}

fn denied(path: &Path) -> SqlError {
    SqlError::new(
        ErrorCode::PermissionDenied,
        format!("path \"{}\" is outside the folders that the server may read", shown(path)),
    )
    .with_hint(
        "start coordinator and workers with --allow-path DIR, or upload the file with `basalt load`",
    )
}
