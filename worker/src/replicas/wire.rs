//! Segments in messages.

use basalt_engine::protocol::{MalformedMessage, SegmentRef, WireId};
use basalt_storage::chunk_store::SegmentCopy;
use basalt_storage::digest::Digest;
use basalt_storage::ids::{SegmentId, SliceId, TableId, TxnId};
use basalt_storage::layout::SegmentKey;
use basalt_storage::manifest::Layout;

const MESSAGE: &str = "SegmentRef";

/// A segment as a message names it.
pub(super) fn to_wire(copy: &SegmentCopy) -> SegmentRef {
    SegmentRef {
        txn: copy.txn.to_wire(),
        meta_digest: copy.meta_digest.as_bytes().to_vec(),
        ..key_to_wire(copy.key, copy.layout)
    }
}

/// A segment without what it must be.
pub(super) fn key_to_wire(key: SegmentKey, layout: Layout) -> SegmentRef {
    SegmentRef {
        table: key.table.0,
        slice: u32::from(key.slice.0),
        segment: key.segment.to_wire(),
        packed: layout == Layout::Packed,
        txn: vec![],
        meta_digest: vec![],
    }
}

/// What a message names, with what it must be.
pub(super) fn from_wire(message: &SegmentRef) -> Result<SegmentCopy, MalformedMessage> {
    let malformed = |field| MalformedMessage::new(MESSAGE, field);
    let (key, layout) = key_from_wire(message)?;
    let digest = message.meta_digest.as_slice().try_into().map_err(|_| malformed("meta_digest"))?;
    let txn = TxnId::from_wire(&message.txn, MESSAGE, "txn")?;
    Ok(SegmentCopy { key, layout, txn, meta_digest: Digest::from_bytes(digest) })
}

/// What a message names.
pub(super) fn key_from_wire(
    message: &SegmentRef,
) -> Result<(SegmentKey, Layout), MalformedMessage> {
    let slice = u16::try_from(message.slice);
    let key = SegmentKey {
        table: TableId(message.table),
        slice: SliceId(slice.map_err(|_| MalformedMessage::new(MESSAGE, "slice"))?),
        segment: SegmentId::from_wire(&message.segment, MESSAGE, "segment")?,
    };
    Ok((key, if message.packed { Layout::Packed } else { Layout::Wide }))
}
