//! One column on its way into Parquet, row group by row group.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::arrow::{ArrowSchemaConverter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::file::writer::SerializedFileWriter;

use crate::encoding::{
    ChunkEncoding, DICTIONARY_BYTES_MAX, Sample, choose, count_distinct, has_differences,
};
use crate::error::{Result, StorageError};
use crate::layout::{PAGE_ROWS, ROW_GROUP_ROWS};
use crate::schema::Column;
use crate::segment_meta::{Pages, page_count};
use crate::types::{physical_type, to_physical};
use crate::zone_map::ZoneMap;

/// Bytes of a page, for very wide values: those of others have [`PAGE_ROWS`] rows, in all columns the same
/// ones.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Rows between two looks at the page limits; divides [`PAGE_ROWS`].
const WRITE_BATCH_ROWS: usize = 2_048;

/// Effort of Zstandard, its own default: only what was asked for pays it, for the size.
const ZSTD_LEVEL: i32 = 3;

/// Rows that the encoding is chosen from: enough to tell 10,000 distinct values from 100,000,
/// few enough to cost less than a tenth of encoding one row group.
const SAMPLE_ROWS: usize = 8_192;
/// The sample is this many runs of adjacent rows: runs so that differences mean something,
/// several so that sorted data does not look constant.
const SAMPLE_RUNS: usize = 8;

/// Collects the encoded row groups of one column.
#[derive(Debug)]
pub(super) struct ColumnEncoder {
    pub(super) column: Column,
    /// The field in Parquet: the physical type, and the column's id as the field's id.
    pub(super) field: FieldRef,
    schema: SchemaRef,
    /// Declared, or chosen at the first row group.
    pub(super) encoding: Option<ChunkEncoding>,
    /// Per row group, the chunks of the column's leaves.
    pub(super) chunks: Vec<Vec<ArrowColumnChunk>>,
    /// Per row group.
    pub(super) zones: Vec<ZoneMap>,
    /// Per row group; their offsets count from where the chunk begins.
    pub(super) pages: Vec<Pages>,
}

impl ColumnEncoder {
    pub(super) fn new(column: &Column) -> Self {
        let id = (PARQUET_FIELD_ID_META_KEY.to_owned(), column.id.to_string());
        let physical = physical_type(&column.data_type);
        let field = Field::new(&column.name, physical, column.nullable);
        let field = Arc::new(field.with_metadata([id].into()));
        Self {
            column: column.clone(),
            schema: Arc::new(Schema::new(vec![Arc::clone(&field)])),
            field,
            encoding: column.declared.encode,
            chunks: Vec::new(),
            zones: Vec::new(),
            pages: Vec::new(),
        }
    }

    /// Encodes the next row group: all `pieces`, in order.
    pub(super) fn write_row_group(&mut self, pieces: &[ArrayRef]) -> Result<()> {
        let named = |error: StorageError| error.with_column(&self.column.name);
        // Pages begin at the same rows in every column: a page ends with a piece.
        let (pieces, rows) = pieces_of_pages(pieces);
        let zones: Vec<ZoneMap> = pieces.iter().map(ZoneMap::of).collect();
        let page_zones = page_zones(&pieces, &zones, page_count(rows));
        let zone = ZoneMap::merge(pieces.iter().map(|piece| piece.len() as u64).zip(&zones));
        let physical = pieces.iter().map(to_physical).collect::<Result<Vec<_>>>().map_err(named)?;
        let mut encoding = match self.encoding {
            Some(encoding) => encoding,
            None => choose(&self.sample(&physical).map_err(named)?),
        };
        let mut chunks = self.encode(&physical, encoding).map_err(named)?;
        if encoding == ChunkEncoding::Bytedict && chunks.iter().any(fell_back) {
            // The sample misled, or whoever declared it: half a dictionary is slower than none.
            let sample = self.sample(&physical).map_err(named)?;
            encoding = choose(&sample.without_dictionary());
            chunks = self.encode(&physical, encoding).map_err(named)?;
        }
        self.encoding = Some(encoding);
        self.pages.push(Pages {
            zones: page_zones,
            offsets: page_offsets(&chunks, page_count(rows)).unwrap_or_default(),
        });
        self.chunks.push(chunks);
        self.zones.push(zone);
        Ok(())
    }

    fn encode(
        &self,
        pieces: &[ArrayRef],
        encoding: ChunkEncoding,
    ) -> Result<Vec<ArrowColumnChunk>> {
        let properties = Arc::new(properties(encoding).build());
        let parquet_schema = ArrowSchemaConverter::new().convert(&self.schema)?;
        // Column writers come from a file writer; this file itself is never finished.
        let scratch =
            SerializedFileWriter::new(Vec::new(), parquet_schema.root_schema_ptr(), properties)?;
        let factory = ArrowRowGroupWriterFactory::new(&scratch, Arc::clone(&self.schema));
        let mut writers = factory.create_column_writers(0)?;
        for piece in pieces {
            for (writer, leaf) in writers.iter_mut().zip(compute_leaves(&self.field, piece)?) {
                writer.write(&leaf)?;
            }
        }
        Ok(writers.into_iter().map(|writer| writer.close()).collect::<Result<_, _>>()?)
    }

    /// Bytes of values in an encoding, as chunks of one row group; `None` when a dictionary does
    /// not hold them.
    pub(super) fn size_in(
        &self,
        pieces: &[ArrayRef],
        encoding: ChunkEncoding,
    ) -> Result<Option<Sizes>> {
        let chunks = self.encode(pieces, encoding)?;
        if encoding == ChunkEncoding::Bytedict && chunks.iter().any(fell_back) {
            return Ok(None);
        }
        let metadata = chunks.iter().map(|chunk| &chunk.close().metadata);
        Ok(Some(metadata.fold(Sizes::default(), |sizes, chunk| Sizes {
            uncompressed: sizes.uncompressed + chunk.uncompressed_size().unsigned_abs(),
            compressed: sizes.compressed + chunk.compressed_size().unsigned_abs(),
        })))
    }

    /// What the choice is made from.
    fn sample(&self, pieces: &[ArrayRef]) -> Result<Sample> {
        let rows: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.field.data_type() == &DataType::Boolean || rows == 0 {
            return Ok(Sample::default());
        }
        let sample = sample_rows(pieces, rows)?;
        let (values, distinct, once, twice) = count_distinct(&sample).unwrap_or_default();
        let sized = |encoding| -> Result<Sizes> {
            Ok(self.size_in(std::slice::from_ref(&sample), encoding)?.unwrap_or_default())
        };
        let Sizes { uncompressed, compressed } = sized(ChunkEncoding::Lz4)?;
        let delta_bytes = match has_differences(self.field.data_type()) {
            true => Some(sized(ChunkEncoding::Delta)?.uncompressed),
            false => None,
        };
        Ok(Sample {
            // Nested types and fixed-size binary have no count: the sample is not empty though.
            values: match distinct {
                0 => (sample.len() - sample.null_count()) as u64,
                _ => values,
            },
            distinct,
            once,
            twice,
            plain_bytes: uncompressed,
            lz4_bytes: compressed,
            delta_bytes,
            group_rows: rows.min(ROW_GROUP_ROWS as usize) as u64,
        })
    }
}

/// Bytes of encoded values.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    /// Before a block codec.
    pub(super) uncompressed: u64,
    /// As they are stored.
    pub(super) compressed: u64,
}

/// Properties common to everything written here; version 1.0 pages, which decode faster.
pub(super) fn base_properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("basalt-storage version ", env!("CARGO_PKG_VERSION")).to_owned())
        // Zone maps are in the segment metadata.
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
}

fn properties(encoding: ChunkEncoding) -> WriterPropertiesBuilder {
    let codec = match encoding {
        ChunkEncoding::Raw | ChunkEncoding::Bytedict | ChunkEncoding::Delta => {
            Compression::UNCOMPRESSED
        }
        ChunkEncoding::Lz4 => Compression::LZ4_RAW,
        ChunkEncoding::Zstd => {
            Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default())
        }
    };
    let properties = base_properties()
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        // Of the chunk, from which segment metadata has it; the file's own footer has none.
        .set_offset_index_disabled(false)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(WRITE_BATCH_ROWS)
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_dictionary_enabled(encoding == ChunkEncoding::Bytedict)
        .set_compression(codec);
    match encoding {
        ChunkEncoding::Delta => properties.set_encoding(Encoding::DELTA_BINARY_PACKED),
        _ => properties,
    }
}

/// The same values in pieces of which none is in two pages, and how many they are.
fn pieces_of_pages(pieces: &[ArrayRef]) -> (Vec<ArrayRef>, u32) {
    let page_rows = PAGE_ROWS as usize;
    let (mut cut, mut rows) = (Vec::with_capacity(pieces.len()), 0);
    for piece in pieces {
        let mut from = 0;
        while from < piece.len() {
            let length = (page_rows - rows % page_rows).min(piece.len() - from);
            cut.push(piece.slice(from, length));
            (from, rows) = (from + length, rows + length);
        }
    }
    // Fits: a row group has at most ROW_GROUP_ROWS rows.
    (cut, rows as u32)
}

/// What is known of each page, by what is known of its pieces; nothing for a single page.
fn page_zones(pieces: &[ArrayRef], zones: &[ZoneMap], pages: usize) -> Vec<ZoneMap> {
    if pages < 2 {
        return vec![];
    }
    let mut of_page: Vec<Vec<(u64, &ZoneMap)>> = vec![vec![]; pages];
    let mut rows = 0;
    for (piece, zone) in pieces.iter().zip(zones) {
        of_page[rows / PAGE_ROWS as usize].push((piece.len() as u64, zone));
        rows += piece.len();
    }
    of_page.into_iter().map(ZoneMap::merge).collect()
}

/// Where the pages of a chunk will begin, counted from its first byte: they are its end, one after the
/// other, and a dictionary comes before them. `None` when they are cut elsewhere than every [`PAGE_ROWS`]
/// rows, or there are several leaves.
fn page_offsets(chunks: &[ArrowColumnChunk], pages: usize) -> Option<Vec<u64>> {
    let [chunk] = chunks else { return None };
    let found = &chunk.close().offset_index.as_ref()?.page_locations;
    let expected = (0..pages as i64).map(|page| page * i64::from(PAGE_ROWS));
    if !found.iter().map(|page| page.first_row_index).eq(expected) {
        return None;
    }
    let mut offset = u64::try_from(chunk.close().metadata.compressed_size()).ok()?;
    let mut offsets = Vec::with_capacity(found.len());
    for page in found.iter().rev() {
        offset = offset.checked_sub(u64::try_from(page.compressed_page_size).ok()?)?;
        offsets.push(offset);
    }
    offsets.reverse();
    Some(offsets)
}

/// Whether a chunk begun with a dictionary outgrew it.
fn fell_back(chunk: &ArrowColumnChunk) -> bool {
    let pages = chunk.close().metadata.page_encoding_stats();
    pages.is_some_and(|pages| {
        pages
            .iter()
            .any(|page| page.page_type == PageType::DATA_PAGE && page.encoding == Encoding::PLAIN)
    })
}

fn sample_rows(pieces: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let run = SAMPLE_ROWS / SAMPLE_RUNS;
    let mut slices: Vec<ArrayRef> = Vec::new();
    for index in 0..SAMPLE_RUNS {
        let start = if rows <= SAMPLE_ROWS { index * run } else { index * (rows / SAMPLE_RUNS) };
        let mut skip = start;
        let mut want = run.min(rows.saturating_sub(start));
        for piece in pieces {
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let take = want.min(piece.len() - skip);
            slices.push(piece.slice(skip, take));
            (skip, want) = (0, want - take);
            if want == 0 {
                break;
            }
        }
    }
    let slices: Vec<&dyn Array> = slices.iter().map(|slice| slice.as_ref()).collect();
    Ok(concat(&slices)?)
}
