//! A file as records in reading order, includes in their places.
//!
//! ```text
//! text --dialect--> directives the crate knows --sqllogictest::parse--> records + own lines
//! ```

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqllogictest::{Condition, Record};

use super::dialect::Dialect;
use super::engine::SltType;
use super::needs::{Excluded, Scan};
use super::report::Failure;
use super::{conditions, duckdb};

/// Files within files: more is a file that includes itself.
const INCLUDE_DEPTH_MAX: usize = 16;

/// A record and where it stands.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) record: Record<SltType>,
    pub(super) file: Arc<str>,
    pub(super) line: u32,
    /// Whether failing is as good (`statement maybe`).
    pub(super) may_fail: bool,
    /// DataFusion's dialect: why it is left out of the judgement.
    pub(super) excluded: Option<Excluded>,
}

/// A file, read.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) dialect: Dialect,
    pub(super) records: Vec<Placed>,
    /// Why no record of it can run here.
    pub(super) skip: Option<String>,
    /// Whether each record of the file stands there once: nothing was repeated by a loop.
    pub(super) is_verbatim: bool,
}

/// Reads a file and those it includes; the dialect is the root's.
pub(super) fn read(
    path: &Path,
    dialect: Option<Dialect>,
    labels: &[String],
) -> Result<Source, Failure> {
    let name = path.to_str().ok_or_else(|| {
        let shown = path.display().to_string();
        Failure::new(shown, 0, "the file's name is not UTF-8: rename it")
    })?;
    let text = text_of(name)?;
    let dialect = dialect.unwrap_or_else(|| Dialect::detect(&text));
    let mut source = Source { dialect, records: Vec::new(), skip: None, is_verbatim: true };
    append(&mut source, name, &text, labels, 0)?;
    if dialect == Dialect::DataFusion {
        let mut scan = Scan::new(path);
        for placed in source.records.iter_mut().filter(|placed| counts(&placed.record)) {
            placed.excluded = scan.next(&placed.record);
        }
    }
    Ok(source)
}

fn text_of(name: &str) -> Result<String, Failure> {
    std::fs::read_to_string(name)
        .map_err(|error| Failure::new(name, 0, format!("the file cannot be read: {error}")))
}

fn append(
    source: &mut Source,
    name: &str,
    text: &str,
    labels: &[String],
    depth: usize,
) -> Result<(), Failure> {
    let mut expanded = duckdb::Expanded::default();
    let prepared = if source.dialect == Dialect::DuckDb {
        expanded = duckdb::expand(text).map_err(|(line, why)| Failure::new(name, line, why))?;
        source.is_verbatim &= expanded.is_verbatim;
        if source.skip.is_none() {
            source.skip.clone_from(&expanded.skip);
        }
        conditions::settle(&expanded.text, labels)
    } else {
        conditions::settle(text, labels)
    };
    let file: Arc<str> = name.into();
    let records =
        sqllogictest::parse_with_name::<SltType>(&prepared, file.clone()).map_err(|e| {
            Failure::new(name, expanded.line(e.location().line()), e.kind().to_string())
        })?;
    for record in records {
        let generated = line_of(&record);
        let line = expanded.line(generated);
        let include = match &record {
            Record::Include { filename, .. } => Some(filename.clone()),
            _ => None,
        };
        let may_fail = expanded.may_fail.contains(&generated);
        let excluded = None;
        source.records.push(Placed { record, file: file.clone(), line, may_fail, excluded });
        if let Some(pattern) = include {
            let failure = |text: String| Failure::new(name, line, text);
            if depth == INCLUDE_DEPTH_MAX {
                return Err(failure(format!("files include each other {depth} deep")));
            }
            for path in included(name, &pattern).map_err(failure)? {
                append(source, &path, &text_of(&path)?, labels, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// The files behind an `include`, relative to the file that says so.
fn included(name: &str, pattern: &str) -> Result<Vec<String>, String> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    // Without `./`: lists of known failures tell files by the ends of their paths.
    let full: PathBuf = folder.join(pattern).components().collect();
    let full = full.to_string_lossy().into_owned();
    let paths: Result<Vec<_>, _> =
        glob::glob(&full).map_err(|error| format!("include {pattern}: {error}"))?.collect();
    let paths = paths.map_err(|error| format!("include {pattern}: {error}"))?;
    if paths.is_empty() {
        return Err(format!("include {pattern} names no file"));
    }
    Ok(paths.iter().map(|path| path.to_string_lossy().into_owned()).collect())
}

fn line_of(record: &Record<SltType>) -> u32 {
    match record {
        Record::Include { loc, .. }
        | Record::Statement { loc, .. }
        | Record::Query { loc, .. }
        | Record::System { loc, .. }
        | Record::Let { loc, .. }
        | Record::Sleep { loc, .. }
        | Record::Subtest { loc, .. }
        | Record::Halt { loc }
        | Record::HashThreshold { loc, .. } => loc.line(),
        _ => 0,
    }
}

/// Whether a record is counted: statements, queries, system commands and `let` are.
pub(super) fn counts(record: &Record<SltType>) -> bool {
    matches!(
        record,
        Record::Statement { .. }
            | Record::Query { .. }
            | Record::System { .. }
            | Record::Let { .. }
    )
}

/// Whether the conditions of a record leave it out under `labels`.
pub(super) fn is_left_out(record: &Record<SltType>, labels: &HashSet<String>) -> bool {
    let (Record::Statement { conditions, .. }
    | Record::Query { conditions, .. }
    | Record::System { conditions, .. }
    | Record::Let { conditions, .. }) = record
    else {
        return false;
    };
    conditions.iter().any(|condition| match condition {
        Condition::OnlyIf { label } => !labels.contains(label),
        Condition::SkipIf { label } => labels.contains(label),
    })
}

/// The SQL of a record, before substitution.
pub(super) fn sql(record: &Record<SltType>) -> &str {
    match record {
        Record::Statement { sql, .. } | Record::Query { sql, .. } | Record::Let { sql, .. } => sql,
        Record::System { command, .. } => command,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(files: &[(&str, &str)]) -> Result<Source, Failure> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        read(&folder.path().join(files[0].0), None, &["basalt".to_owned()])
    }

    fn places(source: &Source) -> Vec<(String, u32)> {
        let counted = source.records.iter().filter(|placed| counts(&placed.record));
        counted
            .map(|placed| {
                let name = Path::new(&*placed.file).file_name().unwrap();
                (name.to_string_lossy().into_owned(), placed.line)
            })
            .collect()
    }

    #[test]
    fn includes_stand_where_they_are_named() {
        let files = [
            ("a.slt", "include ./b.slt\n\nstatement ok\nSELECT 1\n"),
            ("b.slt", "\nstatement ok\nSELECT 2\n"),
        ];
        let source = read_all(&files).unwrap();
        assert_eq!(places(&source), [("b.slt".to_owned(), 2), ("a.slt".to_owned(), 3)]);
        assert!(!source.records.iter().any(|placed| placed.file.contains("/./")), "{source:?}");
    }

    #[test]
    fn a_file_that_includes_itself_is_refused() {
        let error = read_all(&[("a.slt", "include a.slt\n")]).unwrap_err();
        assert!(error.text.contains("include each other"), "{error:?}");
        let error = read_all(&[("a.slt", "include none.slt\n")]).unwrap_err();
        assert!(error.text.contains("names no file"), "{error:?}");
    }

    #[test]
    fn what_cannot_be_read_has_file_and_line() {
        let error = read_all(&[("a.slt", "\n\nstatement perhaps\nSELECT 1\n")]).unwrap_err();
        assert_eq!(error.line, 3, "{error:?}");
        let error = read(Path::new("/none/a.slt"), None, &[]).unwrap_err();
        assert!(error.text.contains("cannot be read"), "{error:?}");
    }
}
