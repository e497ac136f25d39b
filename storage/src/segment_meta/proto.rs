//! The protobuf messages of a metadata file. Field numbers are on disk: never reuse one.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct SegmentMeta {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) cluster: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) table: u64,
    #[prost(uint32, tag = "3")]
    pub(super) slice: u32,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) segment: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) txn: Vec<u8>,
    /// 1 wide, 2 packed.
    #[prost(uint32, tag = "6")]
    pub(super) layout: u32,
    #[prost(uint64, tag = "7")]
    pub(super) rows: u64,
    #[prost(uint32, repeated, tag = "8")]
    pub(super) row_groups: Vec<u32>,
    #[prost(uint32, repeated, tag = "9")]
    pub(super) sort_key: Vec<u32>,
    #[prost(message, repeated, tag = "10")]
    pub(super) files: Vec<File>,
    #[prost(message, repeated, tag = "11")]
    pub(super) columns: Vec<Column>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct File {
    #[prost(uint64, tag = "1")]
    pub(super) length: u64,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) digest: Vec<u8>,
    /// CRC-32C of each 64 KiB block.
    #[prost(fixed32, repeated, tag = "3")]
    pub(super) block_crcs: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Column {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(uint32, tag = "2")]
    pub(super) version: u32,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(message, optional, tag = "4")]
    pub(super) data_type: Option<Type>,
    #[prost(bool, tag = "5")]
    pub(super) nullable: bool,
    #[prost(string, tag = "6")]
    pub(super) encoding: String,
    #[prost(bytes = "vec", tag = "7")]
    pub(super) digest: Vec<u8>,
    /// Index into `files`.
    #[prost(uint32, tag = "8")]
    pub(super) file: u32,
    /// One per row group.
    #[prost(message, repeated, tag = "9")]
    pub(super) extents: Vec<Extent>,
    /// One per row group.
    #[prost(message, repeated, tag = "10")]
    pub(super) zones: Vec<Zone>,
    /// Thrift `FileMetaData` with this column only.
    #[prost(bytes = "bytes", tag = "11")]
    pub(super) footer: bytes::Bytes,
    /// One per page of the row groups with several pages, or none.
    #[prost(message, repeated, tag = "12")]
    pub(super) page_zones: Vec<Zone>,
    /// One per page of all row groups, or none.
    #[prost(uint64, repeated, tag = "13")]
    pub(super) page_offsets: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Extent {
    #[prost(uint64, tag = "1")]
    pub(super) offset: u64,
    #[prost(uint64, tag = "2")]
    pub(super) length: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Zone {
    #[prost(uint64, tag = "1")]
    pub(super) null_count: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) min: Option<Bound>,
    #[prost(message, optional, tag = "3")]
    pub(super) max: Option<Bound>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bound {
    #[prost(oneof = "BoundValue", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub(super) value: Option<BoundValue>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum BoundValue {
    #[prost(bool, tag = "1")]
    Bool(bool),
    #[prost(sint64, tag = "2")]
    Int(i64),
    #[prost(uint64, tag = "3")]
    UInt(u64),
    /// The bits of a double.
    #[prost(fixed64, tag = "4")]
    Float(u64),
    /// 16 bytes, little endian.
    #[prost(bytes, tag = "5")]
    Decimal(Vec<u8>),
    /// A value of the column.
    #[prost(bytes, tag = "6")]
    ExactBytes(Vec<u8>),
    /// A shortened bound.
    #[prost(bytes, tag = "7")]
    InexactBytes(Vec<u8>),
}

/// A storage type. `kind` numbers are in `types.rs`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    /// Time unit: 1 s, 2 ms, 3 us, 4 ns.
    #[prost(uint32, tag = "2")]
    pub(super) unit: u32,
    /// Time zone of a timestamp.
    #[prost(string, optional, tag = "3")]
    pub(super) zone: Option<String>,
    /// Precision of a decimal, width of fixed-size binary.
    #[prost(uint32, tag = "4")]
    pub(super) width: u32,
    /// Scale of a decimal.
    #[prost(sint32, tag = "5")]
    pub(super) scale: i32,
    /// Item of a list; fields of a struct; key and value of a map.
    #[prost(message, repeated, tag = "6")]
    pub(super) children: Vec<Child>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Child {
    /// Name of a struct's field; empty elsewhere.
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) data_type: Option<Type>,
}
