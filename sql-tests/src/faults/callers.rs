//! Which process a loopback connection comes from: what tells two callers of one proxy apart.
//!
//! ```text
//! 127.0.0.1:45678 ─▶ /proc/net/tcp: inode 1234 ─▶ /proc/<pid>/fd/*: socket:[1234] ─▶ pid
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// How often the tables are read: the kernel gives them piece by piece, and a piece may lack a socket
/// that is there when others come and go meanwhile.
const READ_TIMES: usize = 10;

/// The process among `processes` that has the socket whose own address is `address`.
pub fn process_of(address: SocketAddr, processes: &[u32]) -> Option<u32> {
    (0..READ_TIMES).find_map(|_| process_seen(address, processes))
}

fn process_seen(address: SocketAddr, processes: &[u32]) -> Option<u32> {
    let link = format!("socket:[{}]", inode_of(address)?);
    let has_it = |process: &&u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        open.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.to_str() == Some(&link))
        })
    };
    processes.iter().find(has_it).copied()
}

/// The inode of the IPv4 socket with this own address.
fn inode_of(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().skip(1).find_map(|line| {
        // sl, local address, remote address, state, queues, timers, retransmits, uid, timeout,
        // inode.
        let fields: Vec<_> = line.split_whitespace().collect();
        let own = parse(fields.get(1)?)?;
        (own == address).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })
}

/// `0100007F:1F90` is 127.0.0.1:8080: the address in the machine's byte order, the port in ours.
fn parse(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(SocketAddrV4::new(Ipv4Addr::from(address), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_traced_to_the_process_that_made_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, caller) = listener.accept().unwrap();
        assert_eq!(caller, ours.local_addr().unwrap());
        let us = std::process::id();
        assert_eq!(process_of(caller, &[1, us]), Some(us));
        assert_eq!(process_of(caller, &[]), None);
    }
}
