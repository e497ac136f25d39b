//! How often tables are read: of copies that are equally urgent, those of the table that is read
//! most are made first.
//!
//! Reads fade: one counts half after a while, so that what was hot yesterday is not hot for ever. By
//! table and not by segment: a query names tables, and which segments of one survive pruning says
//! little about the next query.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use basalt_storage::ids::TableId;

/// After this time a read counts half.
const HALF_LIFE: Duration = Duration::from_secs(10 * 60);
/// Tables beyond which those that have faded are forgotten: dropped ones would stay for ever.
const TABLES_MAX: usize = 10_000;
/// What is left of a table that has faded.
const FADED: f64 = 0.01;

/// The reads of each table, faded, as of when it was read last.
#[derive(Debug, Default)]
pub(super) struct Heat(HashMap<TableId, (f64, Instant)>);

impl Heat {
    /// Notes a read.
    pub(super) fn note(&mut self, table: TableId, now: Instant) {
        let (reads, since) = self.0.entry(table).or_insert((0.0, now));
        (*reads, *since) = (faded(*reads, *since, now) + 1.0, now);
        if self.0.len() > TABLES_MAX {
            self.0.retain(|_, (reads, since)| faded(*reads, *since, now) > FADED);
        }
    }

    /// How hot tables are now, in hundredths of a read.
    pub(super) fn all(&self, now: Instant) -> HashMap<TableId, u64> {
        let heat = |(reads, since): &(f64, Instant)| (faded(*reads, *since, now) * 100.0) as u64;
        self.0.iter().map(|(table, read)| (*table, heat(read))).collect()
    }
}

fn faded(reads: f64, since: Instant, now: Instant) -> f64 {
    let half_lives = now.duration_since(since).as_secs_f64() / HALF_LIFE.as_secs_f64();
    reads * 0.5f64.powf(half_lives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_often_is_hot_and_reads_fade() {
        let (mut heat, now) = (Heat::default(), Instant::now());
        for _ in 0..4 {
            heat.note(TableId(1), now);
        }
        heat.note(TableId(2), now);
        let at = |half_lives: u32| now + HALF_LIFE * half_lives;
        assert_eq!(heat.all(now), HashMap::from([(TableId(1), 400), (TableId(2), 100)]));
        assert_eq!(heat.all(at(2))[&TableId(1)], 100);
        heat.note(TableId(2), at(3));
        let later = heat.all(at(3));
        assert!(later[&TableId(2)] > later[&TableId(1)], "it was read lately");
    }

    #[test]
    fn tables_that_have_faded_are_forgotten_when_there_are_many() {
        let (mut heat, now) = (Heat::default(), Instant::now());
        (0..=TABLES_MAX as u64).for_each(|id| heat.note(TableId(id), now));
        assert_eq!(heat.0.len(), TABLES_MAX + 1, "all of them are hot");
        heat.note(TableId(u64::MAX), now + HALF_LIFE * 20);
        assert_eq!(heat.0.len(), 1);
    }
}
