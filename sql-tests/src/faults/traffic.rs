//! What writers and readers of a trial share: when to stop, and how it went.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::session::{Outcome, Session};
use super::violation::Violation;

/// The traffic of one trial. Shared by its writers, its readers and the runner.
#[derive(Debug)]
pub struct Traffic {
    stop: watch::Sender<bool>,
    counts: watch::Sender<Counts>,
    moments: Mutex<Moments>,
    /// What the first query said that failed before its first row.
    first_failure: Mutex<Option<String>>,
}

/// How it went so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Writes without an answer that says which.
    pub unknown: u64,
    /// Queries that were answered.
    pub answered: u64,
    /// Queries that failed before their first row.
    pub failed: u64,
    /// Queries that were cut off in the middle of their rows, by an error that says so.
    pub cut_off: u64,
}

/// The last successes and the longest times between two.
#[derive(Debug, Default)]
struct Moments {
    write: Option<Instant>,
    write_stall: Duration,
    read: Option<Instant>,
    read_stall: Duration,
}

fn success(last: &mut Option<Instant>, stall: &mut Duration) {
    let now = Instant::now();
    *stall = last.map_or(*stall, |last| (*stall).max(now - last));
    *last = Some(now);
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            stop: watch::Sender::new(false),
            counts: watch::Sender::new(Counts::default()),
            moments: Mutex::default(),
            first_failure: Mutex::default(),
        }
    }
}

impl Traffic {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Asks everybody to end after the statement they are at.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits a moment after a failure, so that a dead server is not asked a thousand times.
    pub async fn pause(&self) {
        let mut stop = self.stop.subscribe();
        let over = stop.wait_for(|stop| *stop);
        let _over_or_not = tokio::time::timeout(Duration::from_millis(20), over).await;
    }

    /// Runs a write and counts what came of it.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub async fn write(&self, session: &mut Session, sql: &str) -> Result<Outcome, Violation> {
        let outcome = session.write(sql).await?;
        self.count(&outcome);
        if !matches!(outcome, Outcome::Acknowledged(_)) {
            self.pause().await;
        }
        Ok(outcome)
    }

    /// Counts what came of a write.
    pub fn count(&self, outcome: &Outcome) {
        if let Outcome::Acknowledged(_) = outcome {
            let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
            let Moments { write, write_stall, .. } = &mut *moments;
            success(write, write_stall);
        }
        self.counts.send_modify(|counts| match outcome {
            Outcome::Acknowledged(_) => counts.acknowledged += 1,
            Outcome::Refused(_) => counts.refused += 1,
            Outcome::Unknown(_) => counts.unknown += 1,
        });
    }

    /// Runs a query of integers and counts whether it was answered; `None` when it failed.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub async fn read(
        &self,
        session: &mut Session,
        sql: &str,
    ) -> Result<Option<Vec<Vec<i64>>>, Violation> {
        let answer = session.read(sql).await?;
        match answer {
            Ok(rows) => {
                self.answered();
                Ok(Some(rows))
            }
            Err(error) => {
                self.failed(false, &format!("{sql}: {error}")).await;
                Ok(None)
            }
        }
    }

    /// Counts a query that was answered whole.
    pub fn answered(&self) {
        self.counts.send_modify(|counts| counts.answered += 1);
        let mut moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        let Moments { read, read_stall, .. } = &mut *moments;
        success(read, read_stall);
    }

    /// Counts a query that failed, in the middle of its rows or before them.
    pub async fn failed(&self, in_the_middle: bool, error: &str) {
        if !in_the_middle {
            let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_owned());
        }
        self.counts.send_modify(|counts| match in_the_middle {
            true => counts.cut_off += 1,
            false => counts.failed += 1,
        });
        self.pause().await;
    }

    /// What the first query said that failed before its first row.
    pub fn first_failure(&self) -> Option<String> {
        self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How it went so far.
    pub fn counts(&self) -> Counts {
        *self.counts.borrow()
    }

    /// Waits until so many writes are acknowledged.
    pub async fn wait_acknowledged(&self, writes: u64) {
        let mut counts = self.counts.subscribe();
        // The sender is in `self`.
        let _there = counts.wait_for(|counts| counts.acknowledged >= writes).await;
    }

    /// The longest time between two acknowledged writes, and between two answered queries.
    pub fn longest_stalls(&self) -> (Duration, Duration) {
        let moments = self.moments.lock().unwrap_or_else(PoisonError::into_inner);
        (moments.write_stall, moments.read_stall)
    }
}
