//! Reading Parquet from outside: the schema of a file, and a run of its rows.
//!
//! Invariant: a unit gives exactly its rows or an error. A file made to break readers gives an
//! error about that file: panics of the decoder are caught here. Statistics of foreign files are
//! never used, because they may lie.
//!
//! - `form`: the types that columns are decoded in and handed out as
//! - `twelve_bytes`: what the parquet crate decodes with loss
//! - `pages`: a bound on what pages become in memory

mod form;
mod pages;
mod twelve_bytes;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, CastOptions, cast_with_options};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};

use super::{AllowedRoots, SourceFile, file_error};
use crate::error::{ErrorCode, SqlError, printable};
use pages::BoundedFile;

/// How deep lists, structs and maps of a file may nest: bounds the recursion over types.
const TYPE_DEPTH_MAX: usize = 24;

/// Values of a batch at most, so that a batch of ten thousand columns is not half a gigabyte.
const BATCH_VALUES_MAX: usize = 2 << 20;

/// A file's columns in scan form, and its rows.
pub(super) fn describe(
    file: &SourceFile,
    roots: &AllowedRoots,
) -> Result<(SchemaRef, u64), SqlError> {
    let open = ParquetFile::open(&file.path, file.open(roots)?)?;
    Ok((open.schema, open.rows))
}

/// What one call reads.
pub(super) struct ReadRows<'a> {
    /// The file.
    pub(super) file: &'a SourceFile,
    /// How many rows the file had when it was described.
    pub(super) file_rows: u64,
    /// The rows to read.
    pub(super) rows: Range<u64>,
    /// The columns to read, in the form of the set's schema.
    pub(super) schema: &'a SchemaRef,
    /// Rows of a batch at most.
    pub(super) batch_rows: usize,
}

/// Reads rows and hands them to `sink` until that returns `false`.
///
/// Blocks on the disk: call it where blocking is allowed.
pub(super) fn read(
    request: &ReadRows<'_>,
    roots: &AllowedRoots,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<(), SqlError> {
    let open = ParquetFile::open(&request.file.path, request.file.open(roots)?)?;
    if open.rows != request.file_rows {
        return Err(changed(&open.path));
    }
    if open.read(request.rows.clone(), request.schema, request.batch_rows, sink)? {
        request.file.check_unchanged(&open.handle)?;
    }
    Ok(())
}

/// One Parquet file from outside, its footer read.
///
/// Which files may be opened is for the caller to decide.
#[derive(Debug)]
pub struct ParquetFile {
    path: PathBuf,
    handle: File,
    metadata: ArrowReaderMetadata,
    schema: SchemaRef,
    rows: u64,
}

impl ParquetFile {
    /// Reads the footer of an open file; `path` is what messages call it.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::SourceFile`] when it is not Parquet, has a column twice or nests too deep.
    pub fn open(path: &Path, handle: File) -> Result<Self, SqlError> {
        let metadata = load(path, &handle)?;
        let fields = metadata.schema().fields();
        let mut names = HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
            let name = printable(twice.name());
            return Err(file_error(path, format_args!("has more than one column \"{name}\"")));
        }
        let too_deep =
            fields.iter().find(|f| form::check_depth(f.data_type(), TYPE_DEPTH_MAX).is_none());
        if let Some(field) = too_deep {
            let name = printable(field.name());
            return Err(file_error(
                path,
                format_args!("has a column \"{name}\" that nests more than {TYPE_DEPTH_MAX} types"),
            ));
        }
        let schema = Schema::new(fields.iter().map(|f| form::set_form(f)).collect::<Fields>());
        let rows = rows_of(path, metadata.metadata())?;
        Ok(Self { path: path.to_owned(), handle, metadata, schema: Arc::new(schema), rows })
    }

    /// The columns: a form that depends on the logical types alone, not on the writer.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads rows and hands them to `sink` until that returns `false`; whether it was read to the
    /// end of `rows`. The columns of `schema` are some of [`Self::schema`] in any order, or those
    /// with types that theirs can be cast to.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::SourceFile`] when the file is damaged or lacks a column.
    pub fn read(
        &self,
        rows: Range<u64>,
        schema: &SchemaRef,
        batch_rows: usize,
        sink: &mut dyn FnMut(RecordBatch) -> bool,
    ) -> Result<bool, SqlError> {
        let path = &self.path;
        let rows = rows.start..rows.end.max(rows.start);
        let batch_rows = batch_rows.min(BATCH_VALUES_MAX / schema.fields().len().max(1)).max(1);
        let decoding = guarded(path, || Decoding::new(self, schema))??;
        // Row groups of a few rows each must not make batches of a few rows each.
        let mut small = BatchCoalescer::new(Arc::clone(schema), batch_rows);
        let parts = parts(&rows, decoding.metadata.metadata());
        if parts.iter().map(|part| part.take as u64).sum::<u64>() != rows.end - rows.start {
            return Err(changed(path));
        }
        for part in parts {
            let mut reader = guarded(path, || decoding.open(self, &part, batch_rows))??;
            let positions = positions(path, &reader, schema)?;
            let is_small = part.take < batch_rows / 2;
            if !is_small && !flush(path, &mut small, sink)? {
                return Ok(false);
            }
            let mut read = 0_usize;
            while let Some(batch) = guarded(path, || reader.next())? {
                let batch = batch.map_err(|error| damaged(path, &error))?;
                read += batch.num_rows();
                let batch = to_set_form(path, &batch, schema, &positions)?;
                let wanted = match is_small {
                    true => {
                        small.push_batch(batch).map_err(|error| damaged(path, &error))?;
                        small.next_completed_batch().is_none_or(&mut *sink)
                    }
                    false => sink(batch),
                };
                if !wanted {
                    return Ok(false);
                }
            }
            if read != part.take {
                let (group, wanted) = (part.group, part.take);
                return Err(file_error(
                    path,
                    format_args!(
                        "is damaged: row group {group} gives {read} rows where {wanted} are promised"
                    ),
                ));
            }
        }
        flush(path, &mut small, sink)
    }
}

/// Hands on the rows of small row groups that were waiting for more; whether more are wanted.
fn flush(
    path: &Path,
    small: &mut BatchCoalescer,
    sink: &mut dyn FnMut(RecordBatch) -> bool,
) -> Result<bool, SqlError> {
    small.finish_buffered_batch().map_err(|error| damaged(path, &error))?;
    while let Some(batch) = small.next_completed_batch() {
        if !sink(batch) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How some columns of a file are decoded.
struct Decoding {
    metadata: ArrowReaderMetadata,
    columns: ProjectionMask,
}

impl Decoding {
    fn new(file: &ParquetFile, schema: &Schema) -> Result<Self, SqlError> {
        let damaged = |error| damaged(&file.path, &error);
        let plain = match twelve_bytes::as_bytes(file.metadata.metadata()).map_err(damaged)? {
            Some(footer) => {
                let footer = Arc::new(footer);
                let read = |options| ArrowReaderMetadata::try_new(Arc::clone(&footer), options);
                // As in `load`.
                let skipped = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
                read(ArrowReaderOptions::new()).or_else(|_| read(skipped)).map_err(damaged)?
            }
            None => file.metadata.clone(),
        };
        let own = plain.schema();
        let decoded = Schema::new_with_metadata(
            own.fields().iter().map(form::file_form).collect::<Fields>(),
            own.metadata().clone(),
        );
        let options = ArrowReaderOptions::new().with_schema(Arc::new(decoded));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options);
        let metadata = metadata.map_err(damaged)?;
        let names: HashSet<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let indices = (0..).zip(own.fields()).filter(|(_, field)| names.contains(field.name()));
        let roots = indices.map(|(index, _)| index);
        let columns = ProjectionMask::roots(metadata.parquet_schema(), roots);
        Ok(Self { metadata, columns })
    }

    /// A reader over rows of one row group.
    ///
    /// Of one, because the decoder of a column goes on with the next row group when a page of this
    /// one holds fewer values than it should: rows would get values of their neighbours.
    fn open(
        &self,
        file: &ParquetFile,
        part: &Part,
        batch_rows: usize,
    ) -> Result<ParquetRecordBatchReader, SqlError> {
        let handle = file
            .handle
            .try_clone()
            .map_err(|error| file_error(&file.path, format_args!("cannot be read: {error}")))?;
        let bounded = BoundedFile::new(handle, self.metadata.metadata(), part.group);
        let mut builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(bounded, self.metadata.clone())
                .with_projection(self.columns.clone())
                .with_row_groups(vec![part.group])
                .with_batch_size(batch_rows);
        if part.take < part.rows {
            builder = builder.with_row_selection(RowSelection::from(vec![
                RowSelector::skip(part.skip),
                RowSelector::select(part.take),
                RowSelector::skip(part.rows - part.skip - part.take),
            ]));
        }
        builder.build().map_err(|error| damaged(&file.path, &error))
    }
}

/// Where in the reader's batches each column of `schema` is.
fn positions(
    path: &Path,
    reader: &ParquetRecordBatchReader,
    schema: &Schema,
) -> Result<Vec<usize>, SqlError> {
    use arrow::array::RecordBatchReader;
    let decoded = reader.schema();
    let by_name: HashMap<&String, usize> =
        decoded.fields().iter().map(|field| field.name()).zip(0..).collect();
    let position = |name| by_name.get(name).copied().ok_or_else(|| changed(path));
    schema.fields().iter().map(|field| position(field.name())).collect()
}

fn changed(path: &Path) -> SqlError {
    file_error(path, "has changed since the statement began")
}

/// What is read of one row group.
#[derive(Debug)]
struct Part {
    group: usize,
    /// Rows of the group before the first that is read.
    skip: usize,
    /// Rows that are read, at least one.
    take: usize,
    /// Rows of the group.
    rows: usize,
}

/// The row groups that hold some of the rows, in order.
fn parts(rows: &Range<u64>, metadata: &ParquetMetaData) -> Vec<Part> {
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    let mut start = 0_u64;
    for (group, data) in metadata.row_groups().iter().enumerate() {
        let end = start + u64::try_from(data.num_rows()).unwrap_or_default();
        let (first, last) = (start.max(rows.start), end.min(rows.end));
        if first < last {
            parts.push(Part {
                group,
                skip: count(first - start),
                take: count(last - first),
                rows: count(end - start),
            });
        }
        start = end;
    }
    parts
}

/// Puts the columns of a batch, which are at `positions`, in the order and types of `schema`.
fn to_set_form(
    path: &Path,
    batch: &RecordBatch,
    schema: &SchemaRef,
    positions: &[usize],
) -> Result<RecordBatch, SqlError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = positions.iter().zip(schema.fields()).map(|(position, field)| {
        let (array, to) = (batch.column(*position), field.data_type());
        if array.data_type() == to {
            return Ok(Arc::clone(array));
        }
        let decoded = twelve_bytes::decode(array, to);
        decoded.and_then(|array| cast_with_options(&array, to, &options)).map_err(|error| {
            match error {
                ArrowError::ComputeError(what) => {
                    let name = printable(field.name());
                    file_error(path, format_args!("cannot be read: column \"{name}\" {what}"))
                }
                error => damaged(path, &error),
            }
        })
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>, SqlError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| damaged(path, &error))
}

/// Reads the footer; an Arrow schema in it that cannot be used is left aside.
fn load(path: &Path, file: &File) -> Result<ArrowReaderMetadata, SqlError> {
    let with_arrow_schema =
        guarded(path, || ArrowReaderMetadata::load(file, ArrowReaderOptions::new()));
    if let Ok(Ok(metadata)) = with_arrow_schema {
        return Ok(metadata);
    }
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    guarded(path, || ArrowReaderMetadata::load(file, options))?
        .map_err(|error| damaged(path, &error))
}

fn rows_of(path: &Path, metadata: &ParquetMetaData) -> Result<u64, SqlError> {
    let wrong = || file_error(path, "is damaged: its row counts are impossible");
    let mut rows = 0_u64;
    for group in metadata.row_groups() {
        let group_rows = u64::try_from(group.num_rows()).map_err(|_| wrong())?;
        rows = rows.checked_add(group_rows).ok_or_else(wrong)?;
        // A column without lists has one value for each row, NULLs included.
        let is_flat = |c: &&ColumnChunkMetaData| c.column_descr().max_rep_level() == 0;
        let flat = group.columns().iter().filter(is_flat);
        if flat.map(|column| column.num_values()).any(|values| values != group.num_rows()) {
            return Err(wrong());
        }
    }
    let declared = u64::try_from(metadata.file_metadata().num_rows()).map_err(|_| wrong())?;
    if declared == rows { Ok(rows) } else { Err(wrong()) }
}

/// Runs a piece of the decoder; a panic in it means that the file broke it.
fn guarded<T>(path: &Path, run: impl FnOnce() -> T) -> Result<T, SqlError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| file_error(path, "is damaged: it cannot be decoded"))
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> SqlError {
    let text = error.to_string();
    // What Parquet's errors begin with says which layer spoke, not what is wrong.
    let what = ["Parquet error: ", "Arrow: ", "EOF: ", "External: ", "Parquet argument error: "]
        .iter()
        .fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    let code = ErrorCode::SourceFile;
    let what: String = what.chars().take(300).collect();
    let mut sql = file_error(path, format_args!("is not valid Parquet: {}", printable(&what)));
    sql.code = code;
    sql
}
