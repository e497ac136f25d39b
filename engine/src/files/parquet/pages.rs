//! The bytes of a foreign file, with a bound on what its pages become in memory.
//!
//! A page says how large it will be, and decoders believe it: they make room first. Gzip and
//! Brotli are not even asked, and a kilobyte of them can become a gigabyte. So page headers are
//! looked at before they are decoded, and what could grow beyond its word is inflated once into
//! nothing.
//!
//! ```text
//! page: | type | size inflated | size | (crc) | (levels of a v2 page) ... | bytes
//!        \_________________ looked at here ____________________________/
//! ```
//!
//! Invariant: of all pages that are in memory for one reader, none is larger than
//! [`PAGE_BYTES_MAX`], and those above [`LARGE_PAGE_BYTES`] are not larger than
//! [`LARGE_PAGES_BYTES_MAX`] together.
//!
//! Not here: whether a page's bytes mean anything; the decoder says that.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, sink};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

/// The largest page, inflated. Writers aim at one megabyte, and a page holds at least one value.
const PAGE_BYTES_MAX: u64 = 256 << 20;

/// Pages up to this size are as large as the number of columns lets expect.
const LARGE_PAGE_BYTES: u64 = 4 << 20;

/// Pages above that size in one reader, of all its columns together.
const LARGE_PAGES_BYTES_MAX: u64 = 1 << 30;

/// The most that a byte of Gzip (deflate) can become.
const GZIP_RATIO_MAX: u64 = 1_032;

/// The largest page of the old LZ4 codec, deflated: a byte of it can become 255.
const LZ4_BYTES_MAX: u64 = 4 << 20;

/// A file whose pages are looked at before they are decoded.
#[derive(Debug)]
pub(super) struct BoundedFile {
    file: File,
    /// Column chunks that will be read, by their start.
    chunks: Vec<Chunk>,
    seen: Arc<Mutex<Seen>>,
}

/// Where a column chunk is, and what is known of its pages.
#[derive(Debug)]
struct Chunk {
    range: Range<u64>,
    compression: Compression,
    /// Where it and all before it end.
    reach: u64,
}

/// What the headers said so far.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes before the compressed part of each page whose bytes were not asked for yet, by the
    /// place of its header.
    levels: BTreeMap<u64, u64>,
    /// The size of the last large page of each chunk.
    large: HashMap<usize, u64>,
}

impl BoundedFile {
    /// A file of which one row group will be read.
    pub(super) fn new(file: File, metadata: &ParquetMetaData, group: usize) -> Self {
        let groups = metadata.row_groups();
        let mut chunks: Vec<Chunk> = groups
            .get(group)
            .into_iter()
            .flat_map(|group| group.columns())
            .map(|chunk| {
                let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                let start = u64::try_from(start).unwrap_or_default();
                let bytes = u64::try_from(chunk.compressed_size()).unwrap_or_default();
                let range = start..start.saturating_add(bytes);
                Chunk { reach: range.end, range, compression: chunk.compression() }
            })
            .collect();
        chunks.sort_by_key(|chunk| chunk.range.start);
        let mut reach = 0;
        for chunk in &mut chunks {
            reach = reach.max(chunk.range.end);
            chunk.reach = reach;
        }
        Self { file, chunks, seen: Arc::default() }
    }

    /// The chunks that a place is in: one, unless somebody made the file to confuse readers.
    ///
    /// Asked for every page, so it must not look at all of perhaps ten thousand chunks.
    fn chunks_at(&self, place: u64) -> impl Iterator<Item = (usize, Compression)> {
        let started = self.chunks.partition_point(|chunk| chunk.range.start <= place);
        let started = self.chunks.iter().enumerate().take(started).rev();
        started
            .take_while(move |(_, chunk)| chunk.reach > place)
            .filter(move |(_, chunk)| chunk.range.contains(&place))
            .map(|(index, chunk)| (index, chunk.compression))
    }
}

impl Length for BoundedFile {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for BoundedFile {
    type T = HeaderReader;

    fn get_read(&self, start: u64) -> Result<HeaderReader> {
        Ok(HeaderReader {
            inner: self.file.get_read(start)?,
            start,
            looked_at: false,
            chunks: self.chunks_at(start).map(|(index, _)| index).collect(),
            seen: Arc::clone(&self.seen),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.file.get_bytes(start, length)?;
        let levels = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let header = seen.levels.range(..=start).next_back().map(|(place, _)| *place);
            header.and_then(|place| seen.levels.remove(&place)).unwrap_or(0)
        };
        let levels = usize::try_from(levels).unwrap_or(usize::MAX);
        let deflated = bytes.get(levels..).unwrap_or_default();
        for (_, compression) in self.chunks_at(start) {
            check_inflated(deflated, compression)?;
        }
        Ok(bytes)
    }
}

/// Refuses bytes that become more than a page may have.
fn check_inflated(deflated: &[u8], compression: Compression) -> Result<()> {
    let length = deflated.len() as u64;
    // Bytes that cannot be inflated are left to the decoder, which says what is wrong with them.
    let inflated = |inflater: &mut dyn Read| {
        std::io::copy(&mut Read::take(inflater, PAGE_BYTES_MAX + 1), &mut sink()).unwrap_or(0)
    };
    let too_large = match compression {
        Compression::GZIP(_) if length.saturating_mul(GZIP_RATIO_MAX) > PAGE_BYTES_MAX => {
            inflated(&mut flate2::read::MultiGzDecoder::new(deflated)) > PAGE_BYTES_MAX
        }
        Compression::BROTLI(_) => {
            const BUFFER_BYTES: usize = 4_096;
            inflated(&mut brotli::Decompressor::new(deflated, BUFFER_BYTES)) > PAGE_BYTES_MAX
        }
        Compression::LZ4 => length > LZ4_BYTES_MAX,
        // These make exactly as much as the header says, or fail.
        _ => false,
    };
    if too_large { Err(too_large_page(PAGE_BYTES_MAX + 1)) } else { Ok(()) }
}

fn too_large_page(bytes: u64) -> ParquetError {
    ParquetError::General(format!(
        "a page becomes {bytes} bytes or more: at most {PAGE_BYTES_MAX} are read"
    ))
}

/// A page header on its way to the decoder.
#[derive(Debug)]
pub(super) struct HeaderReader {
    inner: BufReader<File>,
    start: u64,
    looked_at: bool,
    /// The chunks that the header is in.
    chunks: Vec<usize>,
    seen: Arc<Mutex<Seen>>,
}

impl Read for HeaderReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        // Only what is read is a header: the decoder also opens pages whose header it has.
        if !self.looked_at {
            self.looked_at = true;
            self.look_at().map_err(std::io::Error::other)?;
        }
        self.inner.read(buffer)
    }
}

impl HeaderReader {
    fn look_at(&mut self) -> Result<()> {
        let Some(header) = PageHeader::parse(self.inner.fill_buf()?) else {
            return Err(ParquetError::General("a page header is malformed".to_owned()));
        };
        if header.bytes > PAGE_BYTES_MAX {
            return Err(too_large_page(header.bytes));
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.levels.insert(self.start, header.levels);
        for chunk in &self.chunks {
            match header.bytes > LARGE_PAGE_BYTES {
                true => seen.large.insert(*chunk, header.bytes),
                false => seen.large.remove(chunk),
            };
        }
        let large: u64 = seen.large.values().sum();
        if large > LARGE_PAGES_BYTES_MAX {
            return Err(ParquetError::General(format!(
                "pages of {large} bytes would be in memory at once: at most {LARGE_PAGES_BYTES_MAX} are read"
            )));
        }
        Ok(())
    }
}

/// What the start of a page header says.
#[derive(Debug, PartialEq, Eq)]
struct PageHeader {
    /// The page's size when it is inflated.
    bytes: u64,
    /// How much of it is levels in front of the compressed part.
    levels: u64,
}

impl PageHeader {
    /// Reads the first fields of Thrift's compact form. Every writer puts them in this order.
    fn parse(bytes: &[u8]) -> Option<Self> {
        const I32: u8 = 0x15; // the next field, an i32
        const V2: i64 = 3;
        let mut thrift = Thrift(bytes);
        let mut number = |field: u8| thrift.field(field).then(|| thrift.number()).flatten();
        let (kind, inflated, _deflated) = (number(I32)?, number(I32)?, number(I32)?);
        let bytes = u64::try_from(inflated).ok()?;
        let mut levels = 0;
        if kind == V2 {
            // Field 8, a struct, after field 3 or after the checksum in field 4.
            let after = if number(I32).is_some() { 0x4c } else { 0x5c };
            if !thrift.field(after) {
                return None;
            }
            let mut number = || thrift.field(I32).then(|| thrift.number()).flatten();
            let [_values, _nulls, _rows, _encoding] = [number()?, number()?, number()?, number()?];
            levels = u64::try_from(number()?).ok()? + u64::try_from(number()?).ok()?;
        }
        Some(Self { bytes, levels })
    }
}

/// A cursor over Thrift's compact form.
struct Thrift<'a>(&'a [u8]);

impl Thrift<'_> {
    /// The next byte is this field's header: read it.
    fn field(&mut self, header: u8) -> bool {
        match self.0.split_first() {
            Some((first, rest)) if *first == header => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    /// A number: seven bits a byte, the sign in the lowest bit.
    fn number(&mut self) -> Option<i64> {
        const BYTES_MAX: usize = 5;
        let length = self.0.iter().take(BYTES_MAX).position(|byte| byte & 0x80 == 0)? + 1;
        let (digits, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let raw = digits.iter().rev().fold(0_u64, |n, byte| (n << 7) | u64::from(byte & 0x7f));
        let half = i64::try_from(raw >> 1).ok()?;
        Some(if raw & 1 == 0 { half } else { -half - 1 })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn headers_of_both_kinds_of_pages_are_read() {
        // Type 0, 300 bytes inflated, 20 deflated.
        let v1 = [0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x28, 0x2c];
        assert_eq!(PageHeader::parse(&v1), Some(PageHeader { bytes: 300, levels: 0 }));
        let numbers = [0x15, 2, 0x15, 2, 0x15, 2, 0x15, 2, 0x15, 10, 0x15, 4];
        let v2 = [&[0x15, 0x06, 0x15, 0xd8, 0x04, 0x15, 0x28, 0x5c][..], &numbers].concat();
        assert_eq!(PageHeader::parse(&v2), Some(PageHeader { bytes: 300, levels: 7 }));
        let with_checksum =
            [&[0x15, 0x06, 0x15, 0xd8, 0x04, 0x15, 0x28, 0x15, 0x99, 0x01, 0x4c][..], &numbers];
        let parsed = PageHeader::parse(&with_checksum.concat());
        assert_eq!(parsed, Some(PageHeader { bytes: 300, levels: 7 }));
        for cut in 0..6 {
            assert_eq!(PageHeader::parse(&v1[..cut]), None);
        }
        assert_eq!(PageHeader::parse(&[0x15, 0, 0x15, 0x01, 0x15, 0]), None, "a negative size");
    }

    #[test]
    fn bytes_that_inflate_beyond_a_page_are_refused() {
        let zeros = vec![0; 1 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let mut brotli = brotli::CompressorWriter::new(Vec::new(), 4_096, 5, 22);
        for _ in 0..257 {
            gzip.write_all(&zeros).unwrap();
            brotli.write_all(&zeros).unwrap();
        }
        let gzip = gzip.finish().unwrap();
        let brotli = brotli.into_inner();
        assert!(gzip.len() < 1 << 20 && brotli.len() < 1 << 20);
        assert!(check_inflated(&gzip, Compression::GZIP(Default::default())).is_err());
        assert!(check_inflated(&brotli, Compression::BROTLI(Default::default())).is_err());
        // What is no such thing is for the decoder to refuse.
        assert!(check_inflated(&zeros, Compression::GZIP(Default::default())).is_ok());
        assert!(check_inflated(b"\xff\xff", Compression::BROTLI(Default::default())).is_ok());
    }
}
