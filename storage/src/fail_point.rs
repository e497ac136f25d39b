//! Named steps of the commit protocol at which a test ends or pauses this process.
//!
//! A random kill seldom falls between an fsync and the rename behind it; a fail point falls there
//! every time. The points are part of the shipped program, so what is tested is what is run: a
//! process takes one by the hidden flag `--fail-at`, and without it passing a point costs one
//! relaxed load. Not the crate `fail`: it runs scripts out of an environment variable behind a
//! lock, and must be compiled in or out; all we need is to die.
//!
//! Invariant: a point is armed at most once, before the process serves; nothing else reads it.
//! Not here: failing system calls, which `strace` does from outside of the unmodified program.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use nix::sys::signal::{Signal, raise};

/// Makes the enum, its list and the names from one table.
macro_rules! fail_points {
    ($($(#[doc = $doc:literal])+ $point:ident = $name:literal,)+) => {
        /// A step of the protocol by which rows become durable and visible.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FailPoint {
            $($(#[doc = $doc])+ $point,)+
        }

        impl FailPoint {
            /// Every point, in the order in which a write passes them.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// The name, as `--fail-at` takes it.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

fail_points! {
    /// A worker took rows into memory and has not said so.
    AppendTaken = "append.taken",
    /// A worker was asked to seal and has written nothing for it.
    SealBegun = "seal.begun",
    /// Before a file is created under `tmp/`; once per file.
    PublishBeforeWrite = "publish.before_write",
    /// A file is written and not synced; once per file.
    PublishBeforeFsync = "publish.before_fsync",
    /// Every file is synced, and before each of them gets its final name.
    PublishBeforeRename = "publish.before_rename",
    /// Every file has its final name, and before each of their directories is synced.
    PublishBeforeDirFsync = "publish.before_dir_fsync",
    /// Every name is synced; nobody knows of it yet.
    PublishDurable = "publish.durable",
    /// An owner has a new segment, and a partner has nothing of it.
    CopyBegun = "copy.begun",
    /// A partner has written a file of its copy and not synced it; once per file.
    CopyBeforeFsync = "copy.before_fsync",
    /// A partner's copy is durable, and the owner does not know.
    CopyBeforeReply = "copy.before_reply",
    /// A worker's segments are durable and its answer to the seal is not sent.
    SealBeforeReply = "seal.before_reply",
    /// The coordinator knows every sealed segment and has not asked for the commit.
    CommitBegun = "commit.begun",
    /// The catalog applied a group of commands and has not written them.
    CatalogBeforeAppend = "catalog.before_append",
    /// The records are in the database's transaction, which is not committed.
    CatalogBeforeFsync = "catalog.before_fsync",
    /// The records are fsynced on the coordinator's disk, and nowhere else yet.
    CatalogAppended = "catalog.appended",
    /// The commit is durable, and no reader sees it.
    CatalogBeforePublish = "catalog.before_publish",
    /// Readers see the commit, and who asked for it has no answer.
    CatalogBeforeReply = "catalog.before_reply",
    /// The commit has its answer, and the client has none.
    CommitBeforeReply = "commit.before_reply",
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to the process at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailAction {
    /// SIGKILL: nothing is finished, as in a crash.
    Kill,
    /// SIGSTOP: the process stays as it is until somebody sends SIGCONT.
    Stop,
}

/// Which point, at which of its passes, does what. As text: `POINT[:N][=stop]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailPlan {
    /// The step.
    pub point: FailPoint,
    /// Which pass of it, from 1.
    pub pass: u32,
    /// What happens there.
    pub action: FailAction,
}

impl fmt::Display for FailPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            FailAction::Kill => "",
            FailAction::Stop => "=stop",
        };
        write!(f, "{}:{}{action}", self.point, self.pass)
    }
}

/// A text that is no [`FailPlan`].
#[derive(Debug, thiserror::Error)]
#[error("fail point {text:?} {problem}: expected POINT[:N][=stop]")]
pub struct InvalidFailPlan {
    text: String,
    problem: &'static str,
}

impl FromStr for FailPlan {
    type Err = InvalidFailPlan;

    fn from_str(text: &str) -> Result<Self, InvalidFailPlan> {
        let invalid = |problem| InvalidFailPlan { text: text.to_owned(), problem };
        let (place, action) = match text.split_once('=') {
            None => (text, FailAction::Kill),
            Some((place, "stop")) => (place, FailAction::Stop),
            Some(_) => return Err(invalid("has an unknown action")),
        };
        let (name, pass) = place.split_once(':').unwrap_or((place, "1"));
        let pass = pass.parse().ok().filter(|pass| *pass > 0);
        let pass = pass.ok_or_else(|| invalid("has a pass that is no number from 1"))?;
        let point = FailPoint::ALL.iter().copied().find(|point| point.name() == name);
        Ok(Self { point: point.ok_or_else(|| invalid("is not known"))?, pass, action })
    }
}

/// The armed point, counted from 1, and whether it stops: twice its number, and one more to stop.
/// 0 when there is none.
static ARMED: AtomicUsize = AtomicUsize::new(0);
/// Passes of the armed point until it acts.
static PASSES_LEFT: AtomicU32 = AtomicU32::new(0);

/// Sets what this process does at a point. For the start of a process: what passes meanwhile may
/// or may not count.
pub fn arm(plan: FailPlan) {
    PASSES_LEFT.store(plan.pass, Ordering::Release);
    let stops = usize::from(plan.action == FailAction::Stop);
    ARMED.store(2 * (plan.point as usize + 1) + stops, Ordering::Release);
    tracing::warn!(%plan, "this process is armed to fail: for tests only");
}

/// Passes a point: does nothing, unless the process was armed for this pass of it.
#[inline]
pub fn hit(point: FailPoint) {
    if ARMED.load(Ordering::Relaxed) != 0 {
        reached(point);
    }
}

#[cold]
fn reached(point: FailPoint) {
    let armed = ARMED.load(Ordering::Acquire);
    if armed / 2 != point as usize + 1 || PASSES_LEFT.load(Ordering::Acquire) == 0 {
        return;
    }
    if PASSES_LEFT.fetch_sub(1, Ordering::AcqRel) == 1 {
        let stops = armed % 2 == 1;
        // Both act on the whole process, before the call returns.
        let _cannot_fail = raise(if stops { Signal::SIGSTOP } else { Signal::SIGKILL });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_refused(text: &str, problem: &str) {
        let error = text.parse::<FailPlan>().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }

    #[test]
    fn a_plan_reads_back_from_its_text() {
        for (index, point) in FailPoint::ALL.iter().enumerate() {
            for action in [FailAction::Kill, FailAction::Stop] {
                let plan = FailPlan { point: *point, pass: 1 + index as u32, action };
                assert_eq!(plan.to_string().parse::<FailPlan>().unwrap(), plan);
            }
        }
        let short: FailPlan = "publish.before_fsync".parse().unwrap();
        assert_eq!((short.pass, short.action), (1, FailAction::Kill));
    }

    #[test]
    fn a_plan_that_says_nothing_known_is_refused() {
        check_refused("publish.before_lunch", "is not known");
        check_refused("publish.before_fsync:0", "no number from 1");
        check_refused("publish.before_fsync:many", "no number from 1");
        check_refused("publish.before_fsync=sleep", "unknown action");
    }

    #[test]
    fn names_are_told_apart() {
        let names: std::collections::BTreeSet<_> =
            FailPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), FailPoint::ALL.len());
    }
}
