use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body::Frame;
use proptest::prelude::*;
use tonic::Code;

use super::*;

/// A body of given frames.
struct Frames(Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Status>> + Send>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_next_unpin(context)
    }
}

fn body(data: impl IntoIterator<Item = Bytes>, status: Option<&str>) -> Body {
    let data: Vec<_> = data.into_iter().map(|data| Ok(Frame::data(data))).collect();
    let trailers = status.map(|status| {
        let map = HeaderMap::from_iter([(STATUS, HeaderValue::from_str(status).unwrap())]);
        Ok(Frame::trailers(map))
    });
    Body::new(Frames(Box::pin(stream::iter(data).chain(stream::iter(trailers)))))
}

/// The bytes of a body, the status that it ends with, and the error that it ends with instead.
fn read(
    body: impl http_body::Body<Data = Bytes, Error = Status>,
) -> (Vec<u8>, Result<Option<String>, Status>) {
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut status) = (Vec::new(), None);
    let mut next = || {
        let poll = std::future::poll_fn(|context| body.as_mut().poll_frame(context));
        futures::executor::block_on(poll)
    };
    while let Some(frame) = next() {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap();
                status = Some(String::from_utf8(status_of(&trailers).to_vec()).unwrap());
            }
            Err(error) => {
                assert!(next().is_none(), "nothing comes behind an error");
                return (bytes, Err(error));
            }
        }
    }
    (bytes, Ok(status))
}

fn encoded(data: &[u8], frame: usize, status: Option<&str>) -> Vec<u8> {
    let frames = data.chunks(frame).map(Bytes::copy_from_slice);
    let (bytes, ended) = read(Encoded::new(body(frames, status)));
    assert_eq!(ended.unwrap().as_deref(), status);
    bytes
}

fn decoded(
    bytes: &[u8],
    frame: usize,
    status: Option<&str>,
) -> (Vec<u8>, Result<Option<String>, Status>) {
    let frames = bytes.chunks(frame).map(Bytes::copy_from_slice);
    read(Decoded::new(body(frames, status)))
}

/// What was sent, how its frames were cut before and on the way, and the status behind it.
fn sent() -> impl Strategy<Value = (Vec<u8>, usize, usize, Option<&'static str>)> {
    let lengths = prop_oneof![0..300usize, 4_000..5_000usize, 65_000..140_000usize];
    let data = lengths.prop_map(|length| (0..length).map(|byte| (byte % 251) as u8).collect());
    (data, 1..200_000usize, 1..20_000usize, prop_oneof![Just(None), Just(Some("0"))])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_sent_arrives((data, before, after, status) in sent()) {
        let (bytes, ended) = decoded(&encoded(&data, before, status), after, status);
        prop_assert!(bytes == data);
        prop_assert_eq!(ended.unwrap(), status.map(str::to_owned));
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_nothing_wrong_is_given_out(
        (data, before, after, status) in sent(), at in any::<prop::sample::Index>(), bit in 0..8u8,
    ) {
        let mut sent = encoded(&data, before, status);
        let at = at.index(sent.len());
        sent[at] ^= 1 << bit;
        let (bytes, ended) = decoded(&sent, after, status);
        prop_assert!(data.starts_with(&bytes));
        prop_assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
    }

    #[test]
    fn what_breaks_off_is_an_error(
        (data, before, after, status) in sent(), at in any::<prop::sample::Index>(),
    ) {
        let sent = encoded(&data, before, status);
        let (bytes, ended) = decoded(&sent[..at.index(sent.len())], after, status);
        prop_assert!(data.starts_with(&bytes));
        prop_assert!(ended.is_err());
    }
}

#[test]
fn a_status_that_was_not_sent_is_an_error() {
    let sent = encoded(b"half of the rows", 100, Some("2"));
    for (status, is_right) in [(Some("2"), true), (Some("0"), false), (None, false)] {
        assert_eq!(decoded(&sent, 100, status).1.is_ok(), is_right, "{status:?}");
    }
}

#[test]
fn bytes_behind_the_end_are_an_error() {
    let mut sent = encoded(b"all of it", 100, None);
    sent.push(0);
    assert!(decoded(&sent, 100, None).1.is_err());
}

#[tokio::test]
async fn a_good_answer_without_a_body_is_none() {
    let server = |status: Status| {
        ChecksummedChannel::new(tower::service_fn(move |_: Request<Body>| {
            let answer = status.clone().into_http();
            async move { Ok::<_, std::convert::Infallible>(answer) }
        }))
    };
    for (sent, expected) in
        [(Status::ok(""), Code::Unavailable), (Status::not_found(""), Code::NotFound)]
    {
        let answer = server(sent).call(Request::new(Body::empty())).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), expected);
    }
}

#[tokio::test]
async fn requests_without_checksums_are_refused() {
    let answers = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
    });
    let refused = Checksums.layer(answers).call(Request::new(Body::empty())).await.unwrap();
    let status = Status::from_header_map(refused.headers()).unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
}
