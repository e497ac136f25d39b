//! Copies of segments on other workers.
//!
//! ```text
//! load    owner ──Put: metadata, files───▶ partner     while the owner writes its own copy
//! repair  new holder ──ReadSegmentMeta, ReadExtent──▶ any holder, verified on arrival
//! ```
//! Invariant: a worker says that it has a copy only when every byte of it matched the digest that
//! the metadata has for it, the metadata the one that the commit has, and all of it is fsynced.
//! Copies have the same bytes everywhere, so any of them can stand in for any other.
//!
//! - [`sender`]: an owner's side of a load
//! - [`receive`]: a partner's side of it
//! - [`fetch`]: copying from peers, and mending a copy; [`healer`] does that for bad ones that scans find
//! - [`service`]: what the coordinator and peers may ask of a worker
//! - `wire`: segments in messages
//!
//! Not here: who should have a copy (the coordinator), and reading chunks for scans
//! ([`chunk_source`](crate::chunk_source)).

pub mod fetch;
pub mod healer;
pub mod receive;
pub mod sender;
pub mod service;
mod wire;
