//! Turns batches of rows into an encoded segment: sorted, split into columns and row groups,
//! checksummed, described by metadata. Nothing touches a disk here.
//!
//! Invariant: every column is cut into the same row groups, so row `n` of one column and row `n`
//! of another are one row. Without a sort key the rows of a row group keep the order they came in, and memory
//! is the encoded size and a row group of each source; with one, all rows are held until the end.
//!
//! Sources take turns, as the partitions of a load do: each reads its own part of a file that is in order of time, say.
//! Rows of one source wait for more of the same, so that a row group holds a short time of one part and not the same
//! short time of every part, and its zone map lets a query for some days skip it.

mod assemble;
mod column;
mod measure;
mod sort;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::chunk_store::ChunkStore;
use crate::digest::Digest;
use crate::error::{Result, StorageError};
use crate::ids::{ClusterId, ColumnId, SegmentId, SliceId, TableId, TxnId, WorkerId};
use crate::layout::{ROW_GROUP_ROWS, SEGMENT_ROWS_MAX};
use crate::manifest::SegmentRecord;
use crate::parallel::for_each_mut;
use crate::schema::TableSchema;
use crate::segment_meta::{ChunkFile, SegmentMeta};
use crate::types::storage_type;
use column::ColumnEncoder;
pub use measure::measure;

/// Text of one column in one row group: half of what a 32-bit offset can address, so that
/// appending one more batch cannot overflow it.
const ROW_GROUP_TEXT_BYTES: u64 = 1 << 30;

/// What a new segment is.
#[derive(Debug, Clone)]
pub struct SegmentSpec {
    /// The cluster.
    pub cluster: ClusterId,
    /// The table.
    pub table: TableId,
    /// The slice of the table.
    pub slice: SliceId,
    /// The segment, a new id.
    pub segment: SegmentId,
    /// The transaction that writes it.
    pub txn: TxnId,
    /// The table's columns.
    pub schema: Arc<TableSchema>,
    /// Columns to sort by, ascending, NULLs last; empty to keep each source's order.
    pub sort_key: Vec<ColumnId>,
    /// The worker whose store the segment goes to.
    pub holder: WorkerId,
}

/// How a segment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriterOptions {
    /// Threads that encode columns. Callers that write many segments at once set 1.
    pub encode_threads: usize,
}

impl Default for WriterOptions {
    /// One thread per processor.
    fn default() -> Self {
        let encode_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { encode_threads }
    }
}

/// Whose rows they are: one of those that fill a segment by turns, each with rows in an order of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowSource(pub u64);

/// Collects the rows of one new segment.
#[derive(Debug)]
pub struct SegmentWriter {
    spec: SegmentSpec,
    options: WriterOptions,
    encoders: Vec<ColumnEncoder>,
    pending: BTreeMap<RowSource, Pending>,
    row_groups: Vec<u32>,
    rows: u64,
}

/// Rows of one source that are not encoded yet, in columns.
#[derive(Debug, Default)]
struct Pending {
    batches: Vec<RecordBatch>,
    rows: u64,
    /// Text of the column with most.
    text_bytes: u64,
}

impl Pending {
    fn push(&mut self, batch: RecordBatch) {
        self.text_bytes += text_bytes(&batch);
        self.rows += batch.num_rows() as u64;
        self.batches.push(batch);
    }
}

/// A file of an encoded segment.
#[derive(Debug, Clone)]
pub struct EncodedFile {
    /// Its path, relative to the data directory.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Bytes,
}

/// A segment that is complete and not yet on a disk.
#[derive(Debug, Clone)]
pub struct EncodedSegment {
    pub(crate) record: SegmentRecord,
    pub(crate) meta: Arc<SegmentMeta>,
    pub(crate) meta_bytes: Bytes,
    pub(crate) files: Vec<EncodedFile>,
}

impl SegmentWriter {
    /// A writer for a segment without rows yet.
    ///
    /// # Errors
    /// [`StorageError::UnsupportedType`] for a column that is not in storage form or a sort key
    /// that has no order, [`StorageError::InvalidRequest`] for an unknown sort key column, a
    /// declared encoding that does not fit its column's type, or a table without columns.
    pub fn new(spec: SegmentSpec, options: WriterOptions) -> Result<Self> {
        if spec.schema.columns.is_empty() {
            return Err(StorageError::invalid_request("a segment without columns"));
        }
        for column in &spec.schema.columns {
            let canonical =
                storage_type(&column.data_type).map_err(|e| e.with_column(&column.name))?;
            if canonical != column.data_type {
                return Err(StorageError::unsupported(&column.data_type).with_column(&column.name));
            }
            if let Some(encode) = column.declared.encode.filter(|e| !e.fits(&column.data_type)) {
                return Err(StorageError::invalid_request(format!(
                    "encoding {} does not fit column \"{}\" of type {}",
                    encode.name(),
                    column.name,
                    column.data_type
                )));
            }
        }
        for id in &spec.sort_key {
            let column = spec.schema.column(*id);
            let column =
                column.ok_or_else(|| StorageError::invalid_request("unknown sort key column"))?;
            if column.data_type.is_nested() {
                return Err(StorageError::unsupported(&column.data_type).with_column(&column.name));
            }
        }
        let encoders = spec.schema.columns.iter().map(ColumnEncoder::new).collect();
        Ok(Self {
            spec,
            options,
            encoders,
            pending: BTreeMap::new(),
            row_groups: Vec::new(),
            rows: 0,
        })
    }

    /// Rows appended so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Rows that still fit.
    pub fn rows_left(&self) -> u64 {
        SEGMENT_ROWS_MAX - self.rows
    }

    /// Appends rows of the only source: columns in the order of the table's schema, in storage form.
    ///
    /// # Errors
    /// As of [`Self::append_from`].
    pub fn append(&mut self, batch: RecordBatch) -> Result<()> {
        self.append_from(RowSource::default(), batch)
    }

    /// Appends rows of one source.
    ///
    /// # Errors
    /// [`StorageError::NullValue`], [`StorageError::InvalidData`] when columns or types differ
    /// from the schema or the segment would have more than [`SEGMENT_ROWS_MAX`] rows. The writer
    /// must not be used after an error.
    pub fn append_from(&mut self, source: RowSource, batch: RecordBatch) -> Result<()> {
        self.check(&batch)?;
        self.rows += batch.num_rows() as u64;
        if self.spec.sort_key.is_empty() {
            return self.push(source, &batch);
        }
        self.pending.entry(RowSource::default()).or_default().push(batch);
        Ok(())
    }

    /// Adds rows to those of their source, and encodes full row groups of it.
    fn push(&mut self, source: RowSource, batch: &RecordBatch) -> Result<()> {
        let mut offset = 0;
        while offset < batch.num_rows() {
            let pending = self.pending.entry(source).or_default();
            let room = u64::from(ROW_GROUP_ROWS) - pending.rows;
            let take = (batch.num_rows() - offset).min(room as usize);
            let piece = batch.slice(offset, take);
            let is_too_much = pending.text_bytes + text_bytes(&piece) > ROW_GROUP_TEXT_BYTES;
            if pending.rows > 0 && is_too_much {
                self.flush(source)?;
                continue;
            }
            pending.push(piece);
            offset += take;
            if pending.rows == u64::from(ROW_GROUP_ROWS) {
                self.flush(source)?;
            }
        }
        Ok(())
    }

    /// Sorts and encodes what was appended. Nothing is written to a disk.
    ///
    /// # Errors
    /// [`StorageError::InvalidData`] beyond the format's limits (a row group with more than
    /// 2 GiB of text in one column).
    pub fn encode(mut self) -> Result<EncodedSegment> {
        if self.spec.sort_key.is_empty() {
            self.flush_rest()?;
        } else {
            self.encode_sorted()?;
        }
        let Self { spec, options, encoders, row_groups, .. } = self;
        assemble::assemble(&spec, encoders, &row_groups, options.encode_threads)
    }

    /// [`Self::encode`], then [`ChunkStore::publish`] of the one segment: on `Ok` every byte of
    /// it, and its name, survives a crash; on an error nothing of it may be named by a commit.
    ///
    /// # Errors
    /// As of [`Self::encode`] and [`ChunkStore::publish`].
    pub fn finish(self, store: &ChunkStore) -> Result<SegmentRecord> {
        let encoded = self.encode()?;
        let record = encoded.record.clone();
        store.publish(vec![encoded])?;
        Ok(record)
    }

    fn check(&self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.spec.schema.columns.len() {
            return Err(StorageError::invalid_data(format!(
                "{} columns for a table of {}",
                batch.num_columns(),
                self.spec.schema.columns.len()
            )));
        }
        if batch.num_rows() as u64 > self.rows_left() {
            return Err(StorageError::invalid_data(format!(
                "a segment holds at most {SEGMENT_ROWS_MAX} rows"
            )));
        }
        for (column, array) in self.spec.schema.columns.iter().zip(batch.columns()) {
            if array.data_type() != &column.data_type {
                let detail =
                    format!("values of type {}, not {}", array.data_type(), column.data_type);
                return Err(StorageError::invalid_data(detail).with_column(&column.name));
            }
            if !column.nullable && array.null_count() > 0 {
                return Err(StorageError::NullValue { column: column.name.clone() });
            }
        }
        Ok(())
    }

    /// Encodes what is left: row groups of one source where it has enough, and of several where not.
    fn flush_rest(&mut self) -> Result<()> {
        let has_enough = |pending: &Pending| pending.rows >= u64::from(ROW_GROUP_ROWS / 2);
        let enough = self.pending.iter().filter(|(_, pending)| has_enough(pending));
        for source in enough.map(|(source, _)| *source).collect::<Vec<_>>() {
            self.flush(source)?;
        }
        for Pending { batches, .. } in std::mem::take(&mut self.pending).into_values() {
            for batch in batches {
                self.push(RowSource::default(), &batch)?;
            }
        }
        self.flush(RowSource::default())
    }

    /// Encodes the pending rows of one source as one row group.
    fn flush(&mut self, source: RowSource) -> Result<()> {
        let Some(Pending { batches, rows, .. }) = self.pending.remove(&source) else {
            return Ok(());
        };
        let mut work: Vec<(usize, &mut ColumnEncoder)> =
            self.encoders.iter_mut().enumerate().collect();
        for_each_mut(self.options.encode_threads, &mut work, |(index, encoder)| {
            let pieces: Vec<ArrayRef> =
                batches.iter().map(|batch| Arc::clone(batch.column(*index))).collect();
            encoder.write_row_group(&pieces)
        })?;
        // Fits: at most ROW_GROUP_ROWS.
        self.row_groups.push(rows as u32);
        Ok(())
    }

    fn encode_sorted(&mut self) -> Result<()> {
        let Pending { batches, text_bytes, .. } =
            self.pending.remove(&RowSource::default()).unwrap_or_default();
        let keys: Vec<usize> = self
            .spec
            .sort_key
            .iter()
            .filter_map(|id| self.spec.schema.columns.iter().position(|c| c.id == *id))
            .collect();
        let order = sort::sorted_positions(&batches, &keys)?;
        let group_rows = sorted_group_rows(text_bytes, self.rows);
        let mut work: Vec<(usize, &mut ColumnEncoder)> =
            self.encoders.iter_mut().enumerate().collect();
        for_each_mut(self.options.encode_threads, &mut work, |(index, encoder)| {
            let arrays: Vec<&dyn Array> =
                batches.iter().map(|batch| batch.column(*index).as_ref()).collect();
            for positions in order.chunks(group_rows) {
                let sorted = arrow::compute::interleave(&arrays, positions)
                    .map_err(|e| StorageError::from(e).with_column(&encoder.column.name))?;
                encoder.write_row_group(&[sorted])?;
            }
            Ok(())
        })?;
        self.row_groups = order.chunks(group_rows).map(|group| group.len() as u32).collect();
        Ok(())
    }
}

/// Full row groups, unless that many rows have too much text on average.
fn sorted_group_rows(text_bytes: u64, rows: u64) -> usize {
    let average = text_bytes / rows.max(1) + 1;
    (ROW_GROUP_TEXT_BYTES / average).clamp(1, ROW_GROUP_ROWS.into()) as usize
}

impl EncodedSegment {
    /// The segment as a commit names it.
    pub fn record(&self) -> &SegmentRecord {
        &self.record
    }

    /// Its metadata.
    pub fn meta(&self) -> &Arc<SegmentMeta> {
        &self.meta
    }

    /// The bytes of its metadata file, whose digest is in the record.
    pub fn meta_bytes(&self) -> &Bytes {
        &self.meta_bytes
    }

    /// Its other files.
    pub fn files(&self) -> &[EncodedFile] {
        &self.files
    }

    /// Puts a segment together that came from elsewhere: from another worker, or a backup. Every
    /// file is verified against the metadata, and the metadata against the record.
    ///
    /// # Errors
    /// [`StorageError::Corrupt`] when anything differs from what the record vouches for,
    /// [`StorageError::Missing`] when a file is not among `files`.
    pub fn from_parts(
        record: SegmentRecord,
        meta_bytes: Bytes,
        files: Vec<EncodedFile>,
    ) -> Result<Self> {
        let meta = SegmentMeta::decode(&meta_bytes, record.meta_digest)?;
        if meta.key() != record.key() || meta.layout() != record.layout {
            return Err(StorageError::corrupt(
                record.key().meta_path(record.layout),
                "its metadata is that of another segment",
            ));
        }
        let mut verified = Vec::new();
        for ChunkFile { path, meta: expected, .. } in meta.chunk_files() {
            let file = files.iter().find(|file| file.path == path);
            let file = file.ok_or_else(|| StorageError::Missing { path: path.clone() })?;
            if Digest::of(&file.bytes) != expected.digest {
                return Err(StorageError::corrupt(path, "its digest is not the committed one"));
            }
            verified.push(file.clone());
        }
        Ok(Self { record, meta, meta_bytes, files: verified })
    }
}

/// Bytes of text or binary in the column that has most, at any depth.
fn text_bytes(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(array_text_bytes).max().unwrap_or(0)
}

fn array_text_bytes(array: &ArrayRef) -> u64 {
    fn between(offsets: &[i32]) -> u64 {
        match offsets {
            [first, .., last] => u64::from(last.abs_diff(*first)),
            _ => 0,
        }
    }
    match array.data_type() {
        DataType::Utf8 => between(array.as_string::<i32>().offsets()),
        DataType::Binary => between(array.as_binary::<i32>().offsets()),
        DataType::FixedSizeBinary(width) => u64::from(width.unsigned_abs()) * array.len() as u64,
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            array_text_bytes(list.values()).max(between(list.offsets()))
        }
        DataType::Struct(_) => {
            array.as_struct().columns().iter().map(array_text_bytes).max().unwrap_or(0)
        }
        DataType::Map(_, _) => {
            array.as_map().entries().columns().iter().map(array_text_bytes).max().unwrap_or(0)
        }
        _ => 0,
    }
}
