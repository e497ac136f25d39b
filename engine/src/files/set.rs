//! Which files a path, glob or folder means, fixed once.
//!
//! Invariant: the list is sorted by path, has no file twice, and every file in it was a regular
//! file inside the allowed roots when the list was made. [`SourceFile::open`] fails when the file
//! is not the same any more.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::{AllowedRoots, FileFormat, file_error, shown};
use crate::error::{ErrorCode, SqlError, printable};

/// The most files of one set: their footers are all read before the first row is.
pub const FILES_MAX: usize = 100_000;

/// The deepest folder searched below the named one.
const FOLDERS_DEEP_MAX: usize = 32;

/// A file as it was when its set was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceFile {
    /// The real path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified_ns: i64,
}

impl SourceFile {
    fn resolve(path: &Path, roots: &AllowedRoots) -> Result<Self, SqlError> {
        let real = roots.check(path)?;
        if real.to_str().is_none() {
            return Err(file_error(path, "has a name that is not valid UTF-8"));
        }
        let (_, metadata) = roots.open(&real)?;
        Ok(Self { path: real, bytes: metadata.len(), modified_ns: modified_ns(&metadata) })
    }

    /// Opens the file, if it may be read here and is still the one that was resolved.
    ///
    /// # Errors
    ///
    /// As [`AllowedRoots::open`], and [`ErrorCode::SourceFile`] when size or time have changed.
    pub fn open(&self, roots: &AllowedRoots) -> Result<File, SqlError> {
        let (file, metadata) = roots.open(&self.path)?;
        self.check(&metadata)?;
        Ok(file)
    }

    /// Checks again after reading: a file written in between may have given torn rows.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::SourceFile`] when size or time have changed.
    pub fn check_unchanged(&self, file: &File) -> Result<(), SqlError> {
        let metadata = file
            .metadata()
            .map_err(|error| file_error(&self.path, format_args!("cannot be read: {error}")))?;
        self.check(&metadata)
    }

    fn check(&self, metadata: &Metadata) -> Result<(), SqlError> {
        if metadata.len() == self.bytes && modified_ns(metadata) == self.modified_ns {
            return Ok(());
        }
        Err(file_error(&self.path, "has changed since the statement began")
            .with_hint("run the statement again when the file is complete"))
    }
}

fn modified_ns(metadata: &Metadata) -> i64 {
    // A time before 1970 or after 2262, or none at all, compares equal to itself: good enough.
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(-1)
}

/// The files that a statement reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// What all of them are.
    pub format: FileFormat,
    /// The files, sorted by path, at least one.
    pub files: Vec<SourceFile>,
}

impl FileSet {
    /// Finds the files that a path, glob (`*`, `?`, `[...]`, `**`) or folder means.
    ///
    /// A folder means every file below it with an extension of the format; names that begin with
    /// `.` or `_` are left out there, as writers of datasets put notes into those. Blocks on the
    /// file system.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::PermissionDenied`] outside the roots, [`ErrorCode::SourceFile`] when there is
    /// no such file or something else is wrong with one, [`ErrorCode::InvalidParameter`] when the
    /// pattern or format is.
    pub fn resolve(
        pattern: &str,
        format: Option<FileFormat>,
        roots: &AllowedRoots,
    ) -> Result<Self, SqlError> {
        check_pattern(pattern)?;
        let path = Path::new(pattern);
        let is_glob = pattern.contains(['*', '?', '[']) && !path.try_exists().unwrap_or(false);
        let mut paths = Vec::new();
        if is_glob {
            glob(pattern, roots, &mut paths)?;
        } else {
            let real = roots.check(path)?;
            if real.is_dir() {
                walk(&real, format, 0, roots, &mut paths)?;
            } else {
                paths.push(real);
            }
        }
        if paths.is_empty() {
            return Err(SqlError::new(
                ErrorCode::SourceFile,
                format!("no file matches \"{}\"", printable(pattern)),
            ));
        }
        let format = one_format(&paths, format)?;
        let mut files = paths
            .iter()
            .map(|path| SourceFile::resolve(path, roots))
            .collect::<Result<Vec<_>, _>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some([first, _]) =
            files.array_windows::<2>().find(|[first, second]| first.path == second.path)
        {
            return Err(file_error(&first.path, "is in the set twice, once through a link"));
        }
        Ok(Self { format, files })
    }
}

fn check_pattern(pattern: &str) -> Result<(), SqlError> {
    let invalid = |code, what: &str| {
        Err(SqlError::new(code, format!("path \"{}\" {what}", printable(pattern))))
    };
    if pattern.is_empty() || pattern.contains('\0') {
        return invalid(ErrorCode::InvalidParameter, "is empty or contains a NUL character");
    }
    if let Some((scheme, _)) = pattern.split_once("://")
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    {
        return invalid(ErrorCode::FeatureNotSupported, "is a URL, which is not supported")
            .map_err(|error| error.with_hint("name a file, glob or folder of the server"));
    }
    Ok(())
}

/// Adds the files that a glob matches.
fn glob(pattern: &str, roots: &AllowedRoots, paths: &mut Vec<PathBuf>) -> Result<(), SqlError> {
    // The folder before the first wildcard is checked first: a listing of any other folder would
    // tell what is in it.
    let fixed = pattern.find(['*', '?', '[']).and_then(|at| pattern.get(..at)).unwrap_or(pattern);
    let folder = fixed.rfind('/').map_or(".", |slash| fixed.get(..=slash).unwrap_or("/"));
    let after = pattern.get(fixed.len()..).unwrap_or_default();
    if after.split('/').any(|part| part == "..") {
        return Err(SqlError::new(
            ErrorCode::InvalidParameter,
            format!("glob \"{}\" has .. after a wildcard", printable(pattern)),
        ));
    }
    roots.check(Path::new(folder))?;
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let matches = glob::glob_with(pattern, options).map_err(|error| {
        SqlError::new(
            ErrorCode::InvalidParameter,
            format!("glob \"{}\" is wrong at {}: {}", printable(pattern), error.pos, error.msg),
        )
    })?;
    for entry in matches {
        let path = entry.map_err(|error| {
            file_error(error.path(), format_args!("cannot be read: {}", error.error()))
        })?;
        let real = roots.check(&path)?;
        if !real.is_dir() {
            push(real, paths)?;
        }
    }
    Ok(())
}

/// Adds the data files below a folder.
fn walk(
    folder: &Path,
    format: Option<FileFormat>,
    depth: usize,
    roots: &AllowedRoots,
    paths: &mut Vec<PathBuf>,
) -> Result<(), SqlError> {
    if depth > FOLDERS_DEEP_MAX {
        return Err(file_error(
            folder,
            format_args!("is more than {FOLDERS_DEEP_MAX} folders deep"),
        ));
    }
    let failed = |error| file_error(folder, format_args!("cannot be read: {error}"));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || name.as_encoded_bytes().starts_with(b"_") {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            walk(&path, format, depth + 1, roots, paths)?;
            continue;
        }
        if !FileFormat::from_path(&path).is_some_and(|found| format.is_none_or(|f| f == found)) {
            continue;
        }
        let real = roots.check(&path)?;
        if kind.is_symlink() && real.is_dir() {
            return Err(file_error(&path, "is a link to a folder, which is not followed"));
        }
        push(real, paths)?;
    }
    Ok(())
}

fn push(path: PathBuf, paths: &mut Vec<PathBuf>) -> Result<(), SqlError> {
    if paths.len() >= FILES_MAX {
        return Err(SqlError::new(
            ErrorCode::ResourcesExhausted,
            format!("more than {FILES_MAX} files match"),
        )
        .with_hint("load them in several statements"));
    }
    paths.push(path);
    Ok(())
}

/// The format that was named, or that every extension tells.
fn one_format(paths: &[PathBuf], named: Option<FileFormat>) -> Result<FileFormat, SqlError> {
    if let Some(named) = named {
        return Ok(named);
    }
    let mut common: Option<(FileFormat, &Path)> = None;
    for path in paths {
        let Some(format) = FileFormat::from_path(path) else {
            return Err(file_error(path, "has an extension that tells no format")
                .with_hint("add FORMAT PARQUET or FORMAT CSV"));
        };
        match common {
            Some((first, at)) if first != format => {
                return Err(SqlError::new(
                    ErrorCode::SourceFile,
                    format!(
                        "files \"{}\" and \"{}\" have different formats",
                        shown(at),
                        shown(path)
                    ),
                )
                .with_hint("add FORMAT PARQUET or FORMAT CSV, or a narrower path"));
            }
            Some(_) => {}
            None => common = Some((format, path)),
        }
    }
    common
        .map(|(format, _)| format)
        .ok_or_else(|| SqlError::new(ErrorCode::SourceFile, "no file matches"))
}
