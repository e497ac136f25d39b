//! Reading Parquet from outside: the schema of a file, and a run of its rows.
//!
//! Invariant: a unit gives exactly its rows or an error. A file made to break readers gives an
//! error about that file: panics of the decoder are caught here. Statistics of foreign files are
//! never used, because they may lie.

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection,
    RowSelector,
};
use parquet::file::metadata::ParquetMetaData;

use super::{AllowedRoots, SourceFile, file_error};
use crate::error::{ErrorCode, SqlError, printable};

/// How deep lists, structs and maps of a file may nest: bounds the recursion over types.
const TYPE_DEPTH_MAX: usize = 24;

/// A file's columns in scan form, and its rows.
pub(super) fn describe(file: &SourceFile, roots: &AllowedRoots) -> Result<(Schema, u64), SqlError> {
    let handle = file.open(roots)?;
    let metadata = load(&file.path, &handle)?;
    let fields = metadata.schema().fields();
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = fields.iter().find(|field| !names.insert(field.name())) {
        let name = printable(twice.name());
        return Err(file_error(&file.path, format_args!("has more than one column \"{name}\"")));
    }
    let scan_form = |field: &FieldRef| {
        check_depth(field.data_type(), TYPE_DEPTH_MAX).ok_or_else(|| {
            let name = printable(field.name());
            let what =
                format!("has a column \"{name}\" that nests more than {TYPE_DEPTH_MAX} types");
            file_error(&file.path, what)
        })?;
        let data_type = convert_type(field.data_type(), Form::Set, true);
        Ok(Arc::new(Field::new(field.name(), data_type, true)))
    };
    let fields = fields.iter().map(scan_form).collect::<Result<Fields, SqlError>>()?;
    Ok((Schema::new(fields), rows_of(&file.path, metadata.metadata())?))
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
    let handle = request.file.open(roots)?;
    let path = &request.file.path;
    let metadata = load(path, &handle)?;
    if rows_of(path, metadata.metadata())? != request.file_rows {
        return Err(file_error(path, "has changed since the statement began"));
    }
    let clone = handle
        .try_clone()
        .map_err(|error| file_error(path, format_args!("cannot be read: {error}")))?;
    let mut reader = guarded(path, || open_rows(request, metadata, clone))??;
    let wanted = request.rows.end - request.rows.start;
    let mut read = 0_u64;
    while let Some(batch) = guarded(path, || reader.next())? {
        let batch = batch.map_err(|error| damaged(path, &error))?;
        read += batch.num_rows() as u64;
        if !sink(to_set_form(path, &batch, request.schema)?) {
            return Ok(());
        }
    }
    if read != wanted {
        return Err(file_error(
            path,
            format_args!("is damaged: {read} rows where its footer says {wanted}"),
        ));
    }
    request.file.check_unchanged(&handle)
}

/// A reader over the row groups that hold the rows, with a selection where they hold others too.
fn open_rows(
    request: &ReadRows<'_>,
    metadata: ArrowReaderMetadata,
    handle: File,
) -> Result<parquet::arrow::arrow_reader::ParquetRecordBatchReader, SqlError> {
    let path = &request.file.path;
    let with_views = Schema::new_with_metadata(
        metadata.schema().fields().iter().map(file_form).collect::<Fields>(),
        metadata.schema().metadata().clone(),
    );
    let options = ArrowReaderOptions::new().with_schema(Arc::new(with_views));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(metadata.metadata()), options)
        .map_err(|error| damaged(path, &error))?;
    let (groups, selection) = select(&request.rows, metadata.metadata());
    let mut roots = Vec::with_capacity(request.schema.fields().len());
    for field in request.schema.fields() {
        match metadata.schema().index_of(field.name()) {
            Ok(index) => roots.push(index),
            Err(_) => return Err(file_error(path, "has changed since the statement began")),
        }
    }
    let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(handle, metadata)
        .with_projection(mask)
        .with_row_groups(groups)
        .with_batch_size(request.batch_rows.max(1));
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    builder.build().map_err(|error| damaged(path, &error))
}

/// The row groups that hold some of the rows, and what to select of them unless it is all.
fn select(rows: &Range<u64>, metadata: &ParquetMetaData) -> (Vec<usize>, Option<RowSelection>) {
    let mut groups = Vec::new();
    let mut first_of_groups = None;
    let mut end_of_groups = 0_u64;
    let mut start = 0_u64;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or_default();
        if end > rows.start && start < rows.end && end > start {
            groups.push(index);
            first_of_groups.get_or_insert(start);
            end_of_groups = end;
        }
        start = end;
    }
    let first = first_of_groups.unwrap_or(rows.start);
    if first == rows.start && end_of_groups == rows.end {
        return (groups, None);
    }
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let selection = RowSelection::from(vec![
        RowSelector::skip(count(rows.start - first)),
        RowSelector::select(count(rows.end - rows.start)),
        RowSelector::skip(count(end_of_groups.saturating_sub(rows.end))),
    ]);
    (groups, Some(selection))
}

/// Puts the columns of a batch in the order and types of the set's schema.
fn to_set_form(
    path: &Path,
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch, SqlError> {
    let column = |field: &FieldRef| -> Result<ArrayRef, SqlError> {
        let array = batch
            .column_by_name(field.name())
            .ok_or_else(|| file_error(path, "has changed since the statement began"))?;
        if array.data_type() == field.data_type() {
            return Ok(Arc::clone(array));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(array, field.data_type(), &options).map_err(|error| damaged(path, &error))
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
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

/// Which names and nullability nested fields get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Those of the file, which its decoder insists on.
    File,
    /// The same for all files of a set.
    Set,
}

/// A file's column as it is decoded: text and bytes as views at the top, in plain form below.
fn file_form(field: &FieldRef) -> FieldRef {
    let data_type = convert_type(field.data_type(), Form::File, true);
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

fn convert_type(data_type: &DataType, form: Form, top: bool) -> DataType {
    use DataType as T;
    let child = |field: &FieldRef, name: &str, nullable: bool| -> FieldRef {
        let data_type = convert_type(field.data_type(), form, false);
        match form {
            Form::File => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            Form::Set => Arc::new(Field::new(name, data_type, nullable)),
        }
    };
    match data_type {
        T::Utf8 | T::LargeUtf8 | T::Utf8View if top => T::Utf8View,
        T::Binary | T::LargeBinary | T::BinaryView if top => T::BinaryView,
        T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::LargeBinary | T::BinaryView => T::Binary,
        T::Dictionary(_, value) => convert_type(value, form, top),
        T::RunEndEncoded(_, value) => convert_type(value.data_type(), form, top),
        T::List(item) | T::LargeList(item) | T::ListView(item) | T::LargeListView(item) => {
            T::List(child(item, Field::LIST_FIELD_DEFAULT_NAME, true))
        }
        T::FixedSizeList(item, length) => {
            T::FixedSizeList(child(item, Field::LIST_FIELD_DEFAULT_NAME, true), *length)
        }
        T::Struct(fields) => T::Struct(fields.iter().map(|f| child(f, f.name(), true)).collect()),
        T::Map(entries, sorted) => {
            let inner = match entries.data_type() {
                T::Struct(fields) => {
                    let names = ["key", "value"];
                    let fields =
                        fields.iter().zip(names).map(|(f, name)| child(f, name, name == "value"));
                    T::Struct(fields.collect())
                }
                other => other.clone(),
            };
            let entries = match form {
                Form::File => entries.as_ref().clone().with_data_type(inner),
                Form::Set => Field::new("entries", inner, false),
            };
            T::Map(Arc::new(entries), *sorted)
        }
        other => other.clone(),
    }
}

/// `Some` when a type nests no deeper than `depth`.
fn check_depth(data_type: &DataType, depth: usize) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    match data_type {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => check_depth(field.data_type(), depth),
        DataType::Struct(fields) => {
            fields.iter().try_for_each(|field| check_depth(field.data_type(), depth))
        }
        _ => Some(()),
    }
}
