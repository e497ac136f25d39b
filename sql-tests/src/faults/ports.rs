//! Ports on loopback that a process can be started on, killed, and started on again.
//!
//! A port that the kernel chose (port 0) may be taken by anybody's outgoing connection while its
//! process is dead. These lie below the range the kernel chooses from.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port tried. Linux chooses from 32768 on by default.
const FIRST: u16 = 21_000;
/// How many ports there are.
const COUNT: u16 = 10_000;

/// The next port of this process that is tried.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// An address on loopback where nobody listens now, given out once per process.
///
/// # Errors
/// When every port is taken.
pub fn free() -> io::Result<SocketAddr> {
    // Test processes that run at the same time begin at different places.
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step) % COUNT);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(io::Error::other("no port is free on loopback"))
}
