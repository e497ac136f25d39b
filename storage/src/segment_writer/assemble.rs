//! Puts encoded row groups together into files and describes them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::datatypes::Schema;
use bytes::Bytes;
use parquet::arrow::arrow_writer::ArrowColumnChunk;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, encode_arrow_schema};
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use parquet::file::writer::SerializedFileWriter;

use super::column::{ColumnEncoder, base_properties};
use super::{EncodedFile, EncodedSegment, SegmentSpec};
use crate::digest::Digest;
use crate::encoding::ChunkEncoding;
use crate::error::{Result, StorageError};
use crate::ids::{ColumnId, ColumnVersion};
use crate::layout::{BLOCK_BYTES, FORMAT_VERSION, PACKED_ROWS_BELOW, SegmentKey, WIDE_COLUMNS_MAX};
use crate::manifest::Layout;
use crate::parallel::for_each_mut;
use crate::parquet_footer::{column_extents, column_footer};
use crate::schema::Column;
use crate::segment_meta::{self, ByteRange, ColumnMeta, FileMeta, Pages, SegmentMeta};
use crate::zone_map::ZoneMap;

/// A file and what its Parquet footer says.
struct BuiltFile {
    bytes: Bytes,
    meta: Arc<FileMeta>,
    parquet: ParquetMetaData,
}

/// What is left of an encoder once its row groups are in a file.
struct Described {
    column: Column,
    encoding: ChunkEncoding,
    zones: Vec<ZoneMap>,
    pages: Vec<Pages>,
}

pub(super) fn assemble(
    spec: &SegmentSpec,
    encoders: Vec<ColumnEncoder>,
    row_groups: &[u32],
    threads: usize,
) -> Result<EncodedSegment> {
    let rows: u64 = row_groups.iter().map(|rows| u64::from(*rows)).sum();
    let packed = rows < PACKED_ROWS_BELOW || encoders.len() > WIDE_COLUMNS_MAX;
    let layout = if packed { Layout::Packed } else { Layout::Wide };
    let key = SegmentKey { table: spec.table, slice: spec.slice, segment: spec.segment };
    let mut meta = SegmentMeta {
        cluster: spec.cluster,
        key,
        txn: spec.txn,
        layout,
        rows,
        row_groups: row_groups.into(),
        sort_key: spec.sort_key.clone(),
        columns: BTreeMap::new(),
    };
    let files = match layout {
        Layout::Wide => wide(spec, encoders, &mut meta, threads)?,
        Layout::Packed => packed_file(spec, encoders, &mut meta)?,
    };
    let meta_bytes = Bytes::from(segment_meta::encode(&meta)?);
    let record = meta.record(Digest::of(&meta_bytes), vec![spec.holder]);
    Ok(EncodedSegment { record, meta: Arc::new(meta), meta_bytes, files })
}

/// One file per column, built in parallel.
fn wide(
    spec: &SegmentSpec,
    encoders: Vec<ColumnEncoder>,
    meta: &mut SegmentMeta,
    threads: usize,
) -> Result<Vec<EncodedFile>> {
    let built = Mutex::new(Vec::with_capacity(encoders.len()));
    let mut encoders: Vec<Option<ColumnEncoder>> = encoders.into_iter().map(Some).collect();
    for_each_mut(threads, &mut encoders, |encoder| {
        let Some(encoder) = encoder.take() else { return Ok(()) };
        let (mut described, file) = build_file(spec, meta.rows, vec![encoder])?;
        let Some(described) = described.pop() else { return Ok(()) };
        let column = column_meta(meta, described, &file, 0, |file| Ok(file.meta.digest))?;
        let file = EncodedFile { path: column.path(), bytes: file.bytes };
        built.lock().unwrap_or_else(PoisonError::into_inner).push((column, file));
        Ok(())
    })?;
    let mut built = built.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The order of files must not depend on which thread was faster.
    built.sort_by_key(|(column, _)| column.id());
    let mut files = Vec::with_capacity(built.len());
    for (column, file) in built {
        meta.columns.insert(column.id(), column);
        files.push(file);
    }
    Ok(files)
}

/// One file for all columns.
fn packed_file(
    spec: &SegmentSpec,
    encoders: Vec<ColumnEncoder>,
    meta: &mut SegmentMeta,
) -> Result<Vec<EncodedFile>> {
    let (described, file) = build_file(spec, meta.rows, encoders)?;
    for (root, described) in described.into_iter().enumerate() {
        let column = column_meta(meta, described, &file, root, |file| {
            let mut hasher = blake3::Hasher::new();
            for extent in column_extents(&file.parquet, root)? {
                hasher.update(slice(&file.bytes, extent)?);
            }
            Ok(Digest::from_bytes(*hasher.finalize().as_bytes()))
        })?;
        meta.columns.insert(column.id(), column);
    }
    Ok(vec![EncodedFile { path: meta.key.pack_path(), bytes: file.bytes }])
}

fn column_meta(
    meta: &SegmentMeta,
    Described { column, encoding, zones, mut pages }: Described,
    file: &BuiltFile,
    root: usize,
    digest: impl Fn(&BuiltFile) -> Result<Digest>,
) -> Result<ColumnMeta> {
    let runs = meta.row_groups.iter().map(|rows| u64::from(*rows)).zip(&zones);
    let extents = column_extents(&file.parquet, root)?;
    // Until now they counted from where the chunk begins.
    for (pages, extent) in pages.iter_mut().zip(&extents) {
        pages.offsets.iter_mut().for_each(|offset| *offset += extent.offset);
    }
    Ok(ColumnMeta {
        chunk: meta.key.chunk(column.id, ColumnVersion::FIRST),
        zone: ZoneMap::merge(runs),
        name: column.name,
        data_type: column.data_type,
        nullable: column.nullable,
        encoding: encoding.description().to_owned(),
        digest: digest(file)?,
        layout: meta.layout,
        file: Arc::clone(&file.meta),
        row_groups: Arc::clone(&meta.row_groups),
        extents,
        zones,
        pages,
        footer: column_footer(&file.parquet, root)?.into(),
        parsed: OnceLock::new(),
    })
}

/// Writes the row groups of `encoders` as one Parquet file.
fn build_file(
    spec: &SegmentSpec,
    rows: u64,
    encoders: Vec<ColumnEncoder>,
) -> Result<(Vec<Described>, BuiltFile)> {
    let schema = Schema::new(encoders.iter().map(|e| Arc::clone(&e.field)).collect::<Vec<_>>());
    let ids: Vec<ColumnId> = encoders.iter().map(|encoder| encoder.column.id).collect();
    let properties =
        base_properties().set_key_value_metadata(Some(key_values(spec, &ids, rows, &schema)));
    let parquet_schema = ArrowSchemaConverter::new().convert(&schema)?;

    let mut described = Vec::with_capacity(encoders.len());
    let mut columns: Vec<std::vec::IntoIter<Vec<ArrowColumnChunk>>> = Vec::new();
    for encoder in encoders {
        let encoding = encoder.encoding.unwrap_or(ChunkEncoding::Raw);
        let ColumnEncoder { column, zones, pages, chunks, .. } = encoder;
        described.push(Described { column, encoding, zones, pages });
        columns.push(chunks.into_iter());
    }
    let mut writer = SerializedFileWriter::new(
        Vec::new(),
        parquet_schema.root_schema_ptr(),
        Arc::new(properties.build()),
    )?;
    loop {
        let group: Vec<Vec<ArrowColumnChunk>> =
            columns.iter_mut().filter_map(Iterator::next).collect();
        if group.is_empty() {
            break;
        }
        let mut row_group = writer.next_row_group()?;
        for chunk in group.into_iter().flatten() {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
    }
    let parquet = writer.finish()?;
    let bytes = Bytes::from(std::mem::take(writer.inner_mut()));
    let meta = Arc::new(FileMeta {
        length: bytes.len() as u64,
        digest: Digest::of(&bytes),
        block_crcs: bytes.chunks(BLOCK_BYTES as usize).map(crc32c::crc32c).collect(),
    });
    Ok((described, BuiltFile { bytes, meta, parquet }))
}

/// What a file says about itself to those who find it without a catalog.
fn key_values(
    spec: &SegmentSpec,
    columns: &[ColumnId],
    rows: u64,
    schema: &Schema,
) -> Vec<KeyValue> {
    let ids: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
    vec![
        pair("basalt.format", FORMAT_VERSION.to_string()),
        pair("basalt.cluster", spec.cluster.to_string()),
        pair("basalt.table", spec.table.to_string()),
        pair("basalt.slice", spec.slice.to_string()),
        pair("basalt.segment", spec.segment.to_string()),
        pair("basalt.columns", ids.join(",")),
        pair("basalt.version", ColumnVersion::FIRST.to_string()),
        pair("basalt.rows", rows.to_string()),
        pair("basalt.txn", spec.txn.to_string()),
        pair(ARROW_SCHEMA_META_KEY, encode_arrow_schema(schema)),
    ]
}

fn slice(bytes: &Bytes, range: ByteRange) -> Result<&[u8]> {
    let start = usize::try_from(range.offset).ok();
    let end = usize::try_from(range.end()).ok();
    start
        .zip(end)
        .and_then(|(start, end)| bytes.get(start..end))
        .ok_or_else(|| StorageError::invalid_data("a column lies outside its file"))
}
