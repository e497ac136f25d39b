//! Allow-lists: records that are known not to do what their file says, grouped by reason.
//!
//! Tab-separated, made by `basalt slt --write-known`, read by `--known`:
//!
//! ```text
//! # known failures of `basalt slt`, version 1
//! # file, class, records, lines, the first reason
//! evidence/in1.test   unsupported   3   24+40 9   This feature is not implemented: ...
//! ```
//!
//! The lines are those where records begin, as distances, so that a hundred thousand stay small:
//! `24+40` is every record from line 24 to line 64, and the `9` behind it the record at line 73.
//! A file is told by the end of its path, so that a list holds wherever the files lie.
//!
//! Not here: what becomes of a record on the list (`run`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Component, Path};

use super::class::Class;
use super::report::{FileReport, Mark};

const HEADER: &str = "# known failures of `basalt slt`, version 1\n\
     # file, class, records, lines (distance+length), the first reason\n";

/// Why an allow-list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownError {
    /// It cannot be read.
    #[error("the list of known failures {path} cannot be read: {source}")]
    Io {
        /// The list.
        path: String,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A line of it is not one.
    #[error("line {line} of the list of known failures is none: {text:?}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// An allow-list.
#[derive(Debug, Clone, Default)]
pub struct Known {
    files: BTreeMap<String, KnownFile>,
}

/// The part of an allow-list about one file.
#[derive(Debug, Clone, Default)]
pub struct KnownFile {
    /// First and last line of each stretch, sorted.
    stretches: Vec<(u32, u32)>,
}

impl KnownFile {
    /// Whether the record at a line is on the list.
    pub fn has(&self, line: u32) -> bool {
        let after = self.stretches.partition_point(|(first, _)| *first <= line);
        after > 0 && line <= self.stretches[after - 1].1
    }
}

impl Known {
    /// Reads a list.
    ///
    /// # Errors
    /// When it cannot be read, or a line is not one of a list.
    pub fn read(path: &Path) -> Result<Self, KnownError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KnownError::Io { path: path.display().to_string(), source })?;
        Self::parse(&text)
    }

    /// Reads the text of a list.
    ///
    /// # Errors
    /// When a line is not one of a list.
    pub fn parse(text: &str) -> Result<Self, KnownError> {
        let mut known = Self::default();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (file, stretches) = parse_line(line)
                .ok_or_else(|| KnownError::Line { line: index + 1, text: line.to_owned() })?;
            known.files.entry(file.to_owned()).or_default().stretches.extend(stretches);
        }
        for file in known.files.values_mut() {
            file.stretches.sort_unstable();
        }
        Ok(known)
    }

    /// The part about a file: the entry that the file's path ends with, the longest one.
    pub fn file(&self, path: &str) -> Option<&KnownFile> {
        let ends_with = |name: &str| Path::new(path).ends_with(name);
        let found = self.files.iter().filter(|(name, _)| ends_with(name));
        found.max_by_key(|(name, _)| name.len()).map(|(_, file)| file)
    }
}

fn parse_line(line: &str) -> Option<(&str, Vec<(u32, u32)>)> {
    let mut fields = line.split('\t');
    let file = fields.next()?;
    Class::parse(fields.next()?)?;
    let _records: u64 = fields.next()?.parse().ok()?;
    let mut at = 0u32;
    let mut stretches = Vec::new();
    for part in fields.next()?.split(' ') {
        let (distance, length) = part.split_once('+').unwrap_or((part, "0"));
        let first = at.checked_add(distance.parse().ok()?)?;
        at = first.checked_add(length.parse().ok()?)?;
        stretches.push((first, at));
    }
    Some((file, stretches))
}

/// The allow-list of everything that was not as expected in `reports`.
pub fn write(reports: &[FileReport]) -> String {
    let mut groups: BTreeMap<(&str, Class), Group<'_>> = BTreeMap::new();
    for report in reports {
        let mut previous: Option<&Mark> = None;
        for mark in &report.marks {
            if let Some((class, reason)) = &mark.unexpected {
                let follows = previous.is_some_and(|other| {
                    other.file == mark.file
                        && other.line <= mark.line
                        && other.unexpected.as_ref().is_some_and(|(other, _)| other == class)
                });
                let group = groups.entry((&mark.file, *class)).or_default();
                group.add(mark.line, follows, reason.as_deref());
            }
            previous = Some(mark);
        }
    }
    let root = common_folder(groups.keys().map(|(file, _)| *file));
    let mut counts: BTreeMap<Class, u64> = BTreeMap::new();
    let mut lines = String::new();
    for ((file, class), group) in &groups {
        *counts.entry(*class).or_default() += group.records;
        let file = file.get(root..).unwrap_or(file);
        let reason = group.reason.unwrap_or_default().replace('\t', " ");
        let stretches = group.text();
        let _ = writeln!(lines, "{file}\t{class}\t{}\t{stretches}\t{reason}", group.records);
    }
    let mut text = HEADER.to_owned();
    for (class, count) in counts {
        let _ = writeln!(text, "# {count} {class}");
    }
    text + &lines
}

#[derive(Default)]
struct Group<'a> {
    records: u64,
    stretches: Vec<(u32, u32)>,
    reason: Option<&'a str>,
}

impl<'a> Group<'a> {
    fn add(&mut self, line: u32, follows: bool, reason: Option<&'a str>) {
        self.records += 1;
        self.reason = self.reason.or(reason);
        match self.stretches.last_mut() {
            Some((_, last)) if follows => *last = line,
            Some((_, last)) if line > *last => self.stretches.push((line, line)),
            None => self.stretches.push((line, line)),
            // Once more, by a loop or an include.
            Some(_) => {
                let mut stretches = self.stretches.iter();
                if !stretches.any(|(first, last)| (*first..=*last).contains(&line)) {
                    self.stretches.push((line, line));
                }
            }
        }
    }

    fn text(&self) -> String {
        let mut stretches = self.stretches.clone();
        stretches.sort_unstable();
        let mut at = 0;
        let mut parts = Vec::with_capacity(stretches.len());
        for (first, last) in stretches {
            let distance = first.saturating_sub(at);
            parts.push(match last - first {
                0 => distance.to_string(),
                length => format!("{distance}+{length}"),
            });
            at = last;
        }
        parts.join(" ")
    }
}

/// How many bytes of each path are the folder that all lie in.
fn common_folder<'a>(files: impl Iterator<Item = &'a str>) -> usize {
    let folders = files.map(|file| Path::new(file).parent().unwrap_or(Path::new("")));
    let shared = folders.map(|folder| folder.components().collect::<Vec<Component<'_>>>()).reduce(
        |shared, other| {
            let same = shared.iter().zip(&other).take_while(|(a, b)| a == b).count();
            shared[..same].to_vec()
        },
    );
    let folder: std::path::PathBuf = shared.unwrap_or_default().iter().collect();
    match folder.to_string_lossy().len() {
        0 => 0,
        _ if folder.has_root() && folder.parent().is_none() => 1,
        length => length + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, marks: &[(u32, Option<Class>)]) -> FileReport {
        let mut report = FileReport::new(Path::new(name));
        let mark = |(line, class): &(u32, Option<Class>)| Mark {
            file: name.into(),
            line: *line,
            unexpected: class.map(|class| (class, Some(format!("because\t{line}")))),
        };
        report.marks = marks.iter().map(mark).collect();
        report
    }

    #[test]
    fn a_list_is_read_back_as_it_was_written() {
        let (wrong, kind) = (Some(Class::WrongResult), Some(Class::Type));
        let reports = [
            report("/x/a/1.test", &[(5, wrong), (9, wrong), (12, None), (20, wrong), (30, kind)]),
            report("/x/b/2.test", &[(1, None), (7, kind), (9, wrong), (11, kind)]),
        ];
        let text = write(&reports);
        assert!(text.contains("a/1.test\twrong-result\t3\t5+4 11\tbecause 5\n"), "{text}");
        assert!(text.contains("b/2.test\ttype\t2\t7 4\tbecause 7\n"), "{text}");
        let known = Known::parse(&text).unwrap();
        let lines = |name: &str| {
            let file = known.file(name).unwrap();
            (1..40).filter(|line| file.has(*line)).collect::<Vec<_>>()
        };
        assert_eq!(lines("/elsewhere/a/1.test"), [5, 6, 7, 8, 9, 20, 30]);
        assert_eq!(lines("b/2.test"), [7, 9, 11]);
        assert!(known.file("/x/c/1.test").is_none());
        assert!(known.file("/x/aa/1.test").is_none(), "whole names only");
    }

    #[test]
    fn a_line_that_is_none_is_named() {
        for text in ["a.test", "a.test\tnonsense\t1\t5\t", "a.test\ttype\t1\tfive\t"] {
            let error = Known::parse(&format!("# comment\n{text}\n")).unwrap_err();
            assert!(matches!(error, KnownError::Line { line: 2, .. }), "{error}");
        }
    }

    #[test]
    fn one_file_is_listed_by_its_name() {
        let text = write(&[report("/x/1.test", &[(5, Some(Class::Type))])]);
        assert!(text.contains("\n1.test\ttype"), "{text}");
    }
}
