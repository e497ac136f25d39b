//! Small segments, written and read back.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use basalt_storage::chunk_store::{ChunkStore, Identity, IncomingSegment, SegmentCopy};
use basalt_storage::ids::{ClusterId, ColumnId, SegmentId, SliceId, TableId, TxnId, WorkerId};
use basalt_storage::manifest::SegmentRecord;
use basalt_storage::schema::{Column, TableSchema};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::decode_row_group;
use basalt_storage::segment_writer::{EncodedSegment, SegmentSpec, SegmentWriter, WriterOptions};
use basalt_storage::vfs::{RealVfs, Vfs};
use basalt_storage::{Result, StorageError};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const IDENTITY: Identity = Identity {
    cluster: ClusterId(Uuid::from_u128(0xC1)),
    worker: WorkerId(Uuid::from_u128(0x3031)),
};

/// A store in a directory of its own.
pub(crate) struct TestStore {
    pub(crate) store: Arc<ChunkStore>,
    pub(crate) dir: TempDir,
}

impl TestStore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ChunkStore::open(dir.path(), IDENTITY, Arc::new(RealVfs)).unwrap();
        Self { store: Arc::new(store), dir }
    }
}

pub(crate) fn open(vfs: Arc<dyn Vfs>) -> Result<ChunkStore> {
    ChunkStore::open(std::path::Path::new("/data"), IDENTITY, vfs)
}

/// A schema with columns `c1`, `c2`, ... of these types.
pub(crate) fn schema(types: &[(DataType, bool)]) -> Arc<TableSchema> {
    let column = |(index, (data_type, nullable)): (usize, &(DataType, bool))| Column {
        id: ColumnId(index as u32 + 1),
        name: format!("c{}", index + 1),
        data_type: data_type.clone(),
        nullable: *nullable,
        declared: Default::default(),
    };
    let columns = types.iter().enumerate().map(column).collect();
    Arc::new(TableSchema { version: 1, columns, keys: vec![] })
}

pub(crate) fn spec(schema: Arc<TableSchema>) -> SegmentSpec {
    SegmentSpec {
        cluster: IDENTITY.cluster,
        table: TableId(7),
        slice: SliceId(3),
        segment: SegmentId::generate(),
        txn: TxnId(Uuid::from_u128(0x77)),
        schema,
        sort_key: vec![],
        holder: IDENTITY.worker,
    }
}

pub(crate) fn batch(schema: &TableSchema, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(schema.to_arrow(), columns).unwrap()
}

/// A segment of these columns, all of which allow NULL.
pub(crate) fn encoded(columns: Vec<ArrayRef>) -> EncodedSegment {
    let types: Vec<_> = columns.iter().map(|c| (c.data_type().clone(), true)).collect();
    let schema = schema(&types);
    let mut writer =
        SegmentWriter::new(spec(Arc::clone(&schema)), WriterOptions::default()).unwrap();
    writer.append(batch(&schema, columns)).unwrap();
    writer.encode().unwrap()
}

/// All rows of a column, through every check.
pub(crate) fn read_column(
    store: &ChunkStore,
    record: &SegmentRecord,
    column: u32,
    target: &DataType,
) -> Result<ArrayRef> {
    let meta = store.segment_meta(record)?;
    read_with(&meta, column, target, |column, range| {
        store.read_extent(&column.chunk(), meta.layout(), range)
    })
}

pub(crate) fn read_with(
    meta: &SegmentMeta,
    column: u32,
    target: &DataType,
    fetch: impl Fn(
        &basalt_storage::segment_meta::ColumnMeta,
        basalt_storage::segment_meta::ByteRange,
    ) -> Result<bytes::Bytes>,
) -> Result<ArrayRef> {
    let id = ColumnId(column);
    let column = meta.column(id).unwrap();
    let mut pieces = vec![arrow::array::new_empty_array(target)];
    for row_group in 0..meta.row_groups().len() {
        let range = column.blocks_for(column.extent(row_group).unwrap());
        let verified = column.verify(range, fetch(column, range)?)?;
        pieces.push(decode_row_group(meta, id, row_group, &verified, target, None)?);
    }
    let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece.as_ref()).collect();
    Ok(concat(&pieces)?)
}

pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, StorageError>) -> &'static str {
    match result {
        Ok(value) => panic!("unexpected success: {value:?}"),
        Err(error) => error.code(),
    }
}

/// How others name a segment to copy it.
pub(crate) fn copy_of(segment: &EncodedSegment) -> SegmentCopy {
    SegmentCopy::from(segment.record())
}

/// Sends a whole segment to a store, each file in two pieces.
pub(crate) fn send(store: &Arc<ChunkStore>, segment: &EncodedSegment) -> Result<()> {
    let incoming = store.receive(copy_of(segment), segment.meta_bytes().clone())?;
    let files: Vec<usize> = (0..segment.files().len()).collect();
    write_files(incoming, segment, &files)
}

/// Sends some files of a segment to a store.
pub(crate) fn send_files(
    store: &Arc<ChunkStore>,
    segment: &EncodedSegment,
    files: &[usize],
) -> Result<()> {
    let incoming = store.receive_files(copy_of(segment), segment.meta_bytes().clone(), files)?;
    write_files(incoming, segment, files)
}

fn write_files(
    mut incoming: IncomingSegment,
    segment: &EncodedSegment,
    files: &[usize],
) -> Result<()> {
    for file in files {
        let bytes = &segment.files()[*file].bytes;
        for piece in bytes.chunks(bytes.len() / 2 + 1) {
            incoming.write(*file, piece)?;
        }
    }
    incoming.finish()
}
