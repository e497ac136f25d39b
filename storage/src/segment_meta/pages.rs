//! Pages: runs of [`PAGE_ROWS`] rows of a row group, the same in every column.
//!
//! What is known of the values of each, and where it lies in the file. A scan that needs few pages of a row
//! group reads and decodes no others. A row group of one page is as good as its own zone map, so that
//! its page has none.

use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::offset_index::{OffsetIndexMetaData, PageLocation};

use super::{ByteRange, ColumnMeta};
use crate::error::{Result, StorageError};
use crate::layout::PAGE_ROWS;
use crate::zone_map::ZoneMap;

/// Bytes between two pages that are read along: less than a request of its own costs.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// The pages of one column in one row group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Pages {
    /// One per page; empty for a single page, and in segments that were written before there were any.
    pub(crate) zones: Vec<ZoneMap>,
    /// Where each page begins in the file; empty where Parquet's pages are others, as those of nested
    /// types and of very long values.
    pub(crate) offsets: Vec<u64>,
}

/// Pages of a row group of `rows` rows.
pub(crate) fn page_count(rows: u32) -> usize {
    rows.div_ceil(PAGE_ROWS) as usize
}

impl ColumnMeta {
    /// What is known of the values of each page of a row group; empty when nothing is.
    pub fn page_zones(&self, row_group: usize) -> &[ZoneMap] {
        self.pages.get(row_group).map(|pages| pages.zones.as_slice()).unwrap_or_default()
    }

    /// Where some pages of a row group lie, with the dictionary if there is one: runs of whole blocks, in
    /// order. `None` when it is not known where pages begin, or there is no such row group.
    pub fn page_ranges(&self, row_group: usize, wanted: &[bool]) -> Option<Vec<ByteRange>> {
        let (extent, pages) = (self.extent(row_group)?, self.pages.get(row_group)?);
        if pages.offsets.is_empty() || pages.offsets.len() != wanted.len() {
            return None;
        }
        let first = *pages.offsets.first()?;
        let dictionary = (extent.offset < first)
            .then_some(ByteRange { offset: extent.offset, length: first - extent.offset });
        let ends = pages.offsets.iter().skip(1).copied().chain([extent.end()]);
        let data = pages.offsets.iter().zip(ends).zip(wanted).filter(|(_, wanted)| **wanted);
        let data = data.map(|((start, end), _)| ByteRange {
            offset: *start,
            length: end.saturating_sub(*start),
        });
        let mut ranges: Vec<ByteRange> = Vec::new();
        for range in dictionary.into_iter().chain(data).map(|range| self.blocks_for(range)) {
            match ranges.last_mut() {
                Some(last) if range.offset <= last.end().saturating_add(GAP_BYTES_MAX) => {
                    last.length = range.end().max(last.end()) - last.offset;
                }
                _ => ranges.push(range),
            }
        }
        Some(ranges)
    }

    /// The footer with the places of pages, when all of them are known.
    pub(super) fn with_page_locations(&self, footer: ParquetMetaData) -> Result<ParquetMetaData> {
        let is_known = self.pages.iter().all(|pages| !pages.offsets.is_empty());
        if !is_known || self.pages.is_empty() {
            return Ok(footer);
        }
        let groups = self.pages.iter().zip(&self.extents);
        let index: Option<Vec<_>> = groups
            .map(|(pages, extent)| locations(pages, *extent).map(|index| vec![index]))
            .collect();
        let index =
            index.ok_or_else(|| StorageError::corrupt(self.path(), "its pages are too long"))?;
        Ok(footer.into_builder().set_offset_index(Some(index)).build())
    }
}

fn locations(pages: &Pages, extent: ByteRange) -> Option<OffsetIndexMetaData> {
    let ends = pages.offsets.iter().skip(1).copied().chain([extent.end()]);
    let locations = pages.offsets.iter().zip(ends).zip(0..).map(|((start, end), page)| {
        Some(PageLocation {
            offset: i64::try_from(*start).ok()?,
            compressed_page_size: i32::try_from(end.checked_sub(*start)?).ok()?,
            first_row_index: page * i64::from(PAGE_ROWS),
        })
    });
    Some(OffsetIndexMetaData {
        page_locations: locations.collect::<Option<_>>()?,
        unencoded_byte_array_data_bytes: None,
    })
}

/// Pages as a metadata file has them: those of all row groups, one after the other.
///
/// # Errors
/// What is wrong, when there are not as many as row groups make, or they lie elsewhere.
pub(super) fn from_flat(
    row_groups: &[u32],
    extents: &[ByteRange],
    zones: Vec<ZoneMap>,
    offsets: &[u64],
) -> std::result::Result<Vec<Pages>, &'static str> {
    let zoned = |rows: u32| if rows > PAGE_ROWS { page_count(rows) } else { 0 };
    let zones_expected: usize = row_groups.iter().map(|rows| zoned(*rows)).sum();
    if !zones.is_empty() && zones.len() != zones_expected {
        return Err("it has not one zone map per page");
    }
    let offsets_expected: usize = row_groups.iter().map(|rows| page_count(*rows)).sum();
    if !offsets.is_empty() && offsets.len() != offsets_expected {
        return Err("it has not one offset per page");
    }
    let (mut zones, mut offsets) = (zones.into_iter(), offsets.iter().copied());
    let mut pages = Vec::with_capacity(row_groups.len());
    for (rows, extent) in row_groups.iter().zip(extents) {
        let of_group = Pages {
            zones: zones.by_ref().take(zoned(*rows)).collect(),
            offsets: offsets.by_ref().take(page_count(*rows)).collect(),
        };
        let lies_within = |offset: &u64| (extent.offset..extent.end()).contains(offset);
        if !of_group.offsets.iter().all(lies_within)
            || !of_group.offsets.is_sorted_by(|before, after| before < after)
        {
            return Err("a page lies outside its row group");
        }
        pages.push(of_group);
    }
    Ok(pages)
}
