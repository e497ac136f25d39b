//! Reading a row group of one column: which bytes to fetch, verifying them, decoding them.
//!
//! ```text
//! ColumnMeta::extent(rg) -> blocks_for(extent) -> fetch, from disk or a peer
//!    -> ColumnMeta::verify -> VerifiedBytes -> decode_row_group -> array
//! ```
//! Invariant: only [`VerifiedBytes`] are decoded, and they exist only where every block matched
//! its checksum; a row group decodes to exactly the rows that the metadata states, or to an
//! error. Bytes are verified in memory after they were read, never a file that could change
//! between the check and the use.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, new_empty_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

pub use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

use crate::digest::Digest;
use crate::error::{Result, StorageError};
use crate::ids::ColumnId;
use crate::layout::BLOCK_BYTES;
use crate::segment_meta::{ByteRange, ColumnMeta, SegmentMeta};
use crate::types::{can_read_as, from_physical, physical_type};

/// Bytes of a segment's file, each block of which matched its checksum.
#[derive(Debug, Clone)]
pub struct VerifiedBytes {
    /// Which file they are of.
    file: Digest,
    file_length: u64,
    /// Where in the file they lie, in order: one part, or several when not all pages were wanted.
    parts: Arc<[(ByteRange, Bytes)]>,
}

impl VerifiedBytes {
    /// How many there are.
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|(range, _)| range.length).sum()
    }

    /// Whether everything that lies at `range` in the file is among them.
    pub fn covers(&self, range: ByteRange) -> bool {
        self.parts.iter().any(|(part, _)| part.contains(range))
    }

    /// Where they lie in memory: values that were decoded may refer to them, and then hold all of them
    /// there. Of the first part, when there are several.
    pub fn addresses(&self) -> std::ops::Range<usize> {
        let start = self.parts.first().map_or(0, |(_, bytes)| bytes.as_ptr() as usize);
        start..start + self.parts.first().map_or(0, |(_, bytes)| bytes.len())
    }

    /// Parts of one file as one; `None` when there are none, or they are of different files.
    pub fn joined(parts: &[Self]) -> Option<Self> {
        let first = parts.first()?;
        if parts.iter().any(|part| part.file != first.file) {
            return None;
        }
        let all = parts.iter().flat_map(|part| part.parts.iter().cloned());
        Some(Self { parts: all.collect(), ..*first })
    }
}

/// Nanoseconds in checksums.
static VERIFICATION: AtomicU64 = AtomicU64::new(0);

/// Time that the threads of this process have spent, all together, on the checksums of what they
/// read: what verification costs.
pub fn verification_time() -> Duration {
    Duration::from_nanos(VERIFICATION.load(Ordering::Relaxed))
}

impl ColumnMeta {
    /// Checks bytes that were read from the column's file at `range`, which begins at a block
    /// and ends at a block or with the file (see [`ColumnMeta::blocks_for`]).
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] naming the file and block when a checksum does not match or
    /// bytes are missing, [`StorageError::InvalidRequest`] for a range of partial blocks.
    pub fn verify(&self, range: ByteRange, bytes: Bytes) -> Result<VerifiedBytes> {
        let aligned = range.offset.is_multiple_of(BLOCK_BYTES)
            && (range.end().is_multiple_of(BLOCK_BYTES) || range.end() == self.file.length)
            && range.end() <= self.file.length;
        if !aligned {
            return Err(StorageError::invalid_request("a range of partial blocks"));
        }
        if bytes.len() as u64 != range.length {
            return Err(StorageError::corrupt(
                self.path(),
                format!("{} bytes were read, not {}", bytes.len(), range.length),
            ));
        }
        let start = Instant::now();
        let bad = self.file.first_bad_block(range.offset, &bytes);
        let nanoseconds = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        VERIFICATION.fetch_add(nanoseconds, Ordering::Relaxed);
        if let Some(block) = bad {
            return Err(StorageError::corrupt(
                self.path(),
                format!("block {block} fails its checksum"),
            ));
        }
        let Self { file, .. } = self;
        let parts = [(range, bytes)].into();
        Ok(VerifiedBytes { file: file.digest, file_length: file.length, parts })
    }
}

/// The values of a row group of a column, as an array of type `target`.
///
/// `target` is the stored type or a form that [`can_read_as`] allows, and is decoded directly.
/// With a `selection` over all rows of the row group, only the selected rows are returned.
///
/// # Errors
/// [`StorageError::Misaligned`] when there are not exactly the rows that the metadata states,
/// [`StorageError::Corrupt`] when verified bytes do not decode (they were wrong when they were
/// written), [`StorageError::InvalidRequest`] for an unknown column or row group, bytes of
/// another file, a selection of another length, or a target that the column cannot be read as.
pub fn decode_row_group(
    meta: &SegmentMeta,
    column: ColumnId,
    row_group: usize,
    bytes: &VerifiedBytes,
    target: &DataType,
    selection: Option<&RowSelection>,
) -> Result<ArrayRef> {
    let column = meta.column(column);
    let column = column.ok_or_else(|| StorageError::invalid_request("no such column"))?;
    let rows = meta.row_groups().get(row_group).copied().unwrap_or_default() as usize;
    check_request(column, row_group, rows, bytes, target, selection)?;

    let expected = selection.map_or(rows, RowSelection::row_count);
    if expected == 0 {
        return Ok(new_empty_array(target));
    }
    // Checksummed bytes that make the decoder panic are a damaged chunk, not a dead process.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        decode(column, row_group, rows, bytes, target, selection.cloned())
    }))
    .unwrap_or_else(|_| Err(StorageError::corrupt(column.path(), "its decoder panicked")))?;
    if decoded.len() != expected {
        return Err(StorageError::misaligned(
            column.path(),
            format!("row group {row_group} has {} rows, not {expected}", decoded.len()),
        ));
    }
    if !column.nullable && decoded.null_count() > 0 {
        return Err(StorageError::corrupt(column.path(), "it has NULLs and is NOT NULL"));
    }
    from_physical(&decoded, target)
}

pub(crate) fn check_request(
    column: &ColumnMeta,
    row_group: usize,
    rows: usize,
    bytes: &VerifiedBytes,
    target: &DataType,
    selection: Option<&RowSelection>,
) -> Result<()> {
    let Some(extent) = column.extent(row_group) else {
        return Err(StorageError::invalid_request(format!("no row group {row_group}")));
    };
    // A selection needs the pages that it selects from: the reader asks for no others.
    if bytes.file != column.file.digest || (selection.is_none() && !bytes.covers(extent)) {
        return Err(StorageError::invalid_request("bytes of another row group or file"));
    }
    if !can_read_as(&column.data_type, target) {
        return Err(StorageError::invalid_request(format!(
            "column of type {} cannot be read as {target}",
            column.data_type
        )));
    }
    if let Some(selection) = selection {
        let selected = selection.row_count() + selection.skipped_row_count();
        if selected != rows {
            return Err(StorageError::misaligned(
                column.path(),
                format!("a selection over {selected} rows, row group {row_group} has {rows}"),
            ));
        }
    }
    Ok(())
}

/// Parquet's reader over one row group of one column, in pieces of `piece_rows`.
pub(crate) fn open_reader(
    column: &ColumnMeta,
    row_group: usize,
    piece_rows: usize,
    bytes: &VerifiedBytes,
    target: &DataType,
    selection: Option<RowSelection>,
) -> Result<ParquetRecordBatchReader> {
    let damaged = |error: ParquetError| StorageError::corrupt(column.path(), error.to_string());
    let physical = physical_type(target);
    let field = Field::new(&column.name, physical, column.nullable);
    let options = ArrowReaderOptions::new().with_schema(Arc::new(Schema::new(vec![field])));
    let footer = Arc::clone(column.parquet_metadata()?);
    let metadata = ArrowReaderMetadata::try_new(footer, options).map_err(damaged)?;
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata)
        .with_row_groups(vec![row_group])
        .with_batch_size(piece_rows);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    builder.build().map_err(damaged)
}

fn decode(
    column: &ColumnMeta,
    row_group: usize,
    rows: usize,
    bytes: &VerifiedBytes,
    target: &DataType,
    selection: Option<RowSelection>,
) -> Result<ArrayRef> {
    let mut pieces: Vec<ArrayRef> = Vec::with_capacity(1);
    for batch in open_reader(column, row_group, rows, bytes, target, selection)? {
        let batch = batch.map_err(|e| StorageError::corrupt(column.path(), e.to_string()))?;
        pieces.extend(batch.columns().first().cloned());
    }
    match pieces.as_slice() {
        [] => Ok(new_empty_array(&physical_type(target))),
        [piece] => Ok(Arc::clone(piece)),
        many => {
            let many: Vec<&dyn Array> = many.iter().map(|piece| piece.as_ref()).collect();
            Ok(concat(&many)?)
        }
    }
}

impl Length for VerifiedBytes {
    fn len(&self) -> u64 {
        self.file_length
    }
}

/// The file, as far as it was fetched: anything outside is an error.
impl ChunkReader for VerifiedBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let here = ByteRange { offset: start, length: 1 };
        let part = self.parts.iter().find(|(range, _)| range.contains(here));
        let length = part.map_or(1, |(range, _)| range.end() - start);
        Ok(self.part(start, length)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        self.part(start, length as u64)
    }
}

impl VerifiedBytes {
    fn part(&self, start: u64, length: u64) -> parquet::errors::Result<Bytes> {
        let part = ByteRange { offset: start, length };
        let found = self.parts.iter().find(|(range, _)| range.contains(part));
        let Some((range, bytes)) = found else {
            return Err(ParquetError::EOF(format!("{part:?} lies outside what was fetched")));
        };
        // Fits: both lie inside bytes that are in memory.
        let from = (start - range.offset) as usize;
        Ok(bytes.slice(from..from + length as usize))
    }
}
