//! Metadata bytes from anywhere: an error, never a panic, never a huge allocation.

use std::sync::Arc;

use arrow::array::ArrayRef;
use basalt_storage::digest::Digest;
use basalt_storage::segment_meta::SegmentMeta;
use bytes::Bytes;
use proptest::prelude::*;

use crate::arrays::{Random, random_array, storable_types};
use crate::support::{code, encoded, read_with};

fn good() -> Vec<u8> {
    let types = storable_types();
    let columns: Vec<ArrayRef> =
        types.iter().map(|ty| random_array(&mut Random(3), ty, 10, true, false)).collect();
    encoded(columns).meta_bytes().to_vec()
}

/// Decodes bytes as if the catalog vouched for them, and reads what they describe from zeros.
fn check(bytes: &[u8]) {
    let Ok(meta) = SegmentMeta::decode(bytes, Digest::of(bytes)) else { return };
    for column in meta.columns() {
        let target = column.data_type().clone();
        let zeros = |_: &_, range: basalt_storage::segment_meta::ByteRange| {
            Ok(Bytes::from(vec![0; range.length.min(1 << 20) as usize]))
        };
        let _ = read_with(&meta, column.id().0, &target, zeros);
    }
}

/// Makes the checksum right again, so that the bytes behind it are looked at.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.len().checked_sub(4) {
        let crc = crc32c::crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&crc);
    }
    bytes
}

#[test]
fn good_metadata_is_read() {
    let bytes = good();
    let meta = SegmentMeta::decode(&bytes, Digest::of(&bytes)).unwrap();
    assert_eq!(meta.columns().len(), storable_types().len());
    for (column, ty) in meta.columns().zip(storable_types()) {
        assert_eq!(column.data_type(), &ty);
    }
}

#[test]
fn bytes_without_the_committed_digest_are_refused_unread() {
    let bytes = good();
    let error = SegmentMeta::decode(&bytes, Digest::of(b"other")).unwrap_err();
    assert_eq!(error.code(), "CORRUPT");
    assert!(error.to_string().contains("the catalog has"), "{error}");
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let mut bytes = good();
    bytes[8] = 2;
    let bytes = resealed(bytes);
    let error = SegmentMeta::decode(&bytes, Digest::of(&bytes)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "segment metadata has format version 2, this release reads versions up to 1"
    );
    bytes.len();
}

#[test]
fn every_truncation_is_refused() {
    let bytes = Arc::new(good());
    for length in (0..bytes.len()).step_by(97).chain(0..64) {
        let cut = &bytes[..length];
        assert_eq!(code(SegmentMeta::decode(cut, Digest::of(cut))), "CORRUPT");
        check(&resealed(cut.to_vec()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut bytes = good();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        check(&bytes);
        check(&resealed(bytes));
    }

    #[test]
    fn random_payloads_never_panic(payload in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = b"BSLTSEGM\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&[0; 4]);
        check(&resealed(bytes));
    }
}
