//! A body that comes in.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::{END, PIECE_BYTES_MAX, PREFIX_BYTES, damaged, status_of};

/// What the pieces of a body hold.
pub(super) struct Decoded {
    body: Body,
    pieces: Pieces,
    /// Nothing comes behind trailers and errors.
    is_over: bool,
}

impl Decoded {
    pub(super) fn new(body: Body) -> Self {
        Self { body, pieces: Pieces::default(), is_over: false }
    }

    /// What to give out for the next frame of the body; `None`: nothing yet.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Status>>) -> Option<Given> {
        let given = match frame {
            None => self.pieces.check_end(&[]).err().map(Err),
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match self.pieces.take(data) {
                    Ok(()) => return None,
                    Err(damaged) => Some(Err(damaged)),
                },
                Err(frame) => {
                    let status = frame.trailers_ref().map_or(&[][..], status_of);
                    Some(self.pieces.check_end(status).map(|()| frame))
                }
            },
        };
        self.is_over = true;
        self.pieces.ready.clear();
        Some(given)
    }
}

/// What a body gives out: a frame, an error, its end.
type Given = Option<Result<Frame<Bytes>, Status>>;

/// Pieces as their bytes come in.
#[derive(Default)]
struct Pieces {
    /// The beginning of a piece, until it is whole.
    prefix: BytesMut,
    current: Option<Piece>,
    /// Data that is right and was not given out yet.
    ready: VecDeque<Bytes>,
    /// The data of the last piece.
    ended: Option<Bytes>,
}

/// A piece whose data is coming.
struct Piece {
    is_end: bool,
    missing: usize,
    expected: u32,
    found: u32,
    data: Vec<Bytes>,
}

impl Piece {
    fn begin(prefix: [u8; PREFIX_BYTES]) -> Result<Self, Status> {
        let [l0, l1, l2, l3, checksum @ ..] = prefix;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let missing = (length & !END) as usize;
        if missing > PIECE_BYTES_MAX {
            return Err(damaged("the length of a piece"));
        }
        Ok(Self {
            is_end: length & END != 0,
            missing,
            expected: u32::from_le_bytes(checksum),
            found: crc32c::crc32c(&length.to_le_bytes()),
            data: Vec::new(),
        })
    }

    fn take(&mut self, bytes: &mut Bytes) {
        let data = bytes.split_to(bytes.len().min(self.missing));
        self.missing -= data.len();
        self.found = crc32c::crc32c_append(self.found, &data);
        if !data.is_empty() {
            self.data.push(data);
        }
    }
}

impl Pieces {
    fn take(&mut self, mut bytes: Bytes) -> Result<(), Status> {
        while !bytes.is_empty() || self.current.as_ref().is_some_and(|piece| piece.missing == 0) {
            let Some(piece) = &mut self.current else {
                self.begin(&mut bytes)?;
                continue;
            };
            piece.take(&mut bytes);
            if piece.missing == 0
                && let Some(whole) = self.current.take()
            {
                self.finish(whole)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, bytes: &mut Bytes) -> Result<(), Status> {
        if self.ended.is_some() {
            return Err(damaged("bytes behind its end"));
        }
        let count = bytes.len().min(PREFIX_BYTES - self.prefix.len());
        self.prefix.extend_from_slice(&bytes[..count]);
        bytes.advance(count);
        if let Ok(prefix) = <[u8; PREFIX_BYTES]>::try_from(self.prefix.as_ref()) {
            self.prefix.clear();
            self.current = Some(Piece::begin(prefix)?);
        }
        Ok(())
    }

    fn finish(&mut self, piece: Piece) -> Result<(), Status> {
        if piece.found != piece.expected {
            return Err(damaged("its checksum is wrong"));
        }
        match piece.is_end {
            true => self.ended = Some(piece.data.concat().into()),
            false => self.ready.extend(piece.data),
        }
        Ok(())
    }

    /// The body has ended, with this status.
    fn check_end(&self, status: &[u8]) -> Result<(), Status> {
        match self.ended.as_deref() {
            None => Err(damaged("it broke off")),
            Some(sent) if sent != status => Err(damaged("its status is not the one that was sent")),
            Some(_) => Ok(()),
        }
    }
}

impl http_body::Body for Decoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(data) = self.pieces.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
            if let Some(given) = self.take(frame) {
                return Poll::Ready(given);
            }
        }
    }
}
