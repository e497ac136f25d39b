//! Batches of rows, each with a number of its own (FAULTS A8, set/append).
//!
//! ```text
//! appended (client, batch, i)    i = 1 ..= BATCH_ROWS of each batch, on all slices
//! ```
//! At the end: acknowledged batches are there once and whole, refused ones are not there, the
//! others are there whole or not at all. While it runs, readers see whole batches only, see what
//! was acknowledged before they asked, and never see a batch gone that they have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{Unanswered, Workload, all};
use crate::faults::choices::Choices;
use crate::faults::session::{Labels, Outcome, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

/// Rows of a batch: enough for all slices, so that each batch spans all workers.
const BATCH_ROWS: i64 = 300;

const FOUND: &str = "SELECT client, batch, count(*), count(DISTINCT i), sum(i) \
                     FROM appended GROUP BY client, batch";

/// A batch: who wrote it, and its number.
pub type Batch = (i64, i64);

/// What clients were told about their batches.
pub type History = BTreeMap<Batch, Outcome>;

/// The workload.
#[derive(Debug)]
pub struct Append {
    writers: i64,
    readers: usize,
    labels: bool,
    history: Arc<Mutex<History>>,
    next_batch: i64,
}

impl Append {
    /// So many clients that write, and so many that read.
    pub fn new(writers: i64, readers: usize) -> Self {
        Self { writers, readers, labels: false, history: Arc::default(), next_batch: 0 }
    }

    /// Writers label their statements, and send them again until they know the outcome: a batch
    /// that is made twice shows.
    pub fn with_labels(mut self) -> Self {
        self.labels = true;
        self
    }
}

/// Whole batches out of the rows of [`FOUND`].
///
/// # Errors
/// A batch by half, or one that is there twice.
pub fn whole_batches(rows: &[Vec<i64>]) -> Result<BTreeSet<Batch>, Violation> {
    let mut batches = BTreeSet::new();
    for row in rows {
        let [client, batch, rows, different, sum] = row[..] else {
            return Err(Violation::new(Kind::WrongAnswer, format!("a row {row:?}")));
        };
        let kind = if rows > different { Kind::Duplicate } else { Kind::Partial };
        let whole = (BATCH_ROWS, BATCH_ROWS, BATCH_ROWS * (BATCH_ROWS + 1) / 2);
        expect((rows, different, sum) == whole, kind, || {
            format!("batch {batch} of client {client}: {rows} rows, {different} different")
        })?;
        batches.insert((client, batch));
    }
    Ok(batches)
}

/// Compares what is there at the end with what clients were told.
///
/// # Errors
/// The first batch that should be there and is not, or the other way round.
pub fn judge(history: &History, found: &BTreeSet<Batch>) -> Result<Unanswered, Violation> {
    let mut unanswered = Unanswered::default();
    for (batch, outcome) in history {
        let there = found.contains(batch);
        match outcome {
            Outcome::Acknowledged(_) => {
                expect(there, Kind::Lost, || format!("batch {batch:?} of appended"))?;
            }
            Outcome::Refused(error) => expect(!there, Kind::Duplicate, || {
                format!("batch {batch:?} of appended was refused ({error}) and is there")
            })?,
            Outcome::Unknown(_) if there => unanswered.made += 1,
            Outcome::Unknown(_) => unanswered.not_made += 1,
        }
    }
    let stranger = found.iter().find(|batch| !history.contains_key(batch));
    expect(stranger.is_none(), Kind::WrongAnswer, || format!("nobody wrote {stranger:?}"))?;
    Ok(unanswered)
}

async fn write(
    mut session: Session,
    (client, first): Batch,
    traffic: Arc<Traffic>,
    history: Arc<Mutex<History>>,
) -> Result<i64, Violation> {
    let record = |batch, outcome| {
        history.lock().unwrap_or_else(PoisonError::into_inner).insert((client, batch), outcome);
    };
    let mut batch = first;
    while !traffic.is_over() {
        // The intent: a batch that a client does not live to tell of may be there.
        record(batch, Outcome::Unknown("not answered".to_owned()));
        let sql = format!(
            "INSERT INTO appended SELECT {client}, {batch}, value \
             FROM generate_series(1, {BATCH_ROWS})"
        );
        let outcome = traffic.write(&mut session, &sql).await?;
        record(batch, outcome);
        batch += 1;
    }
    Ok(batch)
}

async fn read(
    mut session: Session,
    traffic: Arc<Traffic>,
    history: Arc<Mutex<History>>,
) -> Result<i64, Violation> {
    let mut seen = BTreeSet::new();
    while !traffic.is_over() {
        // What is acknowledged now, a query that begins now has to see.
        seen.extend(acknowledged(&history));
        let Some(rows) = traffic.read(&mut session, FOUND).await? else { continue };
        let found = whole_batches(&rows)?;
        let gone = seen.difference(&found).next();
        expect(gone.is_none(), Kind::Lost, || format!("a reader misses batch {gone:?}"))?;
        seen = found;
    }
    Ok(0)
}

fn acknowledged(history: &Mutex<History>) -> Vec<Batch> {
    let history = history.lock().unwrap_or_else(PoisonError::into_inner);
    let made = history.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Acknowledged(_)));
    made.map(|(batch, _)| *batch).collect()
}

#[async_trait]
impl Workload for Append {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        let table = "CREATE TABLE IF NOT EXISTS appended \
                     (client BIGINT, batch BIGINT, i BIGINT) DISTKEY(i)";
        session.write_until_acknowledged(table).await.map(|_| ())
    }

    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        _choices: &mut Choices,
    ) -> Result<(), Violation> {
        let mut tasks = JoinSet::new();
        for client in 0..self.writers {
            let mut session = Session::new(url);
            if self.labels {
                let prefix = format!("append-{client}-{}", self.next_batch);
                session = session.with_labels(Labels::Prefixed(prefix));
            }
            let first = (client, self.next_batch);
            tasks.spawn(write(session, first, Arc::clone(traffic), Arc::clone(&self.history)));
        }
        for _ in 0..self.readers {
            let history = Arc::clone(&self.history);
            tasks.spawn(read(Session::new(url), Arc::clone(traffic), history));
        }
        self.next_batch = all(tasks).await?.into_iter().fold(self.next_batch, i64::max);
        Ok(())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        let found = whole_batches(&session.read_until_answered(FOUND).await?)?;
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let unanswered = judge(&history, &found)?;
        // What came of them is known now, and must stay so.
        for (batch, outcome) in history.iter_mut().filter(|(_, outcome)| outcome.is_unknown()) {
            *outcome = match found.contains(batch) {
                true => Outcome::Acknowledged(0),
                false => Outcome::Refused("not there after a recovery".to_owned()),
            };
        }
        Ok(unanswered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(outcomes: &[Outcome]) -> History {
        (0..).zip(outcomes).map(|(batch, outcome)| ((1, batch), outcome.clone())).collect()
    }

    fn outcomes() -> [Outcome; 3] {
        let why = || "why".to_owned();
        [Outcome::Acknowledged(300), Outcome::Refused(why()), Outcome::Unknown(why())]
    }

    fn check_judged(found: &[i64], expected: Result<Unanswered, Kind>) {
        let found = found.iter().map(|batch| (1, *batch)).collect();
        let judged = judge(&history(&outcomes()), &found);
        assert_eq!(judged.map_err(|violation| violation.kind), expected, "{found:?}");
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_refused_must_not() {
        check_judged(&[0], Ok(Unanswered { made: 0, not_made: 1 }));
        check_judged(&[0, 2], Ok(Unanswered { made: 1, not_made: 0 }));
        check_judged(&[2], Err(Kind::Lost));
        check_judged(&[0, 1], Err(Kind::Duplicate));
        check_judged(&[0, 9], Err(Kind::WrongAnswer));
    }

    #[test]
    fn half_a_batch_and_a_batch_twice_are_told_apart() {
        let sum = BATCH_ROWS * (BATCH_ROWS + 1) / 2;
        let kind = |row: [i64; 5]| whole_batches(&[row.to_vec()]).map_err(|error| error.kind);
        assert_eq!(kind([1, 7, BATCH_ROWS, BATCH_ROWS, sum]), Ok([(1, 7)].into()));
        assert_eq!(kind([1, 7, 200, 200, 20_100]), Err(Kind::Partial));
        assert_eq!(kind([1, 7, 2 * BATCH_ROWS, BATCH_ROWS, 2 * sum]), Err(Kind::Duplicate));
        assert_eq!(kind([1, 7, BATCH_ROWS, BATCH_ROWS, sum + 1]), Err(Kind::Partial));
    }
}
