//! Records of DataFusion's own files, counted by what they need and by how they were answered.

use std::collections::BTreeMap;

use super::check::{Likeness, Verdict};
use super::needs::Need;

/// How one side answered records as the file says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answers {
    /// Word for word.
    pub same: u64,
    /// The same rows, in another order where SQL names none.
    pub other_order: u64,
    /// An error for an error, in other words.
    pub other_words: u64,
}

impl Answers {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.same + self.other_order + self.other_words
    }

    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Expected(Likeness::Same) => self.same += 1,
            Verdict::Expected(Likeness::OtherOrder) => self.other_order += 1,
            Verdict::Expected(Likeness::OtherWords) => self.other_words += 1,
            Verdict::LeftOut | Verdict::Unexpected(_) => {}
        }
    }

    fn merge(&mut self, other: &Self) {
        self.same += other.same;
        self.other_order += other.other_order;
        self.other_words += other.other_words;
    }
}

/// Records of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many there are.
    pub records: u64,
    /// How many of them were not run.
    pub not_run: u64,
    /// What our side did.
    pub ours: Answers,
    /// What the oracle did.
    pub oracle: Answers,
}

/// Records by need; `None` are those that need nothing but SQL.
#[derive(Debug, Clone, Default)]
pub struct Tallies(BTreeMap<Option<Need>, Tally>);

impl Tallies {
    pub(super) fn add_not_run(&mut self, need: Need) {
        let tally = self.0.entry(Some(need)).or_default();
        tally.records += 1;
        tally.not_run += 1;
    }

    /// Counts a record that ran. What the oracle does not answer as the file says has a need that
    /// the text does not show.
    pub(super) fn add(&mut self, need: Option<Need>, ours: &Verdict, oracle: Option<&Verdict>) {
        if matches!(ours, Verdict::LeftOut) {
            return;
        }
        let is_not_plain = matches!(oracle, Some(Verdict::Unexpected(_)));
        let need = need.or(is_not_plain.then_some(Need::NotPlain));
        let tally = self.0.entry(need).or_default();
        tally.records += 1;
        tally.ours.add(ours);
        if let Some(oracle) = oracle {
            tally.oracle.add(oracle);
        }
    }

    /// Adds those of another file.
    pub fn merge(&mut self, other: &Self) {
        for (need, tally) in &other.0 {
            let sum = self.0.entry(*need).or_default();
            sum.records += tally.records;
            sum.not_run += tally.not_run;
            sum.ours.merge(&tally.ours);
            sum.oracle.merge(&tally.oracle);
        }
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The kinds, what needs nothing but SQL first.
    pub fn iter(&self) -> impl Iterator<Item = (Option<Need>, &Tally)> {
        self.0.iter().map(|(need, tally)| (*need, tally))
    }

    /// All records together.
    pub fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in self.0.values() {
            sum.records += tally.records;
            sum.not_run += tally.not_run;
            sum.ours.merge(&tally.ours);
            sum.oracle.merge(&tally.oracle);
        }
        sum
    }

    /// The records that need nothing but SQL.
    pub fn plain(&self) -> Tally {
        self.0.get(&None).copied().unwrap_or_default()
    }
}
