//! What a proxied connection sees of each fault.

use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server that sends back what it gets, and a proxy in front of it.
async fn echo_behind_proxy(seed: u64) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ended = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(&Handle::current(), target, seed, |_| ANYBODY).unwrap()
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn echo(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// Nothing arrives within a time that is long for loopback.
async fn check_silent(stream: &mut TcpStream) {
    let quiet = tokio::time::timeout(Duration::from_millis(200), stream.read_u8()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn bytes_pass_in_order_and_ends_are_passed_on() {
    let proxy = echo_behind_proxy(1).await;
    let mut stream = connect(&proxy).await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut got = Vec::new();
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let (_, length) = tokio::join!(send, read.read_to_end(&mut got));
    assert_eq!(length.unwrap(), sent.len());
    assert!(got == sent);
    assert_eq!(proxy.connections(ANYBODY), (1, 0));
}

#[tokio::test]
async fn a_held_link_is_silent_and_goes_on_where_it_was() {
    let proxy = echo_behind_proxy(1).await;
    let mut stream = connect(&proxy).await;
    assert_eq!(echo(&mut stream, b"one").await.unwrap(), b"one");
    proxy.set(ANYBODY, Link::hold());
    stream.write_all(b"two").await.unwrap();
    check_silent(&mut stream).await;
    proxy.heal();
    let mut answer = [0; 3];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"two");
}

#[tokio::test]
async fn one_direction_can_be_held_alone() {
    let proxy = echo_behind_proxy(1).await;
    let held = Flow { hold: true, ..Flow::default() };
    proxy.set(ANYBODY, Link { to_client: held, ..Link::pass() });
    let mut stream = connect(&proxy).await;
    stream.write_all(b"heard").await.unwrap();
    check_silent(&mut stream).await;
    proxy.heal();
    assert_eq!(echo(&mut stream, b"!").await.unwrap(), b"h", "the server had it all the time");
}

#[tokio::test]
async fn a_slow_link_is_late_and_a_narrow_one_takes_its_time() {
    let proxy = echo_behind_proxy(1).await;
    let mut stream = connect(&proxy).await;
    let (late, jitter) = (Duration::from_millis(60), Duration::from_millis(20));
    proxy.set(ANYBODY, Link::slow(late, jitter));
    let started = Instant::now();
    echo(&mut stream, b"ping").await.unwrap();
    assert!(started.elapsed() >= 2 * late, "{:?}", started.elapsed());

    let narrow = Flow { bytes_per_second: Some(100_000), ..Flow::default() };
    proxy.set(ANYBODY, Link { to_server: narrow, ..Link::pass() });
    let started = Instant::now();
    echo(&mut stream, &[7; 20_000]).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_connection_is_reset_after_so_many_bytes() {
    let proxy = echo_behind_proxy(1).await;
    let mut stream = connect(&proxy).await;
    proxy.reset_after(ANYBODY, Direction::ToClient, 5);
    stream.write_all(b"0123456789").await.unwrap();
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(got.len() <= 5, "{got:?}");
    let mut next = connect(&proxy).await;
    assert_eq!(echo(&mut next, b"again").await.unwrap(), b"again", "it happens once");

    proxy.reset_now(ANYBODY);
    assert!(echo(&mut next, b"gone").await.is_err());
}

#[tokio::test]
async fn a_refused_caller_is_reset_at_once() {
    let proxy = echo_behind_proxy(1).await;
    proxy.set(ANYBODY, Link { refuse: true, ..Link::pass() });
    let mut stream = connect(&proxy).await;
    assert!(echo(&mut stream, b"hello").await.is_err());
    assert_eq!(proxy.connections(ANYBODY), (1, 1));
    proxy.heal();
    assert!(echo(&mut connect(&proxy).await, b"hello").await.is_ok());
}

#[tokio::test]
async fn one_bit_of_the_chosen_byte_is_flipped_and_no_other() {
    for seed in 0..8 {
        let proxy = echo_behind_proxy(seed).await;
        let mut stream = connect(&proxy).await;
        proxy.flip_after(ANYBODY, Direction::ToServer, 3);
        assert!(!proxy.flipped(ANYBODY, Direction::ToServer));
        let answer = echo(&mut stream, &[0; 10]).await.unwrap();
        let bits: Vec<_> = answer.iter().map(|byte| byte.count_ones()).collect();
        assert_eq!(bits, [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert!(proxy.flipped(ANYBODY, Direction::ToServer));
        assert_eq!(echo(&mut stream, &[0; 10]).await.unwrap(), [0; 10], "it happens once");
    }
}

#[tokio::test]
async fn callers_have_links_of_their_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let by_port = |address: SocketAddr| usize::from(address.port() % 2);
    let proxy = Proxy::start(&Handle::current(), target, 1, by_port).unwrap();
    proxy.set(1, Link { refuse: true, ..Link::pass() });
    for _ in 0..20 {
        let mut stream = connect(&proxy).await;
        let odd = stream.local_addr().unwrap().port() % 2 == 1;
        if odd {
            assert!(stream.read_u8().await.is_err());
        } else {
            let (mut accepted, _) = listener.accept().await.unwrap();
            accepted.write_u8(7).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 7);
        }
    }
}
