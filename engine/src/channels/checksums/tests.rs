//! What is damaged on its way is refused, whole or in part, and nothing wrong is given out.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use proptest::prelude::*;
use tonic::Code;

use std::sync::atomic::{AtomicUsize, Ordering};

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
        let status = HeaderValue::from_str(status).unwrap();
        let map = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]);
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
                status = Some(trailers["grpc-status"].to_str().unwrap().to_owned());
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
    read(Decoded::new(body(frames, status), None))
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

fn client<S>(server: S, damage: &Arc<AtomicUsize>) -> ChecksummedChannel<S> {
    let damage = Arc::clone(damage);
    ChecksummedChannel::new(
        server,
        Arc::new(move || {
            damage.fetch_add(1, Ordering::Relaxed);
        }),
    )
}

/// What a client gets where headers of its request, or of the answer, are changed on the way, and
/// how often it takes its connection for bad.
async fn exchange(
    answer: Status,
    on_request: fn(&mut Request<Body>),
    on_answer: fn(&mut HeaderMap),
) -> (Code, usize) {
    let answers = tower::service_fn(move |_: Request<Body>| {
        let answer: Response<Body> = answer.clone().into_http();
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let server = Checksums.layer(answers);
    let link = tower::service_fn(move |mut request: Request<Body>| {
        on_request(&mut request);
        let answer = server.clone().call(request);
        async move {
            let mut answer = answer.await?;
            on_answer(answer.headers_mut());
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let damage = Arc::default();
    let request = Request::builder()
        .uri("http://worker/service/method")
        .header("x-setting", "1")
        .header("x-setting", "2")
        .body(Body::empty())
        .unwrap();
    let answer = client(link, &damage).call(request).await.unwrap();
    let status = Status::from_header_map(answer.headers()).unwrap();
    (status.code(), damage.load(Ordering::Relaxed))
}

fn put(headers: &mut HeaderMap, name: &'static str, value: &'static str) {
    headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
}

#[tokio::test]
async fn headers_that_are_damaged_are_refused() {
    let found = || Status::not_found("no copy");
    assert_eq!(exchange(found(), |_| (), |_| ()).await, (Code::NotFound, 0));
    let requests: [fn(&mut Request<Body>); 5] = [
        |request| put(request.headers_mut(), "x-setting", "3"),
        |request| put(request.headers_mut(), "x-other", "1"),
        |request| put(request.headers_mut(), "x-basalt-checksum", "00000000"),
        |request| drop(request.headers_mut().remove("x-basalt-checksum")),
        |request| *request.uri_mut() = "http://worker/service/other".parse().unwrap(),
    ];
    for on_request in requests {
        assert_eq!(exchange(found(), on_request, |_| ()).await, (Code::Unavailable, 1));
    }
    let answers: [fn(&mut HeaderMap); 4] = [
        |headers| put(headers, "grpc-status", "13"),
        |headers| put(headers, "grpc-status", "0"),
        |headers| put(headers, "grpc-message", "no"),
        |headers| drop(headers.remove("x-basalt-checksum")),
    ];
    for on_answer in answers {
        assert_eq!(exchange(found(), |_| (), on_answer).await, (Code::Unavailable, 1));
    }
}

#[tokio::test]
async fn what_may_be_of_a_bad_connection_ends_it() {
    for (answer, ends) in [
        (Status::unavailable(""), 1),
        (Status::unimplemented(""), 1),
        (Status::unauthenticated(""), 1),
        (Status::data_loss(""), 0),
        (Status::resource_exhausted(""), 0),
    ] {
        let code = answer.code();
        assert_eq!(exchange(answer, |_| (), |_| ()).await, (code, ends));
    }
}

#[test]
fn a_body_that_is_damaged_ends_its_connection() {
    let damage = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&damage);
    let on_damage: OnDamage = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let sent = encoded(b"rows", 100, None);
    let ended = read(Decoded::new(body([Bytes::from(sent)], None), Some(Arc::clone(&on_damage))));
    assert_eq!((ended.0, damage.load(Ordering::Relaxed)), (b"rows".to_vec(), 0));
    assert!(read(Decoded::new(body([], None), Some(on_damage))).1.is_err());
    assert_eq!(damage.load(Ordering::Relaxed), 1);
}
