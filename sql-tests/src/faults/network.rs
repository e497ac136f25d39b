//! The network of a cluster: a proxy in front of every node, and a link for each pair of nodes.
//!
//! ```text
//!            ┌─▶ proxy of worker-0 ──▶ worker-0
//! worker-1 ──┼─▶ proxy of worker-2 ──▶ worker-2      worker-1 ▷ worker-2 is a link of its own,
//!            └─▶ proxy of coordinator ▶ coordinator  and has two directions
//! ```
//! A proxy knows who calls by the process that has the other end of the connection, so a link
//! between two workers can be cut while both reach the coordinator, and one side only.
//!
//! Clients connect to the coordinator itself and are not on this network.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

use super::callers::process_of;
use super::cluster::NodeId;
use super::proxy::{Caller, Direction, Link, Proxy};

/// The caller number of who is no node of the cluster.
const STRANGER: Caller = usize::MAX;

/// Proxies in front of all nodes.
#[derive(Debug)]
pub struct Network {
    proxies: Vec<Proxy>,
    /// Process ids by [`NodeId::index`]; 0 for one that never ran.
    processes: Arc<Mutex<Vec<u32>>>,
    /// Its own threads: tests block theirs.
    runtime: Option<Runtime>,
}

impl Network {
    /// A network that passes everything, in front of nodes that listen at these addresses, in the
    /// order of [`NodeId::index`].
    ///
    /// # Errors
    /// When no port or no thread is left.
    pub fn start(listen: &[SocketAddr], seed: u64) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let processes = Arc::new(Mutex::new(vec![0; listen.len()]));
        let start = |(index, address): (usize, &SocketAddr)| {
            let processes = Arc::clone(&processes);
            let identify = move |caller| {
                let known = processes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let process = process_of(caller, &known);
                known.iter().position(|known| Some(*known) == process).unwrap_or(STRANGER)
            };
            Proxy::start(runtime.handle(), *address, seed.wrapping_add(index as u64), identify)
        };
        let proxies = listen.iter().enumerate().map(start).collect::<Result<Vec<_>, _>>();
        let proxies = proxies.context("a proxy cannot be started")?;
        Ok(Self { proxies, processes, runtime: Some(runtime) })
    }

    /// Where a node is reached through its proxy.
    pub fn address(&self, id: NodeId) -> SocketAddr {
        self.proxies[id.index()].address()
    }

    /// Says which process a node is now.
    pub fn runs(&self, id: NodeId, process: u32) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)[id.index()] = process;
    }

    /// Changes the link over which `from` calls `to`. Answers of those calls are on it as well;
    /// calls of `to` are on another.
    pub fn set(&self, from: NodeId, to: NodeId, link: Link) {
        self.proxies[to.index()].set(from.index(), link);
    }

    /// Changes every link there is between two nodes, both ways.
    pub fn set_between(&self, one: NodeId, other: NodeId, link: Link) {
        self.set(one, other, link);
        self.set(other, one, link);
    }

    /// Connections that `from` has made to `to`, and how many of them were refused.
    pub fn connections(&self, from: NodeId, to: NodeId) -> (u64, u64) {
        self.proxies[to.index()].connections(from.index())
    }

    /// Resets the open connections between two nodes, whoever made them.
    pub fn reset_now_between(&self, one: NodeId, other: NodeId) {
        self.proxies[other.index()].reset_now(one.index());
        self.proxies[one.index()].reset_now(other.index());
    }

    /// Changes all links from and to a node.
    pub fn set_around(&self, id: NodeId, link: Link) {
        let others = (0..self.proxies.len()).filter(|index| *index != id.index());
        for other in others {
            self.proxies[other].set(id.index(), link);
            self.proxies[id.index()].set(other, link);
        }
    }

    /// Changes all links.
    pub fn set_all(&self, link: Link) {
        for proxy in &self.proxies {
            (0..self.proxies.len()).for_each(|from| proxy.set(from, link));
        }
    }

    /// Turns over one bit of a call of `from` to `to`, or of its answer, after `bytes` more.
    pub fn flip_after(&self, from: NodeId, to: NodeId, direction: Direction, bytes: u64) {
        self.proxies[to.index()].flip_after(from.index(), direction, bytes);
    }

    /// Whether that has happened.
    pub fn flipped(&self, from: NodeId, to: NodeId, direction: Direction) -> bool {
        self.proxies[to.index()].flipped(from.index(), direction)
    }

    /// Cuts the connection of `from` to `to` after `bytes` more.
    pub fn reset_after(&self, from: NodeId, to: NodeId, direction: Direction, bytes: u64) {
        self.proxies[to.index()].reset_after(from.index(), direction, bytes);
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.proxies.iter().for_each(Proxy::heal);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Waiting is not allowed where tests drop this.
            runtime.shutdown_background();
        }
    }
}
