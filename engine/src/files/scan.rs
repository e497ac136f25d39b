//! A set of files described: one schema, the rows of each file, and how to split them.
//!
//! Invariant: [`FileScan::split`] is pure, and every row of the set is in exactly one unit of
//! exactly one partition of exactly one task.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};

use super::{AllowedRoots, CsvOptions, FileFormat, FileSet, SourceFile, csv, parquet, shown};
use crate::error::{ErrorCode, SqlError, printable};

/// Differences between files that one error lists; the rest is counted.
const DIFFERENCES_SHOWN: usize = 100;

/// Files described at the same time: enough to hide the latency of disks.
const DESCRIBE_THREADS: usize = 8;

/// A file and how many rows it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScannedFile {
    /// The file.
    pub source: SourceFile,
    /// Its rows; `None` for CSV, which would have to be read to know.
    pub rows: Option<u64>,
}

/// What one task reads at a time: a run of rows of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unit {
    /// Index of the file in [`FileScan::files`].
    pub file: usize,
    /// The first row.
    pub first_row: u64,
    /// How many rows; `None` means the whole file, however many there are (CSV).
    pub rows: Option<u64>,
}

/// A set of files with one schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileScan {
    /// What the files are.
    pub format: FileFormat,
    /// How CSV is written.
    pub csv: CsvOptions,
    /// Their columns, strings and bytes as views, every field nullable.
    pub schema: SchemaRef,
    /// The files, sorted by path.
    pub files: Vec<ScannedFile>,
}

impl FileScan {
    /// Reads what is needed to know the schema: footers of Parquet, samples of CSV.
    ///
    /// Files of a Parquet set must have the same columns with the same types, in any order and
    /// nullability. Types of CSV columns are taken from `declared` by name (`COPY` hands the
    /// table's columns in) and guessed from the first records otherwise. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::SourceFile`] when a file cannot be read or is not what it should be, or when
    /// files differ: one error that lists every difference.
    pub fn open(
        set: FileSet,
        options: &CsvOptions,
        declared: Option<&Schema>,
        roots: &AllowedRoots,
    ) -> Result<Self, SqlError> {
        let FileSet { format, files } = set;
        let (schema, rows) = match format {
            FileFormat::Parquet => {
                let described = in_parallel(&files, |file| parquet::describe(file, roots))?;
                let schema =
                    one_schema(&files, described.iter().map(|(schema, _)| schema.as_ref()))?;
                (schema, described.into_iter().map(|(_, rows)| Some(rows)).collect())
            }
            FileFormat::Csv => {
                let samples = in_parallel(&files, |file| csv::sample(file, options, roots))?;
                let schema = csv::merge(&files, samples, declared)?;
                (schema, vec![None; files.len()])
            }
        };
        let rows: Vec<Option<u64>> = rows;
        let files = files
            .into_iter()
            .zip(rows)
            .map(|(source, rows)| ScannedFile { source, rows })
            .collect();
        Ok(Self { format, csv: options.clone(), schema: Arc::new(schema), files })
    }

    /// The rows of all files, when they are known.
    pub fn rows(&self) -> Option<u64> {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Bytes of all files on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.source.bytes).sum()
    }

    /// Splits the rows evenly: `result[task][partition]` are the units of one partition.
    ///
    /// Parquet is cut anywhere between rows, so that no partition has more than one row more
    /// than another. CSV goes by whole files, the largest first to the emptiest partition.
    pub fn split(&self, tasks: usize, partitions: usize) -> Vec<Vec<Vec<Unit>>> {
        let (tasks, partitions) = (tasks.max(1), partitions.max(1));
        let bins = tasks.saturating_mul(partitions);
        let mut units = match self.rows() {
            Some(rows) => self.split_rows(rows, bins),
            None => self.split_files(bins),
        }
        .into_iter();
        (0..tasks).map(|_| units.by_ref().take(partitions).collect()).collect()
    }

    fn split_rows(&self, rows: u64, bins: usize) -> Vec<Vec<Unit>> {
        // In 128 bits, because rows x bins may not fit in 64.
        let boundary = |bin: usize| {
            let at = u128::from(rows) * (bin as u128) / (bins as u128);
            u64::try_from(at).unwrap_or(rows)
        };
        let mut files = self.files.iter().enumerate();
        let mut current = files.next();
        let mut used = 0_u64; // rows of the current file that are in a unit already
        (0..bins)
            .map(|bin| {
                let mut wanted = boundary(bin + 1) - boundary(bin);
                let mut units = Vec::new();
                while wanted > 0 {
                    let Some((file, scanned)) = current else { break };
                    let left = scanned.rows.unwrap_or_default() - used;
                    let rows = left.min(wanted);
                    if rows > 0 {
                        units.push(Unit { file, first_row: used, rows: Some(rows) });
                        used += rows;
                        wanted -= rows;
                    }
                    if rows == left {
                        current = files.next();
                        used = 0;
                    }
                }
                units
            })
            .collect()
    }

    fn split_files(&self, bins: usize) -> Vec<Vec<Unit>> {
        let mut by_size: Vec<usize> = (0..self.files.len()).collect();
        let bytes = |file: &usize| self.files.get(*file).map_or(0, |f| f.source.bytes);
        by_size.sort_by_key(|file| (std::cmp::Reverse(bytes(file)), *file));
        let mut filled: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); bins];
        for file in by_size {
            let emptiest = filled.iter_mut().min_by_key(|(bytes, files)| (*bytes, files.len()));
            if let Some((total, files)) = emptiest {
                *total += bytes(&file);
                files.push(file);
            }
        }
        let unit = |file| Unit { file, first_row: 0, rows: None };
        filled
            .into_iter()
            .map(|(_, mut files)| {
                files.sort_unstable();
                files.into_iter().map(unit).collect()
            })
            .collect()
    }
}

/// Runs `describe` on every file, some at a time; results in the order of the files. The error
/// is that of the first file in order that has one, so that it is the same every time.
fn in_parallel<T: Send>(
    files: &[SourceFile],
    describe: impl Fn(&SourceFile) -> Result<T, SqlError> + Sync,
) -> Result<Vec<T>, SqlError> {
    let per_thread = files.len().div_ceil(DESCRIBE_THREADS).max(1);
    let describe = &describe;
    let results: Vec<Result<Vec<T>, SqlError>> = std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .chunks(per_thread)
            .map(|files| scope.spawn(move || files.iter().map(describe).collect()))
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| {
                Err(SqlError::new(ErrorCode::Internal, "internal error: reading a file panicked"))
            })
        });
        joined.collect()
    });
    let mut all = Vec::with_capacity(files.len());
    for result in results {
        all.extend(result?);
    }
    Ok(all)
}

/// The first file's schema, if all others have the same columns. A column without any type in
/// some files, because all its values are NULL there, has that of the others.
fn one_schema<'a>(
    files: &[SourceFile],
    schemas: impl Iterator<Item = &'a Schema>,
) -> Result<Schema, SqlError> {
    let mut pairs = files.iter().zip(schemas);
    let Some((first_file, first)) = pairs.next() else { return Ok(Schema::empty()) };
    let mut expected: HashMap<&String, &FieldRef> =
        first.fields().iter().map(|field| (field.name(), field)).collect();
    let mut differences = Vec::new();
    for (file, schema) in pairs {
        let path = shown(&file.path);
        for field in schema.fields() {
            let (name, data_type) = (printable(field.name()), field.data_type());
            match expected.get_mut(field.name()) {
                Some(known) if known.data_type() == data_type => {}
                Some(_) if *data_type == DataType::Null => {}
                Some(known) if *known.data_type() == DataType::Null => *known = field,
                Some(known) => differences.push(format!(
                    "column \"{name}\" of \"{path}\" is {data_type}, not {}",
                    known.data_type()
                )),
                None => differences.push(format!("column \"{name}\" of \"{path}\" is extra")),
            }
        }
        if schema.fields().len() < expected.len() || !differences.is_empty() {
            let found: HashSet<&String> = schema.fields().iter().map(|f| f.name()).collect();
            let missing = first.fields().iter().filter(|f| !found.contains(f.name()));
            differences.extend(missing.map(|field| {
                format!("column \"{}\" is missing in \"{path}\"", printable(field.name()))
            }));
        }
    }
    if differences.is_empty() {
        let typed = first.fields().iter().filter_map(|field| expected.get(field.name()));
        return Ok(Schema::new(typed.map(|field| Arc::clone(field)).collect::<Fields>()));
    }
    let more = differences.len().saturating_sub(DIFFERENCES_SHOWN);
    differences.truncate(DIFFERENCES_SHOWN);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(SqlError::new(
        ErrorCode::SourceFile,
        format!(
            "files have other columns than \"{}\": {}{rest}",
            shown(&first_file.path),
            differences.join("; ")
        ),
    )
    .with_hint("read files with equal columns together, the others in a statement of their own"))
}
