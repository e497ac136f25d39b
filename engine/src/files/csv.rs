//! Reading CSV from outside: samples, schemas, batches.
//!
//! Invariant: a file gives all its records or an error that names file and line. Every record has
//! as many fields as the first one; a field that is not a value of its column's type is an error,
//! never NULL.
//!
//! - `records`: bytes to records
//! - `guess`: types from texts
//! - `parse`: texts to arrays

mod guess;
mod parse;
mod records;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder, StringViewBuilder};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use super::{AllowedRoots, CsvOptions, SourceFile, file_error, shown};
use crate::error::{ErrorCode, SqlError, printable};
use guess::Guess;
use records::{Record, Records};

/// Records of each file that types are guessed from.
const SAMPLE_RECORDS: usize = 10_000;

/// Bytes of each file that types are guessed from.
const SAMPLE_BYTES: u64 = 16 << 20;

/// Columns of a file at most; a file that is not CSV at all tends to have more.
const COLUMNS_MAX: usize = 20_000;

/// Bytes of text in a batch at most, so that wide rows do not make batches of gigabytes.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What the first records of a file tell.
pub(super) struct Sample {
    /// The names of its columns, in order.
    names: Vec<String>,
    /// What the texts of each column look like.
    guesses: Vec<Guess>,
}

/// Reads the first records of a file.
pub(super) fn sample(
    file: &SourceFile,
    options: &CsvOptions,
    roots: &AllowedRoots,
) -> Result<Sample, SqlError> {
    let (mut records, names, mut record, mut more) = begin(file, options, roots)?;
    let mut guesses = vec![Guess::default(); names.len()];
    for _ in 0..SAMPLE_RECORDS {
        if !more || records.bytes_read() > SAMPLE_BYTES {
            break;
        }
        check_fields(&file.path, &record, names.len())?;
        for (index, guess) in guesses.iter_mut().enumerate() {
            if let Some(text) = record.value(index, options) {
                guess.add(text_of(&file.path, &record, text)?);
            }
        }
        more = records.next(&mut record)?;
    }
    Ok(Sample { names, guesses })
}

/// Opens a file and reads its names; also gives the first record of data, if there is one.
fn begin(
    file: &SourceFile,
    options: &CsvOptions,
    roots: &AllowedRoots,
) -> Result<(Records<File>, Vec<String>, Record, bool), SqlError> {
    let mut records = Records::new(file.open(roots)?, &file.path, options);
    let mut record = Record::default();
    let mut more = records.next(&mut record)?;
    let columns = record.len();
    if columns > COLUMNS_MAX {
        let what = format_args!("has {columns} columns: at most {COLUMNS_MAX} are allowed");
        return Err(file_error(&file.path, what));
    }
    if !more {
        let what = if options.header { "is empty: not even a header" } else { "is empty" };
        return Err(file_error(&file.path, what));
    }
    if !options.header {
        let names = (1..=columns).map(|n| format!("column_{n}")).collect();
        return Ok((records, names, record, more));
    }
    let mut names = Vec::with_capacity(columns);
    let mut seen = std::collections::HashSet::new();
    for index in 0..columns {
        let bytes = record.bytes(index).unwrap_or_default();
        let name = text_of(&file.path, &record, bytes)?.trim().to_owned();
        if name.is_empty() {
            let what = format_args!("has no name for column {} in its header", index + 1);
            return Err(
                file_error(&file.path, what).with_hint("use HEADER false if it has no header")
            );
        }
        if !seen.insert(name.clone()) {
            let what = format_args!("has column \"{}\" twice in its header", printable(&name));
            return Err(file_error(&file.path, what));
        }
        names.push(name);
    }
    more = records.next(&mut record)?;
    Ok((records, names, record, more))
}

/// One schema for all files: the columns of the first, with types that fit the samples of all.
pub(super) fn merge(
    files: &[SourceFile],
    samples: Vec<Sample>,
    declared: Option<&Schema>,
) -> Result<Schema, SqlError> {
    let mut samples = files.iter().zip(samples);
    let Some((first_file, Sample { names, mut guesses })) = samples.next() else {
        return Ok(Schema::empty());
    };
    let index: HashMap<&str, usize> =
        names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    let mut differences = Vec::new();
    for (file, sample) in samples {
        let path = shown(&file.path);
        let mut found = vec![false; names.len()];
        for (name, guess) in sample.names.iter().zip(sample.guesses) {
            match index.get(name.as_str()) {
                Some(&at) => {
                    if let (Some(all), Some(found)) = (guesses.get_mut(at), found.get_mut(at)) {
                        all.merge(guess);
                        *found = true;
                    }
                }
                None => {
                    differences
                        .push(format!("column \"{}\" of \"{path}\" is extra", printable(name)));
                }
            }
        }
        let missing = names.iter().zip(&found).filter(|(_, found)| !**found);
        differences.extend(
            missing.map(|(name, _)| {
                format!("column \"{}\" is missing in \"{path}\"", printable(name))
            }),
        );
    }
    if !differences.is_empty() {
        differences.truncate(100);
        return Err(SqlError::new(
            ErrorCode::SourceFile,
            format!(
                "files have other columns than \"{}\": {}",
                shown(&first_file.path),
                differences.join("; ")
            ),
        ));
    }
    let declared: HashMap<String, &DataType> = declared
        .into_iter()
        .flat_map(Schema::fields)
        .map(|field| (field.name().to_lowercase(), field.data_type()))
        .collect();
    let fields = names.iter().zip(&guesses).map(|(name, guess)| {
        let data_type = match declared.get(&name.to_lowercase()) {
            Some(declared) => crate::types::scan_type(declared),
            None => guess.data_type(),
        };
        if parse::is_supported(&data_type) {
            return Ok(Field::new(name, data_type, true));
        }
        Err(SqlError::new(
            ErrorCode::FeatureNotSupported,
            format!("column \"{}\" has type {data_type}, which CSV cannot hold", printable(name)),
        )
        .with_hint("load it from Parquet"))
    });
    Ok(Schema::new(fields.collect::<Result<Fields, SqlError>>()?))
}

/// Reads a whole file and hands its batches to `sink` until that returns `false`.
///
/// Blocks on the disk: call it where blocking is allowed.
pub(super) fn read(
    file: &SourceFile,
    options: &CsvOptions,
    schema: &SchemaRef,
    batch_rows: usize,
    roots: &AllowedRoots,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), SqlError> {
    let (mut records, names, mut record, mut more) = begin(file, options, roots)?;
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        match names.iter().position(|name| name == field.name()) {
            Some(index) => columns.push(Column::new(index, field)),
            None => return Err(file_error(&file.path, "has changed since the statement began")),
        }
    }
    let mut lines = Vec::new();
    let mut bytes = 0_usize;
    loop {
        if more {
            check_fields(&file.path, &record, names.len())?;
            for column in &mut columns {
                let text = match record.value(column.index, options) {
                    Some(bytes) => Some(text_of(&file.path, &record, bytes)?),
                    None => None,
                };
                column.push(text);
            }
            lines.push(record.line());
            bytes += record.byte_len();
        }
        let full = lines.len() >= batch_rows.max(1) || bytes >= BATCH_BYTES_MAX;
        if !lines.is_empty() && (full || !more) {
            let arrays = columns
                .iter_mut()
                .map(|column| column.finish(&file.path, &lines))
                .collect::<Result<Vec<_>, _>>()?;
            let with_rows = RecordBatchOptions::new().with_row_count(Some(lines.len()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &with_rows)
                .map_err(|error| {
                file_error(&file.path, format_args!("cannot be read: {error}"))
            })?;
            lines.clear();
            bytes = 0;
            if !sink(batch) {
                return Ok(());
            }
        }
        if !more {
            return file.check_unchanged(records.file());
        }
        more = records.next(&mut record)?;
    }
}

fn check_fields(path: &Path, record: &Record, expected: usize) -> Result<(), SqlError> {
    if record.len() == expected {
        return Ok(());
    }
    let (found, line) = (record.len(), record.line());
    Err(file_error(path, format_args!("line {line}: {found} fields where {expected} are expected"))
        .with_hint("check DELIMITER and QUOTE"))
}

fn text_of<'a>(path: &Path, record: &Record, bytes: &'a [u8]) -> Result<&'a str, SqlError> {
    std::str::from_utf8(bytes).map_err(|_| {
        file_error(path, format_args!("line {}: text is not valid UTF-8", record.line()))
            .with_hint("convert the file to UTF-8")
    })
}

/// Values of one column on their way to an array.
struct Column {
    /// Which field of a record.
    index: usize,
    field: Arc<Field>,
    texts: Texts,
}

enum Texts {
    /// Text stays text.
    Final(StringViewBuilder),
    /// Text to be parsed.
    Raw(StringBuilder),
}

impl Column {
    fn new(index: usize, field: &Arc<Field>) -> Self {
        let texts = match field.data_type() {
            DataType::Utf8View => Texts::Final(StringViewBuilder::new()),
            _ => Texts::Raw(StringBuilder::new()),
        };
        Self { index, field: Arc::clone(field), texts }
    }

    fn push(&mut self, text: Option<&str>) {
        match &mut self.texts {
            Texts::Final(builder) => builder.append_option(text),
            Texts::Raw(builder) => builder.append_option(text),
        }
    }

    fn finish(&mut self, path: &Path, lines: &[u64]) -> Result<ArrayRef, SqlError> {
        let texts = match &mut self.texts {
            Texts::Final(builder) => return Ok(Arc::new(builder.finish())),
            Texts::Raw(builder) => builder.finish(),
        };
        parse::parse(&texts, self.field.data_type()).map_err(|bad| {
            let line = lines.get(bad.row).copied().unwrap_or_default();
            let name = printable(self.field.name());
            let text: String = bad.text.chars().take(60).collect();
            let mut error = file_error(
                path,
                format_args!(
                    "line {line}, column \"{name}\": \"{}\" {}",
                    printable(&text),
                    bad.reason
                ),
            )
            .with_hint(
                "create the table with other column types, or name the text of NULL: NULL 'text'",
            );
            error.code = ErrorCode::DataException;
            error
        })
    }
}
