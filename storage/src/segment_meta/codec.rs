//! Metadata to bytes and back, with every check that makes the result trustworthy.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use prost::Message;
use uuid::Uuid;

use super::{
    ByteRange, ColumnMeta, FileMeta, SEGMENT_META_BYTES_MAX, SegmentMeta, pages, proto, types,
};
use crate::digest::Digest;
use crate::error::{Result, StorageError};
use crate::ids::{ClusterId, ColumnId, ColumnVersion, SegmentId, SliceId, TableId, TxnId};
use crate::layout::{BLOCK_BYTES, FORMAT_VERSION, ROW_GROUP_ROWS, SEGMENT_ROWS_MAX, SegmentKey};
use crate::manifest::Layout;
use crate::zone_map::{ZoneMap, ZoneValue};

const MAGIC: &[u8; 8] = b"BSLTSEGM";
/// Magic, version, payload length.
const HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// The bytes of a metadata file.
///
/// # Errors
/// [`StorageError::UnsupportedType`] when a column is not in storage form,
/// [`StorageError::InvalidData`] beyond [`SEGMENT_META_BYTES_MAX`].
pub(crate) fn encode(meta: &SegmentMeta) -> Result<Vec<u8>> {
    let payload = to_proto(meta)?.encode_to_vec();
    let total = HEADER_BYTES + payload.len() + CRC_BYTES;
    if total as u64 > SEGMENT_META_BYTES_MAX {
        return Err(StorageError::invalid_data(format!(
            "a segment's metadata takes {total} bytes, more than {SEGMENT_META_BYTES_MAX}"
        )));
    }
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    // Fits: bounded above.
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Reads and checks the bytes of a metadata file.
pub(super) fn decode(bytes: &[u8]) -> Result<SegmentMeta> {
    let payload = unframe(bytes)?;
    let message = proto::SegmentMeta::decode(payload).map_err(|e| bad(&e.to_string()))?;
    from_proto(message)
}

fn bad(detail: &str) -> StorageError {
    StorageError::corrupt("segment metadata", detail)
}

fn unframe(bytes: &[u8]) -> Result<&[u8]> {
    let (header, rest) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| bad("it is too short"))?;
    let (magic, numbers) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(bad("it does not start with the magic bytes"));
    }
    let (version, length) = numbers.split_at(4);
    let version = le_u32(version);
    if version > FORMAT_VERSION {
        return Err(StorageError::NewerFormat {
            path: "segment metadata".into(),
            found: version,
            supported: FORMAT_VERSION,
        });
    }
    if version == 0 {
        return Err(bad("format version 0 does not exist"));
    }
    let (payload, crc) =
        rest.split_last_chunk::<CRC_BYTES>().ok_or_else(|| bad("it is too short"))?;
    if payload.len() as u64 != u64::from(le_u32(length)) {
        return Err(bad("its length is not the one it states"));
    }
    if crc32c::crc32c(&bytes[..bytes.len() - CRC_BYTES]) != u32::from_le_bytes(*crc) {
        return Err(bad("its checksum does not match"));
    }
    Ok(payload)
}

/// The first four bytes; 0 of fewer, which no caller has.
fn le_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().copied().map(u32::from_le_bytes).unwrap_or_default()
}

fn to_proto(meta: &SegmentMeta) -> Result<proto::SegmentMeta> {
    let mut files: Vec<Arc<FileMeta>> = Vec::new();
    let mut columns = Vec::with_capacity(meta.columns.len());
    for column in meta.columns.values() {
        // Chunks of a packed segment share the one file; column files are all different.
        if files.is_empty() || meta.layout == Layout::Wide {
            files.push(Arc::clone(&column.file));
        }
        columns.push(column_to_proto(column, files.len() - 1)?);
    }
    Ok(proto::SegmentMeta {
        cluster: meta.cluster.0.as_bytes().to_vec(),
        table: meta.key.table.0,
        slice: meta.key.slice.0.into(),
        segment: meta.key.segment.0.as_bytes().to_vec(),
        txn: meta.txn.0.as_bytes().to_vec(),
        layout: match meta.layout {
            Layout::Wide => 1,
            Layout::Packed => 2,
        },
        rows: meta.rows,
        row_groups: meta.row_groups.to_vec(),
        sort_key: meta.sort_key.iter().map(|id| id.0).collect(),
        files: files
            .iter()
            .map(|file| proto::File {
                length: file.length,
                digest: file.digest.as_bytes().to_vec(),
                block_crcs: file.block_crcs.clone(),
            })
            .collect(),
        columns,
    })
}

fn column_to_proto(column: &ColumnMeta, file: usize) -> Result<proto::Column> {
    let data_type = types::to_proto(&column.data_type)
        .ok_or_else(|| StorageError::unsupported(&column.data_type).with_column(&column.name))?;
    let extents = column.extents.iter();
    Ok(proto::Column {
        id: column.chunk.column.0,
        version: column.chunk.version.0,
        name: column.name.clone(),
        data_type: Some(data_type),
        nullable: column.nullable,
        encoding: column.encoding.clone(),
        digest: column.digest.as_bytes().to_vec(),
        file: file as u32,
        extents: extents.map(|e| proto::Extent { offset: e.offset, length: e.length }).collect(),
        zones: column.zones.iter().map(zone_to_proto).collect(),
        footer: column.footer.clone(),
        page_zones: column.pages.iter().flat_map(|p| &p.zones).map(zone_to_proto).collect(),
        page_offsets: flat_offsets(column),
    })
}

/// Of all pages, unless some are not known.
fn flat_offsets(column: &ColumnMeta) -> Vec<u64> {
    match column.pages.iter().any(|pages| pages.offsets.is_empty()) {
        true => vec![],
        false => column.pages.iter().flat_map(|pages| &pages.offsets).copied().collect(),
    }
}

fn from_proto(message: proto::SegmentMeta) -> Result<SegmentMeta> {
    let layout = match message.layout {
        1 => Layout::Wide,
        2 => Layout::Packed,
        other => return Err(bad(&format!("layout {other} does not exist"))),
    };
    let key = SegmentKey {
        table: TableId(message.table),
        slice: SliceId(u16::try_from(message.slice).map_err(|_| bad("slice out of range"))?),
        segment: SegmentId(uuid(&message.segment)?),
    };
    check_rows(message.rows, &message.row_groups)?;
    let files = message.files.into_iter().map(file_from_proto).collect::<Result<Vec<_>>>()?;
    let files_wanted = match layout {
        Layout::Wide => message.columns.len(),
        Layout::Packed => 1,
    };
    if files.len() != files_wanted || message.columns.is_empty() {
        return Err(bad("it has not one file per column, or one for all"));
    }
    let mut meta = SegmentMeta {
        cluster: ClusterId(uuid(&message.cluster)?),
        key,
        txn: TxnId(uuid(&message.txn)?),
        layout,
        rows: message.rows,
        row_groups: message.row_groups.into(),
        sort_key: message.sort_key.into_iter().map(ColumnId).collect(),
        columns: BTreeMap::new(),
    };
    for (index, column) in message.columns.into_iter().enumerate() {
        let expected_file = if layout == Layout::Wide { index } else { 0 };
        if column.file as usize != expected_file {
            return Err(bad("a column names the wrong file"));
        }
        let column = column_from_proto(&meta, Arc::clone(&files[expected_file]), column)?;
        if meta.columns.insert(column.chunk.column, column).is_some() {
            return Err(bad("a column is in it twice"));
        }
    }
    if meta.sort_key.iter().any(|id| !meta.columns.contains_key(id)) {
        return Err(bad("it is sorted by a column that it does not have"));
    }
    Ok(meta)
}

fn check_rows(rows: u64, row_groups: &[u32]) -> Result<()> {
    let sum: u64 = row_groups.iter().map(|rows| u64::from(*rows)).sum();
    if rows != sum || rows > SEGMENT_ROWS_MAX {
        return Err(bad(&format!("it has {rows} rows, its row groups {sum}")));
    }
    if row_groups.iter().any(|rows| *rows == 0 || *rows > ROW_GROUP_ROWS) {
        return Err(bad("a row group is empty or too large"));
    }
    Ok(())
}

fn file_from_proto(file: proto::File) -> Result<Arc<FileMeta>> {
    let blocks = file.length.div_ceil(BLOCK_BYTES);
    if file.block_crcs.len() as u64 != blocks {
        return Err(bad("it has not one checksum per block"));
    }
    let proto::File { length, digest, block_crcs } = file;
    Ok(Arc::new(FileMeta { length, digest: digest_of(&digest)?, block_crcs }))
}

fn column_from_proto(
    meta: &SegmentMeta,
    file: Arc<FileMeta>,
    column: proto::Column,
) -> Result<ColumnMeta> {
    let data_type = column.data_type.as_ref().and_then(types::from_proto);
    let data_type = data_type.ok_or_else(|| bad("a column has an unknown type"))?;
    if column.version == 0 {
        return Err(bad("a column has version 0"));
    }
    let groups = meta.row_groups.len();
    if column.extents.len() != groups || column.zones.len() != groups {
        return Err(bad("a column has not one extent and one zone map per row group"));
    }
    let whole = ByteRange { offset: 0, length: file.length };
    let extents: Vec<ByteRange> =
        column.extents.iter().map(|e| ByteRange { offset: e.offset, length: e.length }).collect();
    let fits = |e: &ByteRange| e.offset.checked_add(e.length).is_some() && whole.contains(*e);
    if !extents.iter().all(fits) {
        return Err(bad("a column lies outside its file"));
    }
    let zones = column.zones.iter().map(zone_from_proto).collect::<Result<Vec<_>>>()?;
    let rows = || meta.row_groups.iter().map(|rows| u64::from(*rows));
    if zones.iter().zip(rows()).any(|(zone, rows)| zone.null_count > rows) {
        return Err(bad("a row group has more NULLs than rows"));
    }
    let page_zones = column.page_zones.iter().map(zone_from_proto).collect::<Result<Vec<_>>>()?;
    let pages = pages::from_flat(&meta.row_groups, &extents, page_zones, &column.page_offsets);
    let pages = pages.map_err(bad)?;
    Ok(ColumnMeta {
        chunk: meta.key.chunk(ColumnId(column.id), ColumnVersion(column.version)),
        name: column.name,
        data_type,
        nullable: column.nullable,
        encoding: column.encoding,
        digest: digest_of(&column.digest)?,
        layout: meta.layout,
        file,
        row_groups: Arc::clone(&meta.row_groups),
        extents,
        zone: ZoneMap::merge(rows().zip(&zones)),
        zones,
        pages,
        footer: column.footer,
        parsed: OnceLock::new(),
    })
}

fn uuid(bytes: &[u8]) -> Result<Uuid> {
    Uuid::from_slice(bytes).map_err(|_| bad("an id has not 16 bytes"))
}

fn digest_of(bytes: &[u8]) -> Result<Digest> {
    bytes.try_into().map(Digest::from_bytes).map_err(|_| bad("a digest has not 32 bytes"))
}

fn zone_to_proto(zone: &ZoneMap) -> proto::Zone {
    proto::Zone {
        null_count: zone.null_count,
        min: zone.min.as_ref().map(bound_to_proto),
        max: zone.max.as_ref().map(bound_to_proto),
    }
}

fn bound_to_proto(bound: &ZoneValue) -> proto::Bound {
    use proto::BoundValue as B;
    let value = match bound {
        ZoneValue::Bool(value) => B::Bool(*value),
        ZoneValue::Int(value) => B::Int(*value),
        ZoneValue::UInt(value) => B::UInt(*value),
        ZoneValue::Float(value) => B::Float(value.to_bits()),
        ZoneValue::Decimal(value) => B::Decimal(value.to_le_bytes().to_vec()),
        ZoneValue::Bytes { value, exact: true } => B::ExactBytes(value.clone()),
        ZoneValue::Bytes { value, exact: false } => B::InexactBytes(value.clone()),
    };
    proto::Bound { value: Some(value) }
}

fn zone_from_proto(zone: &proto::Zone) -> Result<ZoneMap> {
    let bound = |bound: &Option<proto::Bound>| bound.as_ref().map(bound_from_proto).transpose();
    Ok(ZoneMap { null_count: zone.null_count, min: bound(&zone.min)?, max: bound(&zone.max)? })
}

fn bound_from_proto(bound: &proto::Bound) -> Result<ZoneValue> {
    use proto::BoundValue as B;
    Ok(match bound.value.as_ref().ok_or_else(|| bad("a bound has no value"))? {
        B::Bool(value) => ZoneValue::Bool(*value),
        B::Int(value) => ZoneValue::Int(*value),
        B::UInt(value) => ZoneValue::UInt(*value),
        B::Float(bits) => {
            let value = f64::from_bits(*bits);
            if value.is_nan() {
                return Err(bad("a bound is not a number"));
            }
            ZoneValue::Float(value)
        }
        B::Decimal(bytes) => ZoneValue::Decimal(i128::from_le_bytes(
            bytes.as_slice().try_into().map_err(|_| bad("a decimal has not 16 bytes"))?,
        )),
        B::ExactBytes(value) => ZoneValue::Bytes { value: value.clone(), exact: true },
        B::InexactBytes(value) => ZoneValue::Bytes { value: value.clone(), exact: false },
    })
}
