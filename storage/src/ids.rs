//! Identities that are on disk and in every protocol. None of them is ever reused.
//!
//! Names that users choose never appear in a path or a protocol message: ids do, so a rename
//! touches the catalog only.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

/// Declares a newtype over an integer id.
macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Declares a newtype over a UUID.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id, ordered by the time it was made (UUID version 7, RFC 9562).
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_simple().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

integer_id! {
    /// A table, for as long as it exists; a table dropped and created again gets a new one.
    TableId(u64)
}
integer_id! {
    /// A horizontal partition of every table: the unit of placement and parallelism.
    SliceId(u16)
}
integer_id! {
    /// A column of one table. A column added after a drop of the same name gets a new one.
    ColumnId(u32)
}
integer_id! {
    /// How often a column of one segment was rewritten; 1 is the first.
    ColumnVersion(u32)
}
integer_id! {
    /// Grows whenever the assignment of slices to workers changes.
    Epoch(u64)
}

integer_id! {
    /// Grows whenever the members of the command log change, or another process writes it.
    LogEpoch(u64)
}

impl LogEpoch {
    /// The last epoch that a log member promises: one a microsecond for nine years. What asks for
    /// more is broken, and after it nobody could ever ask for a newer one.
    pub const MAX: Self = Self(1 << 48);

    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

uuid_id! {
    /// A cluster, for ever.
    ClusterId
}
uuid_id! {
    /// A coordinator, as long as its data directory lives: a restored one is another.
    CoordinatorId
}
uuid_id! {
    /// One run of a coordinator, as log members know it: a restart is another writer.
    LogWriter
}
uuid_id! {
    /// A worker, as long as its data directory lives.
    WorkerId
}
uuid_id! {
    /// An immutable run of rows of one slice.
    SegmentId
}
uuid_id! {
    /// The transaction that wrote a chunk.
    TxnId
}

impl ColumnVersion {
    /// The version a new segment's columns have.
    pub const FIRST: Self = Self(1);
}

/// One column of one segment at one version: the unit of replication, repair, caching and I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChunkId {
    /// The table.
    pub table: TableId,
    /// The slice of the table.
    pub slice: SliceId,
    /// The segment of the slice.
    pub segment: SegmentId,
    /// The column of the segment.
    pub column: ColumnId,
    /// The version of the column.
    pub version: ColumnVersion,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, slice, segment, column, version } = self;
        write!(f, "{table}/{slice}/{segment}/c{column}.v{version}")
    }
}
