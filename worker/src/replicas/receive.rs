//! A partner's side of a load: the bytes of a segment go to the disk as they come.
//!
//! Memory is bounded by a few messages and the metadata. A call that breaks off leaves nothing.

use std::sync::Arc;

use basalt_engine::protocol::{FilePart, MalformedMessage};
use basalt_storage::chunk_store::{ChunkStore, IncomingSegment, SegmentCopy};
use basalt_storage::error::{Result, StorageError};
use basalt_storage::segment_meta::SEGMENT_META_BYTES_MAX;
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

/// Messages that wait for the disk before the sender does.
const PIECES_WAITING: usize = 4;

/// A part of a segment, or its end.
enum Piece {
    Part(FilePart),
    End,
}

/// A segment on its way to the disk, on a thread of its own that may wait.
pub(super) struct Receiving {
    pieces: mpsc::Sender<Piece>,
    written: tokio::task::JoinHandle<Result<()>>,
}

impl Receiving {
    /// Begins to take in a segment.
    pub(super) fn start(store: Arc<ChunkStore>, copy: SegmentCopy) -> Self {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let written = tokio::task::spawn_blocking(move || write(&store, copy, waiting));
        Self { pieces, written }
    }

    /// Takes in a part; `false` when no more are wanted: [`Self::finish`] says why.
    pub(super) async fn part(&self, part: FilePart) -> bool {
        self.pieces.send(Piece::Part(part)).await.is_ok()
    }

    /// On `Ok` the segment is complete, verified and survives a crash.
    pub(super) async fn finish(self) -> Result<()> {
        // One that ended early has its reason in the result.
        let _ = self.pieces.send(Piece::End).await;
        match self.written.await {
            Ok(result) => result,
            Err(error) => Err(StorageError::invalid_request(format!("a write ended: {error}"))),
        }
    }
}

fn write(
    store: &Arc<ChunkStore>,
    copy: SegmentCopy,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<()> {
    let mut state = State::Metadata(copy, BytesMut::new());
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Part(part)) => state = state.part(store, part)?,
            Some(Piece::End) => return state.files(store)?.finish(),
            None => return Err(StorageError::invalid_request("the sender broke off")),
        }
    }
}

enum State {
    /// The metadata so far.
    Metadata(SegmentCopy, BytesMut),
    /// The files after it.
    Files(Box<IncomingSegment>),
}

impl State {
    fn part(self, store: &Arc<ChunkStore>, part: FilePart) -> Result<Self> {
        match (self, part.file.checked_sub(1)) {
            (Self::Metadata(copy, mut bytes), None) => {
                if (bytes.len() + part.data.len()) as u64 > SEGMENT_META_BYTES_MAX {
                    return Err(StorageError::invalid_request("metadata longer than any"));
                }
                bytes.extend_from_slice(&part.data);
                Ok(Self::Metadata(copy, bytes))
            }
            (Self::Files(_), None) => {
                Err(StorageError::invalid_request("metadata after other files"))
            }
            (state, Some(file)) => {
                let mut incoming = state.files(store)?;
                incoming.write(file as usize, &part.data)?;
                Ok(Self::Files(incoming))
            }
        }
    }

    /// The files, once the metadata is complete.
    fn files(self, store: &Arc<ChunkStore>) -> Result<Box<IncomingSegment>> {
        match self {
            Self::Files(incoming) => Ok(incoming),
            Self::Metadata(copy, bytes) => store.receive(copy, Bytes::from(bytes)).map(Box::new),
        }
    }
}

/// A message that is not what its place asks for.
pub(super) fn malformed(field: &'static str) -> MalformedMessage {
    MalformedMessage::new("PutRequest", field)
}
