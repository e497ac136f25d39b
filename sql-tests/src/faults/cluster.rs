//! A cluster of real processes whose nodes are killed, paused, cut off and started again one by
//! one.
//!
//! ```text
//! <dir>/coordinator, <dir>/worker-0, ...   data directories, or disks of a power grid
//! ```
//! Every node keeps its port over restarts, so that clients and peers find it again. With
//! [`Shape::proxied`] everything between two nodes goes through a [`Network`] of proxies.
//!
//! Invariant: no process outlives its [`Cluster`].

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use basalt_storage::fail_point::FailPlan;

use super::network::Network;
use super::ports;
use super::power::PowerGrid;
use super::signals::Paused;
use crate::processes::Process;

/// A node of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeId {
    /// The one coordinator.
    Coordinator,
    /// A worker, counted from 0.
    Worker(usize),
}

impl NodeId {
    /// Its place in lists of all nodes: the coordinator comes first.
    pub fn index(self) -> usize {
        match self {
            Self::Coordinator => 0,
            Self::Worker(number) => number + 1,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Worker(number) => write!(f, "worker-{number}"),
        }
    }
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Shape {
    /// The `basalt` binary.
    pub binary: PathBuf,
    /// How many workers.
    pub workers: usize,
    /// Whether nodes talk through proxies.
    pub proxied: bool,
    /// Whether each node has a disk whose power can be cut.
    pub power_cuts: bool,
    /// Decides jitter and bits of the proxies.
    pub seed: u64,
    /// More arguments of the coordinator.
    pub coordinator_args: Vec<String>,
    /// More arguments of every worker.
    pub worker_args: Vec<String>,
}

impl Shape {
    /// Plain processes on plain folders.
    pub fn of(binary: impl Into<PathBuf>, workers: usize) -> Self {
        let (coordinator_args, worker_args) = (vec![], vec![]);
        Self {
            binary: binary.into(),
            workers,
            proxied: false,
            power_cuts: false,
            seed: 1,
            coordinator_args,
            worker_args,
        }
    }
}

/// Running processes and how to start them again.
#[derive(Debug)]
pub struct Cluster {
    shape: Shape,
    dir: PathBuf,
    /// Workers stop before the coordinator: they come first here, unlike in [`NodeId::index`].
    workers: Vec<Node>,
    coordinator: Node,
    network: Option<Network>,
    grid: Option<PowerGrid>,
}

#[derive(Debug)]
struct Node {
    home: PathBuf,
    listen: SocketAddr,
    process: Option<Process>,
    /// What the process ends at; for the next start only.
    fail_at: Option<FailPlan>,
}

impl Cluster {
    /// Starts a coordinator and workers with their data below `dir`.
    ///
    /// # Errors
    /// As [`Process::spawn`]; and when the machine has no proxies or disks as the shape wants.
    pub fn start(shape: Shape, dir: &Path) -> anyhow::Result<Self> {
        let ids = (0..shape.workers).map(NodeId::Worker);
        let ids: Vec<_> = std::iter::once(NodeId::Coordinator).chain(ids).collect();
        let names: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let grid = shape.power_cuts.then(|| PowerGrid::new(&names)).transpose()?;
        let node = |id: &NodeId| -> anyhow::Result<Node> {
            let home = match &grid {
                // Below the mount point, whose own `lost+found` is none of the node's business.
                Some(grid) => grid.disk(id.index()).join("data"),
                None => dir.join(id.to_string()),
            };
            Ok(Node { home, listen: ports::free()?, process: None, fail_at: None })
        };
        let mut nodes = ids.iter().map(node).collect::<anyhow::Result<Vec<_>>>()?;
        let listen: Vec<_> = nodes.iter().map(|node| node.listen).collect();
        let network = shape.proxied.then(|| Network::start(&listen, shape.seed)).transpose()?;
        let coordinator = nodes.remove(0);
        let dir = dir.to_owned();
        let mut cluster = Self { shape, dir, workers: nodes, coordinator, network, grid };
        cluster.start_missing()?;
        Ok(cluster)
    }

    /// Where clients connect: the coordinator itself, whatever happens to the network.
    pub fn url(&self) -> String {
        format!("grpc://{}", self.coordinator.listen)
    }

    /// Where a node itself listens.
    pub fn url_of(&self, id: NodeId) -> String {
        format!("grpc://{}", self.node(id).listen)
    }

    /// The folder that COPY may read on every node.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every node, the coordinator first.
    pub fn nodes(&self) -> Vec<NodeId> {
        let workers = (0..self.workers.len()).map(NodeId::Worker);
        std::iter::once(NodeId::Coordinator).chain(workers).collect()
    }

    /// Every worker.
    pub fn workers(&self) -> Vec<NodeId> {
        (0..self.workers.len()).map(NodeId::Worker).collect()
    }

    /// A node's data directory.
    pub fn home(&self, id: NodeId) -> &Path {
        &self.node(id).home
    }

    /// The process of a node that runs.
    pub fn process_id(&self, id: NodeId) -> Option<u32> {
        self.node(id).process.as_ref().map(Process::id)
    }

    /// The proxies between the nodes.
    ///
    /// # Errors
    /// When the cluster was made without.
    pub fn network(&self) -> anyhow::Result<&Network> {
        self.network.as_ref().context("the cluster's shape has no proxies")
    }

    /// The disks of the nodes.
    ///
    /// # Errors
    /// When the cluster was made without.
    pub fn grid(&mut self) -> anyhow::Result<&mut PowerGrid> {
        self.grid.as_mut().context("the cluster's shape has no power grid")
    }

    /// Kills nodes (SIGKILL) and waits until they are gone.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn kill(&mut self, ids: &[NodeId]) -> anyhow::Result<()> {
        // All at once, and then waited for: nobody sees the others die.
        let killed = ids.iter().filter_map(|id| self.node_mut(*id).process.take());
        let mut killed: Vec<_> = killed.collect();
        for process in &mut killed {
            process.signal(nix::sys::signal::Signal::SIGKILL)?;
        }
        killed.iter_mut().try_for_each(Process::kill)
    }

    /// Pauses nodes until the answer is dropped.
    ///
    /// # Errors
    /// When one does not run.
    pub fn pause(&self, ids: &[NodeId]) -> anyhow::Result<Paused> {
        let processes = ids.iter().filter_map(|id| self.process_id(*id));
        Paused::new(&processes.collect::<Vec<_>>())
    }

    /// Starts a node again, to end at a step of a write.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn restart_armed(&mut self, id: NodeId, plan: FailPlan) -> anyhow::Result<()> {
        self.kill(&[id])?;
        self.node_mut(id).fail_at = Some(plan);
        self.start_missing()
    }

    /// Starts every node that does not run, the coordinator first. A node that ended by itself
    /// counts as not running.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn start_missing(&mut self) -> anyhow::Result<()> {
        for id in self.nodes() {
            self.forget_if_dead(id);
            if self.node(id).process.is_none() {
                let process = self.spawn(id)?;
                self.node_mut(id).process = Some(process);
            }
        }
        Ok(())
    }

    /// Waits until a node has ended by itself; `false` when it runs on for so long.
    pub fn wait_ended(&mut self, id: NodeId, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            self.forget_if_dead(id);
            if self.node(id).process.is_none() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Cuts the power of all nodes at one instant, and kills what then only runs into errors.
    /// [`Self::start_missing`] finds the disks as they were at that instant.
    ///
    /// # Errors
    /// When the cluster has no power grid, or a disk cannot be brought back.
    pub fn cut_power(&mut self) -> anyhow::Result<()> {
        self.grid()?.cut()?;
        self.kill(&self.nodes())?;
        self.grid()?.restore()
    }

    /// Cuts the power of one node, and kills it.
    ///
    /// # Errors
    /// As [`Self::cut_power`].
    pub fn cut_power_of(&mut self, id: NodeId) -> anyhow::Result<()> {
        self.grid()?.cut_one(id.index())?;
        self.kill(&[id])?;
        self.grid()?.restore_one(id.index())
    }

    /// Kills the coordinator and removes its data directory. What its operator has is a copy of the
    /// secret.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn lose_coordinator(&mut self) -> anyhow::Result<()> {
        self.kill(&[NodeId::Coordinator])?;
        let home = &self.coordinator.home;
        std::fs::copy(home.join("cluster.secret"), self.kept_secret())?;
        std::fs::remove_dir_all(home)?;
        Ok(())
    }

    /// Restores the coordinator's catalog from the workers that run.
    ///
    /// # Errors
    /// When `basalt catalog restore` does not do it.
    pub fn restore_coordinator(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.shape.binary);
        command.args(["catalog", "restore", "--data-dir"]).arg(&self.coordinator.home);
        command.arg("--secret-file").arg(self.kept_secret());
        for worker in self.workers() {
            command.arg("--from").arg(self.url_of(worker));
        }
        let output = command.output().context("the catalog cannot be restored")?;
        let problem = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the catalog is not restored: {problem}");
        Ok(())
    }

    fn kept_secret(&self) -> PathBuf {
        self.dir.join("kept.secret")
    }

    fn spawn(&mut self, id: NodeId) -> anyhow::Result<Process> {
        let role = match id {
            NodeId::Coordinator => "coordinator",
            NodeId::Worker(_) => "worker",
        };
        let files = self.dir.display().to_string();
        let node = self.node_mut(id);
        let fail_at = node.fail_at.take();
        let (home, listen) = (node.home.display().to_string(), node.listen.to_string());
        let mut args = [role, "--data-dir", &home, "--listen", &listen, "--allow-path", &files]
            .map(str::to_owned)
            .to_vec();
        if let Some(plan) = fail_at {
            args.extend(["--fail-at".to_owned(), plan.to_string()]);
        }
        if id == NodeId::Coordinator {
            // What is read again comes from the workers, not from memory of before the fault.
            args.extend(["--result-cache".to_owned(), "0".to_owned()]);
            args.extend(self.shape.coordinator_args.iter().cloned());
        }
        if let NodeId::Worker(_) = id {
            args.extend(self.shape.worker_args.iter().cloned());
            let coordinator = match &self.network {
                Some(network) => network.address(NodeId::Coordinator),
                None => self.coordinator.listen,
            };
            let secret = self.coordinator.home.join("cluster.secret").display().to_string();
            args.extend(["--coordinator".to_owned(), format!("grpc://{coordinator}")]);
            args.extend(["--secret-file".to_owned(), secret]);
            if let Some(network) = &self.network {
                let address = network.address(id);
                args.extend(["--advertise".to_owned(), format!("grpc://{address}")]);
            }
        }
        let network = self.network.as_ref();
        Process::spawn_known(&self.shape.binary, &args, |process| {
            if let Some(network) = network {
                network.runs(id, process);
            }
        })
    }

    fn forget_if_dead(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        if node.process.as_mut().is_some_and(Process::has_ended) {
            node.process = None;
        }
    }

    fn node(&self, id: NodeId) -> &Node {
        match id {
            NodeId::Coordinator => &self.coordinator,
            NodeId::Worker(number) => &self.workers[number],
        }
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match id {
            NodeId::Coordinator => &mut self.coordinator,
            NodeId::Worker(number) => &mut self.workers[number],
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the disks that their files are on: fields are dropped later.
        if let Err(error) = self.kill(&self.nodes()) {
            tracing::warn!(%error, "a process of a cluster cannot be killed");
        }
    }
}

/// Checks that a node runs.
///
/// # Errors
/// When it does not.
pub fn running(cluster: &Cluster, id: NodeId) -> anyhow::Result<u32> {
    match cluster.process_id(id) {
        Some(process) => Ok(process),
        None => bail!("{id} does not run"),
    }
}
