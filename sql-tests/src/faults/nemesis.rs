//! One fault of one trial: prepared before the traffic, struck in the middle of it, taken back.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Context;
use basalt_storage::fail_point::{FailAction, FailPlan};

use super::choices::Choices;
use super::cluster::{Cluster, NodeId, running};
use super::inject::{FailingCalls, Injection};
use super::proxy::{Direction, Link};
use super::signals::{self, Paused};

/// How long a process may take to come to the step that it ends at. A step that the traffic does
/// not reach is reported, and nothing happens to its process.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// A fault.
#[derive(Debug, Clone)]
pub enum Nemesis {
    /// SIGKILL at a random moment.
    Kill {
        /// Whom.
        nodes: Vec<NodeId>,
        /// How long they stay away.
        lasts: Duration,
    },
    /// SIGKILL, and the data directory is gone when the node comes back.
    Wipe(NodeId),
    /// The coordinator loses its disk, and is restored from what the workers have of its log.
    LostCoordinator,
    /// A process ends at a named step of a write, or pauses there for a while.
    AtStep {
        /// Whose process.
        node: NodeId,
        /// Where.
        plan: FailPlan,
        /// How long it pauses, if it does.
        lasts: Duration,
    },
    /// SIGSTOP, and SIGCONT later.
    Pause {
        /// Whom.
        nodes: Vec<NodeId>,
        /// For how long.
        lasts: Duration,
    },
    /// The power of all nodes fails at once.
    PowerCut {
        /// All processes stand still at the instant of the cut; otherwise they see writes fail.
        frozen: bool,
    },
    /// The power of one node fails.
    PowerCutOf(NodeId),
    /// Links between nodes are bad for a while.
    Links {
        /// From, to, and how the link is.
        links: Vec<(NodeId, NodeId, Link)>,
        /// For how long.
        lasts: Duration,
    },
    /// Bits on a link are turned over: one within so many bytes, and again, for a while.
    FlippedBits {
        /// Who calls.
        from: NodeId,
        /// Whom.
        to: NodeId,
        /// What is flipped: the call or its answer.
        direction: Direction,
        /// From how many bytes one is chosen.
        within_bytes: u64,
        /// For how long.
        lasts: Duration,
    },
    /// System calls of a process fail for a while; then it is started again, since a failed fsync
    /// ends all writing until then.
    FailingCalls {
        /// Whose.
        node: NodeId,
        /// Which, and how.
        calls: Vec<FailingCalls>,
        /// For how long.
        lasts: Duration,
    },
}

/// A fault that has been struck and not yet taken back.
#[derive(Debug)]
enum Standing {
    Nothing,
    Paused { _until_dropped: Paused },
    Injected(Injection),
}

/// What is left to do about a fault.
#[derive(Debug)]
pub struct Struck {
    standing: Standing,
    lasts: Duration,
    /// Whether it happened: a step may not be reached.
    pub happened: bool,
}

impl Nemesis {
    /// The kind of fault, for figures.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "SIGKILL at a random moment",
            Self::Wipe(_) => "data directory wiped",
            Self::LostCoordinator => "coordinator's disk lost",
            Self::PowerCutOf(_) => "power cut of one node",
            Self::AtStep { plan, .. } if plan.action == FailAction::Stop => "pause at a named step",
            Self::AtStep { .. } => "SIGKILL at a named step",
            Self::Pause { .. } => "SIGSTOP and SIGCONT",
            Self::PowerCut { .. } => "power cut of all nodes",
            Self::Links { .. } => "bad links",
            Self::FlippedBits { .. } => "bits flipped on a link",
            Self::FailingCalls { .. } => "failing system calls",
        }
    }

    /// Whether it is armed before the traffic, and strikes by itself.
    pub fn is_armed(&self) -> bool {
        matches!(self, Self::AtStep { .. })
    }

    /// Does what must be done before the traffic begins.
    ///
    /// # Errors
    /// When a node does not start again.
    pub fn prepare(&self, cluster: &mut Cluster) -> anyhow::Result<()> {
        match self {
            Self::AtStep { node, plan, .. } => cluster.restart_armed(*node, *plan),
            _ => Ok(()),
        }
    }

    /// Strikes. Blocks until it has happened.
    ///
    /// # Errors
    /// When the machine does not do it.
    pub fn strike(&self, cluster: &mut Cluster, choices: &mut Choices) -> anyhow::Result<Struck> {
        let struck = |standing, lasts| Struck { standing, lasts, happened: true };
        match self {
            Self::Kill { nodes, lasts } => {
                cluster.kill(nodes)?;
                Ok(struck(Standing::Nothing, *lasts))
            }
            Self::Wipe(node) => {
                cluster.kill(&[*node])?;
                std::fs::remove_dir_all(cluster.home(*node))?;
                Ok(struck(Standing::Nothing, Duration::ZERO))
            }
            Self::LostCoordinator => {
                cluster.lose_coordinator()?;
                Ok(struck(Standing::Nothing, Duration::ZERO))
            }
            Self::AtStep { node, plan, lasts } => {
                let happened = match plan.action {
                    FailAction::Kill => cluster.wait_ended(*node, STEP_TIMEOUT),
                    FailAction::Stop => {
                        signals::wait_stopped_for(running(cluster, *node)?, STEP_TIMEOUT)?
                    }
                };
                Ok(Struck { standing: Standing::Nothing, lasts: *lasts, happened })
            }
            Self::Pause { nodes, lasts } => {
                let paused = cluster.pause(nodes)?;
                Ok(struck(Standing::Paused { _until_dropped: paused }, *lasts))
            }
            Self::PowerCut { frozen } => {
                // Killed before they go on: SIGKILL takes a stopped process as well.
                let paused = frozen.then(|| cluster.pause(&cluster.nodes())).transpose()?;
                cluster.cut_power()?;
                drop(paused);
                Ok(struck(Standing::Nothing, Duration::ZERO))
            }
            Self::PowerCutOf(node) => {
                cluster.cut_power_of(*node)?;
                Ok(struck(Standing::Nothing, Duration::ZERO))
            }
            Self::Links { links, lasts } => {
                let network = cluster.network()?;
                links.iter().for_each(|(from, to, link)| network.set(*from, *to, *link));
                Ok(struck(Standing::Nothing, *lasts))
            }
            Self::FlippedBits { from, to, direction, within_bytes, lasts } => {
                let network = cluster.network()?;
                let flips = flip_for(*lasts, || {
                    let bytes = choices.below(*within_bytes);
                    network.flip_after(*from, *to, *direction, bytes);
                    move || network.flipped(*from, *to, *direction)
                });
                let happened = flips > 0;
                Ok(Struck { standing: Standing::Nothing, lasts: Duration::ZERO, happened })
            }
            Self::FailingCalls { node, calls, lasts } => {
                let injection = Injection::attach(running(cluster, *node)?, calls)
                    .with_context(|| format!("calls of {node}"))?;
                Ok(struck(Standing::Injected(injection), *lasts))
            }
        }
    }

    /// Takes it back, and starts every node that does not run.
    ///
    /// # Errors
    /// When a node does not start again.
    pub fn heal(&self, struck: Struck, cluster: &mut Cluster) -> anyhow::Result<Healed> {
        let injected = match &struck.standing {
            Standing::Injected(injection) => injection.injected(),
            _ => 0,
        };
        let happened = struck.happened;
        drop(struck);
        match self {
            Self::AtStep { node, plan, .. } if happened && plan.action == FailAction::Stop => {
                signals::send(running(cluster, *node)?, nix::sys::signal::Signal::SIGCONT)?;
            }
            // Not reached: the next trial must not meet an armed process.
            Self::AtStep { node, .. } => cluster.kill(&[*node])?,
            Self::FailingCalls { node, .. } => cluster.kill(&[*node])?,
            Self::Links { .. } | Self::FlippedBits { .. } => cluster.network()?.heal(),
            Self::LostCoordinator => cluster.restore_coordinator()?,
            Self::Kill { .. }
            | Self::Wipe(_)
            | Self::Pause { .. }
            | Self::PowerCut { .. }
            | Self::PowerCutOf(_) => {}
        }
        cluster.start_missing()?;
        Ok(Healed { injected })
    }
}

/// What a fault came to.
#[derive(Debug, Clone, Copy)]
pub struct Healed {
    /// System calls that failed.
    pub injected: usize,
}

impl Struck {
    /// How long it stays as it is while traffic goes on.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }
}

/// Arms a flip, waits until it has happened, and arms the next. Returns how many there were.
fn flip_for<F: Fn() -> bool>(lasts: Duration, mut arm: impl FnMut() -> F) -> u64 {
    let deadline = Instant::now() + lasts;
    let mut flips = 0;
    while Instant::now() < deadline {
        let has_happened = arm();
        while !has_happened() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        flips += u64::from(has_happened());
    }
    flips
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Kill { nodes, lasts } => {
                write!(f, "SIGKILL of {} for {lasts:?}", list(nodes))
            }
            Self::Wipe(node) => write!(f, "{node} wiped"),
            Self::LostCoordinator => f.write_str("the coordinator's disk lost"),
            Self::PowerCutOf(node) => write!(f, "power cut of {node}"),
            Self::AtStep { node, plan, .. } => write!(f, "{node} at {plan}"),
            Self::Pause { nodes, lasts } => write!(f, "SIGSTOP of {} for {lasts:?}", list(nodes)),
            Self::PowerCut { frozen: true } => f.write_str("power cut of all nodes, frozen"),
            Self::PowerCut { frozen: false } => f.write_str("power cut of all nodes, running"),
            Self::Links { links, lasts } => {
                write!(f, "for {lasts:?}")?;
                links
                    .iter()
                    .try_for_each(|(from, to, link)| write!(f, ", {from} to {to}: {link:?}"))
            }
            Self::FlippedBits { from, to, direction, within_bytes, lasts } => write!(
                f,
                "one bit of {within_bytes} bytes {direction:?} of {from} to {to} for {lasts:?}"
            ),
            Self::FailingCalls { node, calls, lasts } => {
                write!(f, "{node} for {lasts:?}")?;
                calls.iter().try_for_each(|calls| write!(f, ", {calls}"))
            }
        }
    }
}
