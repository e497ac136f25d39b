//! The part of a Parquet footer that one column needs, and where its values lie.
//!
//! A packed file has one footer for all of its columns; reading one of thousands must not cost
//! parsing all. So segment metadata keeps, per column, a footer that looks as if the column were
//! alone in the file, with the offsets it really has.

use std::ops::Range;
use std::sync::Arc;

use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};

use crate::error::{Result, StorageError};
use crate::segment_meta::ByteRange;

/// After the Thrift message, a Parquet file ends with its length and the magic bytes.
const TRAILER_BYTES: usize = 8;

/// The Thrift `FileMetaData` of a file, reduced to its top-level column number `root`.
pub(crate) fn column_footer(file: &ParquetMetaData, root: usize) -> Result<Vec<u8>> {
    let schema = file.file_metadata().schema_descr();
    let field = schema.root_schema().get_fields().get(root);
    let field = field.ok_or_else(|| StorageError::invalid_request("no such column in a file"))?;
    let message =
        Type::group_type_builder("schema").with_fields(vec![Arc::clone(field)]).build()?;
    let reduced: SchemaDescPtr = Arc::new(SchemaDescriptor::new(Arc::new(message)));

    let leaves = leaves(schema, root);
    let row_groups = file
        .row_groups()
        .iter()
        .map(|group| row_group(group, leaves.clone(), &reduced))
        .collect::<Result<Vec<_>>>()?;
    let file_metadata = FileMetaData::new(
        file.file_metadata().version(),
        file.file_metadata().num_rows(),
        None,
        None,
        reduced,
        None,
    );
    let mut bytes = Vec::new();
    let metadata = ParquetMetaData::new(file_metadata, row_groups);
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish()?;
    bytes.truncate(bytes.len().saturating_sub(TRAILER_BYTES));
    Ok(bytes)
}

/// For each row group of a file, the bytes that hold the values of a top-level column. The
/// leaves of a nested column are written one after the other.
pub(crate) fn column_extents(file: &ParquetMetaData, root: usize) -> Result<Vec<ByteRange>> {
    let leaves = leaves(file.file_metadata().schema_descr(), root);
    let extent = |group: &RowGroupMetaData| -> Option<ByteRange> {
        let ranges: Vec<ByteRange> =
            leaves.clone().map(|leaf| chunk_range(group.column(leaf))).collect::<Option<_>>()?;
        let offset = ranges.iter().map(|range| range.offset).min()?;
        let end = ranges.iter().map(|range| range.end()).max()?;
        Some(ByteRange { offset, length: end - offset })
    };
    file.row_groups()
        .iter()
        .map(|group| extent(group).ok_or_else(|| StorageError::invalid_data("no values written")))
        .collect()
}

/// The bytes of a leaf in a row group; `None` when the offsets make no sense.
pub(crate) fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<ByteRange> {
    let offset = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
    Some(ByteRange {
        offset: u64::try_from(offset).ok()?,
        length: u64::try_from(chunk.compressed_size()).ok()?,
    })
}

/// The leaves of a top-level column, which are neighbours: leaves are in the order of the roots.
///
/// Searched by halves, because this is asked for each of perhaps ten thousand columns.
fn leaves(schema: &SchemaDescriptor, root: usize) -> Range<usize> {
    let first = |root| {
        let (mut low, mut high) = (0, schema.num_columns());
        while low < high {
            let middle = low + (high - low) / 2;
            if schema.get_column_root_idx(middle) < root {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    };
    first(root)..first(root + 1)
}

fn row_group(
    group: &RowGroupMetaData,
    leaves: Range<usize>,
    reduced: &SchemaDescPtr,
) -> Result<RowGroupMetaData> {
    let chunks = leaves.zip(reduced.columns()).map(|(leaf, descriptor)| {
        let chunk = group.column(leaf);
        ColumnChunkMetaData::builder(Arc::clone(descriptor))
            .set_compression_codec(chunk.compression_codec())
            .set_encodings_mask(*chunk.encodings_mask())
            .set_num_values(chunk.num_values())
            .set_total_compressed_size(chunk.compressed_size())
            .set_total_uncompressed_size(chunk.uncompressed_size())
            .set_data_page_offset(chunk.data_page_offset())
            .set_dictionary_page_offset(chunk.dictionary_page_offset())
            .build()
    });
    let chunks = chunks.collect::<Result<Vec<_>, _>>()?;
    let bytes = chunks.iter().map(ColumnChunkMetaData::uncompressed_size).sum();
    Ok(RowGroupMetaData::builder(Arc::clone(reduced))
        .set_num_rows(group.num_rows())
        .set_total_byte_size(bytes)
        .set_column_metadata(chunks)
        .build()?)
}
