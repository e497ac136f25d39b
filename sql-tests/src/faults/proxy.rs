//! A TCP proxy on loopback that makes a network as bad as it is told to, while it runs.
//!
//! ```text
//! caller ──▶ [Proxy: a Link per caller] ──▶ server
//!   to_server   hold, delay with jitter, bytes per second     state: stays until it is changed
//!   to_client   the same, for itself
//!   refuse      new connections are reset at once
//!   reset       once: after n more bytes in a direction the connection is reset (RST)
//!   flip        once: one bit of the n-th next byte in a direction is turned over
//! ```
//! Needed because the kernel of a test machine may have no netem, and because a proxy knows who
//! calls: [`identify`](super::callers) tells the links of different callers to one server apart.
//!
//! Invariant: bytes are changed, kept back and cut, never lost in the middle or put in another
//! order: that is what TCP promises, also on a bad network.
//! Limit: the kernel acknowledges what a held connection receives, so senders see a silent peer
//! and not a full one until the buffers are full, as with a peer that is paused.

mod pump;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::choices::Choices;

/// Who calls: a number that the proxy's owner gives a meaning.
pub type Caller = usize;

/// The caller of connections when nobody tells callers apart.
pub const ANYBODY: Caller = 0;

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Nothing arrives, not even the end of the stream: a black hole, until it is set to false.
    pub hold: bool,
    /// How long every byte is under way.
    pub delay: Duration,
    /// By how much longer at most, by chance for each piece.
    pub jitter: Duration,
    /// The bandwidth; as much as there is when `None`.
    pub bytes_per_second: Option<u64>,
}

/// What happens between a caller and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Link {
    /// From the caller to the server.
    pub to_server: Flow,
    /// From the server to the caller.
    pub to_client: Flow,
    /// New connections are reset at once, as if nobody listened. Open ones stay.
    pub refuse: bool,
}

impl Link {
    /// Bytes pass as they are.
    pub fn pass() -> Self {
        Self::default()
    }

    /// Nothing arrives on either side.
    pub fn hold() -> Self {
        let held = Flow { hold: true, ..Flow::default() };
        Self { to_server: held, to_client: held, refuse: false }
    }

    /// Both directions are late by `delay` and up to `jitter`.
    pub fn slow(delay: Duration, jitter: Duration) -> Self {
        let late = Flow { delay, jitter, ..Flow::default() };
        Self { to_server: late, to_client: late, refuse: false }
    }

    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What the caller sends.
    ToServer,
    /// What the server answers.
    ToClient,
}

/// A fault that happens once, after a number of bytes of a direction, whichever connection they
/// are of.
#[derive(Debug)]
struct Countdown(AtomicU64);

impl Countdown {
    const NEVER: u64 = u64::MAX;

    /// Counts `bytes`; returns where among them the fault falls, if it does.
    fn pass(&self, bytes: usize) -> Option<usize> {
        let bytes = bytes as u64;
        let step = |left: u64| match left {
            Self::NEVER => None,
            left if left < bytes => Some(Self::NEVER),
            left => Some(left - bytes),
        };
        match self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, step) {
            Ok(left) if left < bytes => usize::try_from(left).ok(),
            _ => None,
        }
    }
}

impl Default for Countdown {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}

/// The faults of one caller's link. One pair of countdowns per direction.
#[derive(Debug)]
struct Controls {
    link: watch::Sender<Link>,
    reset: [Countdown; 2],
    flip: [Countdown; 2],
    /// Told when open connections are to be reset now.
    reset_now: Notify,
    /// Connections that were made, and those of them that were refused.
    made: AtomicU64,
    refused: AtomicU64,
}

impl Default for Controls {
    fn default() -> Self {
        Self {
            link: watch::Sender::new(Link::pass()),
            reset: Default::default(),
            flip: Default::default(),
            reset_now: Notify::new(),
            made: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }
}

/// What all connections of a proxy share.
struct Shared {
    target: SocketAddr,
    identify: Box<dyn Fn(SocketAddr) -> Caller + Send + Sync>,
    links: Mutex<HashMap<Caller, Arc<Controls>>>,
    choices: Mutex<Choices>,
}

impl Shared {
    fn controls(&self, caller: Caller) -> Arc<Controls> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(links.entry(caller).or_default())
    }
}

/// A proxy in front of one server. Dropping it resets nothing, but nobody connects any more.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {} of {}", self.address, self.shared.target)
    }
}

impl Proxy {
    /// A proxy on a free port of loopback in front of `target`, on the runtime of `handle`. The
    /// target need not listen yet. `identify` says which caller an address is; `seed` decides
    /// jitter and bits.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(
        handle: &Handle,
        target: SocketAddr,
        seed: u64,
        identify: impl Fn(SocketAddr) -> Caller + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            identify: Box::new(identify),
            links: Mutex::default(),
            choices: Mutex::new(Choices::new(seed)),
        });
        let _in_runtime = handle.enter();
        let listener = TcpListener::from_std(listener)?;
        let accepting = handle.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where callers connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that a caller has made so far, and how many of them were refused.
    pub fn connections(&self, caller: Caller) -> (u64, u64) {
        let controls = self.shared.controls(caller);
        (controls.made.load(Ordering::Acquire), controls.refused.load(Ordering::Acquire))
    }

    /// Changes a caller's link, for open and for new connections.
    pub fn set(&self, caller: Caller, link: Link) {
        self.shared.controls(caller).link.send_replace(link);
    }

    /// Resets the caller's connection that is used when `bytes` more have passed.
    pub fn reset_after(&self, caller: Caller, direction: Direction, bytes: u64) {
        let controls = self.shared.controls(caller);
        controls.reset[direction as usize].0.store(bytes, Ordering::Release);
    }

    /// Resets the caller's open connections now.
    pub fn reset_now(&self, caller: Caller) {
        self.shared.controls(caller).reset_now.notify_waiters();
    }

    /// Turns over one bit of the byte that comes after `bytes` more.
    pub fn flip_after(&self, caller: Caller, direction: Direction, bytes: u64) {
        let controls = self.shared.controls(caller);
        controls.flip[direction as usize].0.store(bytes, Ordering::Release);
    }

    /// Whether a flip that was asked for has happened.
    pub fn flipped(&self, caller: Caller, direction: Direction) -> bool {
        let controls = self.shared.controls(caller);
        controls.flip[direction as usize].0.load(Ordering::Acquire) == Countdown::NEVER
    }

    /// Takes all faults away: links pass, and what has not happened yet will not.
    pub fn heal(&self) {
        let links = self.shared.links.lock().unwrap_or_else(PoisonError::into_inner);
        for controls in links.values() {
            controls.link.send_replace(Link::pass());
            for countdown in controls.reset.iter().chain(&controls.flip) {
                countdown.0.store(Countdown::NEVER, Ordering::Release);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, caller)) = listener.accept().await else {
            // Out of file descriptors: some connection has to end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let controls = shared.controls((shared.identify)(caller));
        controls.made.fetch_add(1, Ordering::AcqRel);
        let choices = shared.choices.lock().unwrap_or_else(PoisonError::into_inner).fork();
        let target = shared.target;
        tokio::spawn(async move {
            if controls.link.borrow().refuse {
                controls.refused.fetch_add(1, Ordering::AcqRel);
                let _reset = client.set_zero_linger();
                return;
            }
            match TcpStream::connect(target).await {
                Ok(server) => pump::connection(client, server, controls, choices).await,
                // As it would be without a proxy: nobody listens.
                Err(_) => drop(client.set_zero_linger()),
            }
        });
    }
}

#[cfg(test)]
mod tests;
