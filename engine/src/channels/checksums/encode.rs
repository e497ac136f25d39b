//! A body on its way out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use tonic::Status;
use tonic::body::Body;

use super::{END, PIECE_BYTES_MAX, PREFIX_BYTES, headers};

/// Data up to this long is copied behind its prefix: a frame of HTTP/2 costs more.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// A body in pieces.
pub(super) struct Encoded {
    body: Body,
    ready: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    ended: bool,
}

impl Encoded {
    pub(super) fn new(body: Body) -> Self {
        Self { body, ready: VecDeque::new(), trailers: None, ended: false }
    }

    fn push(&mut self, mark: u32, data: Bytes) {
        // Fits: pieces are short.
        let length = data.len() as u32 | mark;
        let copied = if data.len() <= COPIED_BYTES_MAX { data.len() } else { 0 };
        let mut first = BytesMut::with_capacity(PREFIX_BYTES + copied);
        first.put_u32_le(length);
        first.put_u32_le(crc32c::crc32c(&length.to_le_bytes()));
        first.put_u32_le(crc32c::crc32c(&data));
        if copied == data.len() {
            first.put_slice(&data);
            self.ready.push_back(first.freeze());
        } else {
            self.ready.extend([first.freeze(), data]);
        }
    }

    fn end(&mut self, mut trailers: Option<HeaderMap>) {
        self.push(END, Bytes::copy_from_slice(&headers::sum_of_trailers(trailers.as_ref())));
        if let Some(trailers) = &mut trailers {
            headers::keep_apart(trailers);
        }
        self.trailers = trailers;
        self.ended = true;
    }
}

impl http_body::Body for Encoded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.ended {
                return Poll::Ready(self.trailers.take().map(|map| Ok(Frame::trailers(map))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => self.end(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        while !data.is_empty() {
                            let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
                            self.push(0, piece);
                        }
                    }
                    Err(frame) => self.end(frame.into_trailers().ok()),
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.ready.is_empty() && self.trailers.is_none()
    }
}
