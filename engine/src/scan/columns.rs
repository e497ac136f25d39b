//! The columns of a row group: what is in the column cache, bytes of the others, and both opened.

use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use arrow::compute::{concat, filter};
use basalt_storage::row_group::{RowGroupColumn, RowSelection, open_row_group};
use basalt_storage::segment_meta::SegmentMeta;
use basalt_storage::segment_reader::VerifiedBytes;
use datafusion::common::{DataFusionError, internal_datafusion_err};
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};

use super::column_rows::{ColumnRows, DecodedRows, Decoding, Keep};
use super::pages::KeptPages;
use super::predicate::{TestedBatch, row_selection};
use super::row_ids::{ROW_ID_COLUMN, row_id};
use super::segments::ScanSegments;
use super::{ScanSegment, ScanTable, SegmentScanExec};
use crate::chunks::{ChunkRead, ChunkSource, ChunkSourceExtension, ReadCost};
use crate::column_cache::{ColumnCache, ColumnKey, DecodedColumn, Weigher};
use crate::error::storage_error;
use crate::session::FragmentOptions;

/// Rows of a batch below which a scan does not use the cache: what small pieces take beside their values
/// would not be worth keeping, and who holds a small piece of a large one is charged for all of it.
const CACHED_BATCH_ROWS_MIN: usize = 1_024;

/// One row group waiting to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowGroup {
    pub(super) segment: usize,
    pub(super) index: usize,
}

/// A row group of which some columns were fetched.
pub(super) struct Fetched {
    pub(super) row_group: RowGroup,
    pub(super) meta: Arc<SegmentMeta>,
    /// In the order that they were asked for.
    pub(super) columns: Vec<FetchedColumn>,
    /// The pages that they were fetched of; `None` when it is all.
    pub(super) pages: Option<Arc<KeptPages>>,
}

/// What a column of a row group will be made of.
pub(super) enum FetchedColumn {
    /// Nothing: the segment lacks it, or it is the row id.
    Unstored,
    /// Of the whole row group, or of the pages that were asked for.
    Bytes(VerifiedBytes),
    Decoded(Arc<DecodedColumn>),
}

/// The rows of a row group that are wanted, when they are few.
pub(super) struct Chosen<'a> {
    tested: &'a [TestedBatch],
    selection: RowSelection,
}

impl<'a> Chosen<'a> {
    pub(super) fn new(tested: &'a [TestedBatch]) -> Self {
        Self { tested, selection: row_selection(tested) }
    }
}

/// Where a scan gets columns from.
pub(super) struct ScanColumns {
    table: Arc<ScanTable>,
    segments: Arc<ScanSegments>,
    source: Arc<dyn ChunkSource>,
    /// Where columns are found and kept, if anywhere, and what those take that are collected.
    cache: Option<(Arc<ColumnCache>, MemoryReservation)>,
    finds_columns: bool,
    batch_rows: usize,
}

impl ScanColumns {
    pub(super) fn new(scan: &SegmentScanExec, context: &TaskContext) -> Result<Self> {
        let config = context.session_config();
        let options = FragmentOptions::of(config.options());
        let is_used = |cache: &Arc<ColumnCache>| {
            options.caches_columns
                && cache.is_enabled()
                && config.batch_size() >= CACHED_BATCH_ROWS_MIN
        };
        let collected =
            || MemoryConsumer::new("columns to be cached").register(context.memory_pool());
        let cache = config.get_extension::<ColumnCache>().filter(is_used);
        let cache = cache.map(|cache| (cache, collected()));
        Ok(Self {
            table: Arc::clone(&scan.table),
            segments: Arc::clone(&scan.segments),
            source: ChunkSourceExtension::from_task(context)?,
            cache,
            finds_columns: options.finds_columns,
            batch_rows: config.batch_size(),
        })
    }

    pub(super) fn table(&self) -> &ScanTable {
        &self.table
    }

    pub(super) fn segment(&self, row_group: RowGroup) -> &ScanSegment {
        &self.segments[row_group.segment]
    }

    /// Rows of a row group.
    pub(super) fn rows_of(&self, row_group: RowGroup) -> Result<usize> {
        self.segments
            .get(row_group.segment)
            .and_then(|segment| segment.row_groups.get(row_group.index))
            .map(|rows| *rows as usize)
            .ok_or_else(|| {
                internal_datafusion_err!("a scan unit names no row group of its segment")
            })
    }

    /// The position in its segment of a row group's first row.
    pub(super) fn first_position(&self, row_group: RowGroup) -> Result<u32> {
        let before = &self.segment(row_group).row_groups[..row_group.index];
        u32::try_from(before.iter().map(|rows| u64::from(*rows)).sum::<u64>())
            .map_err(|_| too_many_rows())
    }

    pub(super) async fn meta(&self, row_group: RowGroup) -> Result<Arc<SegmentMeta>> {
        self.source.segment_meta(&self.table, self.segment(row_group)).await
    }

    /// Columns of a row group, or of some pages of it, from the cache as far as they are there. Those of
    /// which pages were read again and again are read and decoded as a whole.
    pub(super) async fn fetch(
        &self,
        row_group: RowGroup,
        meta: &Arc<SegmentMeta>,
        columns: &[usize],
        pages: Option<&KeptPages>,
    ) -> Result<(Vec<FetchedColumn>, ReadCost)> {
        let segment = self.segment(row_group);
        let find = |column: &usize| self.find(row_group, meta, *column);
        let found: Vec<_> = columns.iter().map(find).collect();
        let missing = columns.iter().zip(&found).filter(|(_, found)| found.is_none());
        let reads: Vec<_> = missing
            .map(|(column, _)| ChunkRead {
                column: self.table.columns[*column],
                row_group: row_group.index,
                pages: pages
                    .filter(|_| !self.is_asked(row_group, *column))
                    .map(|pages| Arc::clone(&pages.wanted)),
            })
            .collect();
        let (bytes, mut cost) = match reads.is_empty() {
            true => (vec![], ReadCost::default()),
            false => self.source.read(&self.table, segment, meta, &reads).await?,
        };
        let mut read = reads.iter().zip(bytes);
        let fetched = columns.iter().zip(found).map(|(column, found)| {
            if let Some(found) = found {
                if let FetchedColumn::Decoded(column) = &found {
                    cost.cached_bytes += column.bytes();
                }
                return Ok(found);
            }
            let (read, bytes) = read.next().ok_or_else(|| {
                internal_datafusion_err!("a chunk source returned too few chunks")
            })?;
            if pages.is_some() && read.pages.is_none() {
                let decoded = self.decode_whole(row_group, meta, *column, &bytes)?;
                return Ok(FetchedColumn::Decoded(decoded));
            }
            Ok(FetchedColumn::Bytes(bytes))
        });
        Ok((fetched.collect::<Result<_>>()?, cost))
    }

    /// Whether a column was asked for so often that it is worth to be decoded as a whole.
    fn is_asked(&self, row_group: RowGroup, column: usize) -> bool {
        self.cache.as_ref().is_some_and(|(cache, _)| cache.ask(&self.key(row_group, column)))
    }

    /// Bytes on disk of the read columns in a row group.
    pub(super) fn bytes_of(&self, row_group: RowGroup, meta: &SegmentMeta) -> u64 {
        let stored = self.table.columns.iter().filter_map(|column| meta.column(*column));
        stored.filter_map(|column| column.extent(row_group.index)).map(|extent| extent.length).sum()
    }

    /// A column that need not be read.
    fn find(
        &self,
        row_group: RowGroup,
        meta: &SegmentMeta,
        column: usize,
    ) -> Option<FetchedColumn> {
        let Some(Some(version)) = self.segment(row_group).column_versions.get(column) else {
            return Some(FetchedColumn::Unstored);
        };
        // What the plan says of the column must be so; who reads it says that it is not.
        let stored = meta.column(self.table.columns[column])?;
        if stored.version() != *version {
            return None;
        }
        let data_type = self.table.schema.field(column).data_type();
        let (cache, _) = self.cache.as_ref().filter(|_| self.finds_columns)?;
        let found = cache.get(&self.key(row_group, column), data_type);
        found.map(FetchedColumn::Decoded)
    }

    /// Decodes those of which few rows are wanted as a whole, where that was so before.
    pub(super) fn decode_asked(
        &self,
        row_group: RowGroup,
        meta: &SegmentMeta,
        columns: &[usize],
        fetched: &mut [FetchedColumn],
    ) -> Result<()> {
        for (column, fetched) in columns.iter().zip(fetched) {
            let FetchedColumn::Bytes(bytes) = fetched else { continue };
            if self.is_asked(row_group, *column) {
                let decoded = self.decode_whole(row_group, meta, *column, bytes)?;
                *fetched = FetchedColumn::Decoded(decoded);
            }
        }
        Ok(())
    }

    /// Decodes a column of a row group as a whole, for the cache too.
    fn decode_whole(
        &self,
        row_group: RowGroup,
        meta: &SegmentMeta,
        column: usize,
        bytes: &VerifiedBytes,
    ) -> Result<Arc<DecodedColumn>> {
        let keep = self.keep(row_group, column, bytes);
        let reader = self.decoder(row_group, meta, column, bytes, None)?;
        let mut decoding = ColumnRows::Decoding(Box::new(Decoding::new(reader, keep)));
        let (mut left, mut pieces) = (self.rows_of(row_group)?, Vec::new());
        while left > 0 {
            let rows = left.min(self.batch_rows);
            pieces.push(decoding.take(rows)?);
            left -= rows;
        }
        let data_type = self.table.schema.field(column).data_type().clone();
        Ok(Arc::new(DecodedColumn::new(data_type, pieces, bytes.length())))
    }

    /// Opens columns of a row group, or of those pages of it that they were fetched of: all rows, or the
    /// chosen ones.
    pub(super) fn open(
        &self,
        columns: &[usize],
        fetched: &Fetched,
        chosen: Option<&Chosen<'_>>,
    ) -> Result<Vec<(usize, ColumnRows)>> {
        let Fetched { row_group, meta, columns: fetched, pages } = fetched;
        let (row_group, pages) = (*row_group, pages.as_deref());
        let selection = || {
            let chosen = chosen.map(|chosen| &chosen.selection);
            pages.map_or_else(|| chosen.cloned(), |pages| Some(pages.selection(chosen)))
        };
        let open = |(column, fetched): (&usize, &FetchedColumn)| {
            let rows = match fetched {
                FetchedColumn::Unstored => {
                    self.unstored(row_group, *column, selection().as_ref())?
                }
                FetchedColumn::Decoded(decoded) => {
                    let decoded = match pages {
                        None => DecodedRows::new(Arc::clone(decoded)),
                        Some(pages) => DecodedRows::within(Arc::clone(decoded), &pages.ranges),
                    };
                    match chosen {
                        None => ColumnRows::Decoded(decoded),
                        Some(chosen) => chosen_rows(decoded, chosen)?,
                    }
                }
                FetchedColumn::Bytes(bytes) => {
                    let selection = selection();
                    let keep = match selection {
                        None => self.keep(row_group, *column, bytes),
                        Some(_) => None,
                    };
                    let reader = self.decoder(row_group, meta, *column, bytes, selection)?;
                    ColumnRows::Decoding(Box::new(Decoding::new(reader, keep)))
                }
            };
            Ok((*column, rows))
        };
        columns.iter().zip(fetched).map(open).collect()
    }

    fn unstored(
        &self,
        row_group: RowGroup,
        column: usize,
        selection: Option<&RowSelection>,
    ) -> Result<ColumnRows> {
        if self.table.columns[column] != ROW_ID_COLUMN {
            // The segment is older than the column: every value is NULL.
            return Ok(ColumnRows::Absent(self.table.schema.field(column).data_type().clone()));
        }
        let first = self.first_position(row_group)?;
        let next = row_id(self.segment(row_group).ordinal, first);
        Ok(ColumnRows::ids(next, selection))
    }

    fn decoder(
        &self,
        row_group: RowGroup,
        meta: &SegmentMeta,
        column: usize,
        bytes: &VerifiedBytes,
        selection: Option<RowSelection>,
    ) -> Result<RowGroupColumn> {
        let target = self.table.schema.field(column).data_type();
        let (id, pieces) = (self.table.columns[column], self.batch_rows);
        open_row_group(meta, id, row_group.index, bytes, target, pieces, selection)
            .map_err(storage_error)
    }

    /// Where a column that is decoded as a whole goes.
    fn keep(&self, row_group: RowGroup, column: usize, bytes: &VerifiedBytes) -> Option<Keep> {
        let (cache, collected) = self.cache.as_ref().filter(|(cache, _)| cache.is_open())?;
        Some(Keep {
            cache: Arc::clone(cache),
            key: self.key(row_group, column),
            data_type: self.table.schema.field(column).data_type().clone(),
            rows_left: self.rows_of(row_group).ok()?,
            pieces: Vec::new(),
            weigher: Weigher::new(bytes),
            reservation: collected.new_empty(),
        })
    }

    fn key(&self, row_group: RowGroup, column: usize) -> ColumnKey {
        let segment = self.segment(row_group);
        ColumnKey {
            segment: segment.segment,
            meta_digest: segment.meta_digest,
            column: self.table.columns[column],
            row_group: row_group.index,
        }
    }
}

/// The chosen rows of a column that is decoded.
fn chosen_rows(mut decoded: DecodedRows, chosen: &Chosen<'_>) -> Result<ColumnRows> {
    let data_type = decoded.data_type().clone();
    let mut kept: Vec<ArrayRef> = Vec::new();
    for batch in chosen.tested {
        let values = decoded.take(batch.mask.len())?;
        if batch.passed > 0 {
            kept.push(filter(&values, &batch.mask)?);
        }
    }
    let values = match kept.is_empty() {
        true => new_empty_array(&data_type),
        false => concat(&kept.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    };
    let chosen = Arc::new(DecodedColumn::new(data_type, vec![values], 0));
    Ok(ColumnRows::Decoded(DecodedRows::new(chosen)))
}

pub(super) fn too_many_rows() -> DataFusionError {
    internal_datafusion_err!("a segment has more rows than positions")
}
