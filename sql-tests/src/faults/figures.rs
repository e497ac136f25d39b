//! What trials are counted as, and the table of it (FAULTS A7).
//!
//! A zero says little without how often it could have been more: of `n` trials without a failure,
//! the chance of one is below `3/n` with 95 % confidence (rule of three), and the table says so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::disk::FileKind;
use super::traffic::Counts;
use super::violation::Kind;
use super::workload::Unanswered;

/// What was seen of damage to one kind of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DamageSeen {
    /// How often it was made.
    pub injected: u64,
    /// Statements refused, naming the file.
    pub refused: u64,
    /// Right answers all the same, from another copy or from memory.
    pub right: u64,
    /// Files that were whole again without anybody's help.
    pub repaired: u64,
}

/// The figures of one scenario, or of several.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Trials by kind of fault.
    pub trials: BTreeMap<&'static str, u64>,
    /// Named steps at which a process ended or paused.
    pub steps: BTreeSet<&'static str>,
    /// System calls that failed.
    pub calls_failed: u64,
    /// Statements of all trials.
    pub statements: Counts,
    /// What became of writes without an answer.
    pub unanswered: Unanswered,
    /// Broken promises.
    pub violations: BTreeMap<Kind, u64>,
    /// Damage by kind of file.
    pub damage: BTreeMap<FileKind, DamageSeen>,
    /// From the end of each fault until a write was acknowledged.
    pub recoveries: Vec<Duration>,
    /// From the return of a worker without its disk until every chunk had all of its copies.
    pub replications: Vec<Duration>,
    /// The longest time between two acknowledged writes.
    pub write_stall: Duration,
    /// The longest time between two answered queries.
    pub read_stall: Duration,
    /// What could not be tested on this machine, and why.
    pub skipped: Vec<String>,
}

impl Figures {
    /// Adds those of another scenario.
    pub fn add(&mut self, other: Self) {
        other.trials.into_iter().for_each(|(kind, n)| *self.trials.entry(kind).or_default() += n);
        self.steps.extend(other.steps);
        self.calls_failed += other.calls_failed;
        self.add_statements(other.statements);
        self.unanswered = self.unanswered.and(other.unanswered);
        for (kind, n) in other.violations {
            *self.violations.entry(kind).or_default() += n;
        }
        for (kind, seen) in other.damage {
            let all = self.damage.entry(kind).or_default();
            all.injected += seen.injected;
            all.refused += seen.refused;
            all.right += seen.right;
            all.repaired += seen.repaired;
        }
        self.recoveries.extend(other.recoveries);
        self.replications.extend(other.replications);
        self.write_stall = self.write_stall.max(other.write_stall);
        self.read_stall = self.read_stall.max(other.read_stall);
        self.skipped.extend(other.skipped);
    }

    /// Adds the statements of a trial.
    pub fn add_statements(&mut self, counts: Counts) {
        let all = &mut self.statements;
        all.acknowledged += counts.acknowledged;
        all.refused += counts.refused;
        all.unknown += counts.unknown;
        all.answered += counts.answered;
        all.failed += counts.failed;
        all.cut_off += counts.cut_off;
    }

    /// Trials of all kinds.
    pub fn trials(&self) -> u64 {
        self.trials.values().sum()
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn violations_of(&self, kind: Kind) -> u64 {
        self.violations.get(&kind).copied().unwrap_or(0)
    }
}

/// The median and the longest of some times, as text.
fn spread(times: &[Duration]) -> String {
    let mut times = times.to_vec();
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(longest)) => {
            format!("median {:.2} s, longest {:.2} s", seconds(*median), seconds(*longest))
        }
        _ => "-".to_owned(),
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// The upper bound of a chance of which `failures` were seen in `trials`, as text.
fn bound(failures: u64, trials: u64) -> String {
    match (failures, trials) {
        (_, 0) => "no trial".to_owned(),
        (0, trials) => format!("below {:.2} % per trial", 300.0 / trials as f64),
        (failures, trials) => format!("{:.2} % of trials", 100.0 * failures as f64 / trials as f64),
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String, note: String| {
            writeln!(f, "| {name:<48} | {value:>32} | {note}")
        };
        let trials = self.trials();
        row("figure", "value".into(), "95 % bound, or what it is of".into())?;
        for (kind, number) in &self.trials {
            row(&format!("trials: {kind}"), number.to_string(), String::new())?;
        }
        let Counts { acknowledged, refused, unknown, answered, failed, cut_off } = self.statements;
        let Unanswered { made, not_made } = self.unanswered;
        row("writes acknowledged", acknowledged.to_string(), format!("{refused} refused"))?;
        let became = format!("{made} were made, {not_made} were not");
        row("writes without an answer", unknown.to_string(), became)?;
        let cut_off = format!("{failed} failed before a row, {cut_off} were cut off, typed");
        row("queries answered", answered.to_string(), cut_off)?;
        for kind in Kind::ALL {
            let seen = self.violations_of(kind);
            row(&format!("violations: {kind}"), seen.to_string(), bound(seen, trials))?;
        }
        if !self.steps.is_empty() {
            let all = basalt_storage::fail_point::FailPoint::ALL.len();
            row("named steps hit", format!("{} of {all}", self.steps.len()), String::new())?;
        }
        if self.calls_failed > 0 {
            row("system calls failed", self.calls_failed.to_string(), String::new())?;
        }
        for (kind, seen) in &self.damage {
            let DamageSeen { injected, refused, right, repaired } = seen;
            let value = format!("{injected} / {} / {repaired}", refused + right);
            let note = format!("made / noticed or harmless / repaired; {refused} refused by name");
            row(&format!("damage: {}", kind.name()), value, note)?;
        }
        row("from heal to an acknowledged write", spread(&self.recoveries), String::new())?;
        if !self.replications.is_empty() {
            let name = "from a wiped disk to full replication";
            row(name, spread(&self.replications), String::new())?;
        }
        let stalls =
            format!("{:.2} s / {:.2} s", seconds(self.write_stall), seconds(self.read_stall));
        row("longest stall of writes / of reads", stalls, String::new())?;
        for skipped in &self.skipped {
            row("skipped", skipped.clone(), String::new())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zero_comes_with_its_bound() {
        assert_eq!(bound(0, 300), "below 1.00 % per trial");
        assert_eq!(bound(3, 300), "1.00 % of trials");
        assert_eq!(bound(0, 0), "no trial");
    }

    #[test]
    fn figures_of_scenarios_add_up() {
        let one = || Figures {
            trials: BTreeMap::from([("SIGKILL", 5)]),
            violations: BTreeMap::from([(Kind::Lost, 1)]),
            recoveries: vec![Duration::from_secs(1)],
            ..Figures::default()
        };
        let mut all = one();
        all.add(one());
        assert_eq!((all.trials(), all.violations_of(Kind::Lost)), (10, 2));
        assert!(!all.is_clean());
        let table = all.to_string();
        assert!(
            table.contains("trials: SIGKILL") && table.contains("20.00 % of trials"),
            "{table}"
        );
    }
}
