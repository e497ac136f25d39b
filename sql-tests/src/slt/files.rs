//! Finding the files that a command line names.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

/// The endings of sqllogictest files: ours, and SQLite's own.
const EXTENSIONS: [&str; 2] = ["slt", "test"];

/// Why the files cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A pattern is not one.
    #[error("{pattern:?} is not a file pattern: {source}")]
    Pattern {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// A path names nothing.
    #[error("{pattern} matches no .slt or .test file")]
    Empty {
        /// The path or pattern.
        pattern: String,
    },
    /// A folder cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Io {
        /// The folder or file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The files behind `patterns`, sorted and each once: files as they are, folders with every
/// `.slt` and `.test` file below them, and globs (`**` crosses folders).
///
/// # Errors
/// A pattern that matches nothing is an error, so that a typing mistake cannot pass for success.
pub fn find_files(patterns: &[String]) -> Result<Vec<PathBuf>, FilesError> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let before = files.len();
        let path = Path::new(pattern);
        let mut found = false;
        if is_there(path)? {
            found |= collect(path, true, &mut files)?;
        } else {
            let matches = glob::glob(pattern)
                .map_err(|source| FilesError::Pattern { pattern: pattern.clone(), source })?;
            for path in matches {
                let path = path.map_err(|error| FilesError::Io {
                    path: error.path().to_owned(),
                    source: error.into(),
                })?;
                found |= collect(&path, true, &mut files)?;
            }
        }
        if !found && files.len() == before {
            return Err(FilesError::Empty { pattern: pattern.clone() });
        }
    }
    Ok(files.into_iter().collect())
}

fn is_there(path: &Path) -> Result<bool, FilesError> {
    path.try_exists().map_err(|source| FilesError::Io { path: path.to_owned(), source })
}

/// Adds a file, or the test files below a folder. A file that was named is taken whatever its
/// ending. Returns whether there was any.
fn collect(path: &Path, named: bool, files: &mut BTreeSet<PathBuf>) -> Result<bool, FilesError> {
    let io_error = |source| FilesError::Io { path: path.to_owned(), source };
    if !path.is_dir() {
        let is_test = path.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known));
        if named || is_test {
            files.insert(path.to_owned());
        }
        return Ok(named || is_test);
    }
    let mut found = false;
    for entry in std::fs::read_dir(path).map_err(io_error)? {
        found |= collect(&entry.map_err(io_error)?.path(), false, files)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &[PathBuf]) -> Vec<String> {
        found.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn folders_globs_and_files_are_found_once_each() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        for path in [folder.path().join("b.slt"), below.join("a.test"), below.join("notes.md")] {
            std::fs::write(path, "").unwrap();
        }
        let root = folder.path().to_string_lossy().into_owned();
        let patterns = [root.clone(), format!("{root}/*.slt"), format!("{root}/b.slt")];
        assert_eq!(names(&find_files(&patterns).unwrap()), ["b.slt", "a.test"]);
        let named = find_files(&[format!("{root}/below/notes.md")]).unwrap();
        assert_eq!(names(&named), ["notes.md"], "a named file is taken whatever its ending");
    }

    #[test]
    fn a_path_that_names_nothing_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_string_lossy().into_owned();
        for pattern in [root.clone(), format!("{root}/none.slt"), format!("{root}/*.slt")] {
            let error = find_files(std::slice::from_ref(&pattern)).unwrap_err();
            assert!(matches!(error, FilesError::Empty { .. }), "{pattern}: {error}");
        }
    }
}
