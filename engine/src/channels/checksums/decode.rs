//! A body that comes in.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::{END, OnDamage, PIECE_BYTES_MAX, PREFIX_BYTES, damaged, headers};

/// What the pieces of a body hold.
pub(super) struct Decoded {
    body: Body,
    pieces: Pieces,
    on_damage: Option<OnDamage>,
    /// Nothing comes behind trailers and errors.
    is_over: bool,
}

impl Decoded {
    pub(super) fn new(body: Body, on_damage: Option<OnDamage>) -> Self {
        Self { body, pieces: Pieces::default(), on_damage, is_over: false }
    }

    /// What to give out for the next frame of the body; `None`: nothing yet.
    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Status>>) -> Option<Given> {
        let given = match frame {
            None => self.pieces.check_end(None).err().map(Err),
            // A stream that was reset looks like a cancelled one, which tonic takes for its end.
            Some(Err(error)) => Some(Err(Status::unavailable(error.message().to_owned()))),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match self.pieces.take(data) {
                    Ok(()) => return None,
                    Err(damaged) => Some(Err(damaged)),
                },
                Err(frame) => {
                    let checked = self.pieces.check_end(frame.trailers_ref());
                    Some(checked.map(|()| frame))
                }
            },
        };
        if let (Some(Err(_)), Some(on_damage)) = (&given, &self.on_damage) {
            on_damage();
        }
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
    fn begin(mut prefix: &[u8]) -> Result<Self, Status> {
        let length = prefix.get_u32_le();
        let missing = (length & !END) as usize;
        let is_right = prefix.get_u32_le() == crc32c::crc32c(&length.to_le_bytes());
        if !is_right || missing > PIECE_BYTES_MAX {
            return Err(damaged("the length of a piece"));
        }
        let expected = prefix.get_u32_le();
        Ok(Self { is_end: length & END != 0, missing, expected, found: 0, data: Vec::new() })
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
        if self.prefix.len() == PREFIX_BYTES {
            self.current = Some(Piece::begin(&self.prefix)?);
            self.prefix.clear();
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

    /// The body has ended, with these trailers.
    fn check_end(&self, trailers: Option<&HeaderMap>) -> Result<(), Status> {
        match self.ended.as_deref() {
            None => Err(damaged("it broke off")),
            Some(sent) if sent != headers::sum_of_trailers(trailers) => {
                Err(damaged("its status is not the one that was sent"))
            }
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
