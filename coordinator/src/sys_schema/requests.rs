//! `sys.requests`: what came of every write that is known.
//!
//! ```text
//! catalog    keys that are committed and remembered      survives restarts
//! registry   runs that write, and those that did lately  this process
//! ```
//!
//! One row for each request, whatever it took: of a key that failed twice and then committed,
//! COMMITTED. A write without a key is a request by its query id.
//!
//! Invariant: ABORTED is a run that changed nothing, and COMMITTED one whose changes are durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use basalt_storage::ids::TxnId;
use datafusion::error::Result;

use super::{numbers_or_null, strings, strings_or_null};
use crate::catalog::{RequestKey, RequestOutcome};
use crate::statements::registry::{Commit, Run, RunState, Write};

/// How a request is doing; of several runs of one key, the last of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It failed or was cancelled, and changed nothing.
    Aborted,
    /// Nobody knows before the coordinator was restarted.
    Unknown,
    /// It runs, or its commit was asked for and not answered.
    Running,
    /// It is durable; what changed nothing and succeeded, too.
    Committed,
}

/// One row.
#[derive(Debug, PartialEq)]
struct RequestRow {
    request: String,
    query_id: Option<String>,
    state: State,
    txn: Option<TxnId>,
    version: Option<u64>,
    rows_affected: Option<u64>,
    started_us: Option<i64>,
    error: Option<&'static str>,
    text: Option<String>,
}

/// The table, from what the catalog remembers and from the runs, the newest first.
pub(super) fn requests(
    remembered: &[(RequestKey, RequestOutcome)],
    runs: &[Run],
) -> Result<RecordBatch> {
    let rows = join(remembered, runs);
    let state = |row: &RequestRow| match row.state {
        State::Aborted => "ABORTED".to_owned(),
        State::Unknown => "UNKNOWN".to_owned(),
        State::Running => "RUNNING".to_owned(),
        State::Committed => "COMMITTED".to_owned(),
    };
    let started: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.started_us)));
    let txn = rows.iter().map(|row| row.txn.map(|txn| txn.to_string()));
    Ok(RecordBatch::try_from_iter_with_nullable([
        ("request", strings(rows.iter().map(|row| row.request.clone())), false),
        ("query_id", strings_or_null(rows.iter().map(|row| row.query_id.clone())), true),
        ("state", strings(rows.iter().map(state)), false),
        ("txn", strings_or_null(txn), true),
        ("version", numbers_or_null(rows.iter().map(|row| row.version)), true),
        ("rows_affected", numbers_or_null(rows.iter().map(|row| row.rows_affected)), true),
        ("started", started, true),
        ("error", strings_or_null(rows.iter().map(|row| row.error.map(str::to_owned))), true),
        ("text", strings_or_null(rows.iter().map(|row| row.text.clone())), true),
    ])?)
}

fn join(remembered: &[(RequestKey, RequestOutcome)], runs: &[Run]) -> Vec<RequestRow> {
    let writes: Vec<(&Run, &Write)> =
        runs.iter().filter_map(|run| Some((run, run.write.as_ref()?))).collect();
    // Of each key the run that says most, the newest of such: runs come newest first.
    let mut best: HashMap<&RequestKey, (&Run, &Write)> = HashMap::new();
    for (run, write) in writes.iter().copied() {
        let Some(key) = &write.request else { continue };
        let known = best.entry(key).or_insert((run, write));
        if rank(run, write) > rank(known.0, known.1) {
            *known = (run, write);
        }
    }
    let of_catalog = remembered.iter().rev().map(|(key, outcome)| {
        let run = best.remove(key).filter(|(_, write)| is_of(write, outcome));
        committed_row(key, outcome, run)
    });
    let mut rows: Vec<RequestRow> = of_catalog.collect();
    let unnamed = writes.into_iter().filter(|(_, write)| write.request.is_none());
    rows.extend(best.into_values().chain(unnamed).map(|(run, write)| run_row(run, write)));
    rows.sort_by_key(|row| std::cmp::Reverse(row.started_us));
    rows
}

fn state(run: &Run, write: &Write) -> State {
    match (&write.commit, &run.state) {
        (Commit::Done(_), _) => State::Committed,
        (Commit::Unknown(_), _) => State::Unknown,
        (Commit::Asked(_), _) | (Commit::Nothing, RunState::Running) => State::Running,
        (Commit::Nothing, RunState::Done) => State::Committed,
        (Commit::Nothing, RunState::Failed(_) | RunState::Cancelled) => State::Aborted,
    }
}

/// The run that did it before those that only heard of it.
fn rank(run: &Run, write: &Write) -> (State, bool) {
    let did_it = matches!(&write.commit, Commit::Done(committed) if !committed.replayed);
    (state(run, write), did_it)
}

/// Whether a run did what the catalog remembers, or heard of it.
fn is_of(write: &Write, outcome: &RequestOutcome) -> bool {
    matches!(&write.commit, Commit::Done(committed) if committed.txn == outcome.txn)
}

/// What the catalog remembers, with what is known of the run that did it. A run that only heard of
/// it has its text.
fn committed_row(
    key: &RequestKey,
    outcome: &RequestOutcome,
    run: Option<(&Run, &Write)>,
) -> RequestRow {
    let did_it = run.filter(|(run, write)| rank(run, write).1).map(|(run, _)| run);
    RequestRow {
        request: key.as_str().to_owned(),
        query_id: did_it.map(|run| run.query_id.to_string()),
        state: State::Committed,
        txn: Some(outcome.txn),
        version: Some(outcome.version),
        rows_affected: outcome.rows_affected,
        started_us: did_it.map(started_us).or_else(|| txn_us(outcome.txn)),
        error: None,
        text: run.map(|(run, _)| run.text.clone()),
    }
}

fn run_row(run: &Run, write: &Write) -> RequestRow {
    let (txn, version, committed_rows) = match &write.commit {
        Commit::Nothing => (None, None, None),
        Commit::Asked(txn) | Commit::Unknown(txn) => (Some(*txn), None, None),
        Commit::Done(done) => (Some(done.txn), Some(done.version), done.rows_affected),
    };
    let state = state(run, write);
    // What succeeded and changed nothing has no commit.
    let no_rows = (state == State::Committed && txn.is_none()).then_some(0);
    let query_id = run.query_id.to_string();
    RequestRow {
        request: write.request.as_ref().map_or_else(|| query_id.clone(), ToString::to_string),
        query_id: Some(query_id),
        state,
        txn,
        version,
        rows_affected: committed_rows.or(no_rows),
        started_us: Some(started_us(run)),
        error: match (&run.state, state) {
            (RunState::Failed(code), _) => Some(code.name()),
            (RunState::Cancelled, State::Aborted) => Some("CANCELLED"),
            _ => None,
        },
        text: Some(run.text.clone()),
    }
}

fn started_us(run: &Run) -> i64 {
    let since = run.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// When a transaction began: its id has the time in it.
fn txn_us(txn: TxnId) -> Option<i64> {
    let (seconds, nanos) = txn.0.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000_000)?.checked_add(i64::from(nanos / 1_000))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use basalt_engine::error::ErrorCode;
    use basalt_storage::digest::Digest;
    use uuid::Uuid;

    use super::*;
    use crate::backend::SessionId;
    use crate::catalog::Committed;

    /// A run with a key, or without; a later `number` started later.
    fn run(number: u64, key: Option<&str>, state: RunState, commit: Commit) -> Run {
        Run {
            query_id: Uuid::from_u128(u128::from(number)),
            session: SessionId(1),
            text: format!("statement {number}"),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(number),
            elapsed: None,
            planning: None,
            fetched: None,
            rows: 0,
            state,
            fallback: None,
            is_cached: false,
            is_plan_cached: false,
            attempts: 1,
            write: Some(Write { request: key.map(|k| RequestKey::new(k).unwrap()), commit }),
            profile: None,
        }
    }

    fn done(txn: TxnId, replayed: bool) -> Commit {
        Commit::Done(Committed {
            version: 7,
            txn,
            rows_affected: Some(5),
            reserved: 0..0,
            replayed,
        })
    }

    fn remembered(key: &str, txn: TxnId) -> (RequestKey, RequestOutcome) {
        let payload = Digest::of(b"");
        let outcome = RequestOutcome { payload, txn, version: 7, rows_affected: Some(5) };
        (RequestKey::new(key).unwrap(), outcome)
    }

    /// State, query and text of each request.
    #[track_caller]
    fn check(
        remembered: &[(RequestKey, RequestOutcome)],
        runs: &[Run],
        expected: &[(&str, State, Option<u64>, Option<&str>)],
    ) {
        let rows = join(remembered, runs);
        let found = rows.iter().map(|row| {
            let query =
                row.query_id.as_ref().map(|id| id.parse::<Uuid>().unwrap().as_u128() as u64);
            (row.request.as_str(), row.state, query, row.text.as_deref())
        });
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    const FAILED: RunState = RunState::Failed(ErrorCode::Conflict);

    #[test]
    fn a_key_has_one_row_whatever_it_took() {
        let txn = TxnId::generate();
        let runs = [
            run(4, Some("k"), RunState::Done, done(txn, true)),
            run(3, Some("k"), RunState::Done, done(txn, false)),
            run(2, Some("k"), FAILED, Commit::Nothing),
        ];
        let row = ("k", State::Committed, Some(3), Some("statement 3"));
        check(&[remembered("k", txn)], &runs, &[row]);
        // What was not remembered any more, too.
        check(&[], &runs, &[row]);
    }

    #[test]
    fn after_a_restart_the_catalog_knows_what_was_committed() {
        let txn = TxnId::generate();
        check(&[remembered("k", txn)], &[], &[("k", State::Committed, None, None)]);
        let replay = run(9, Some("k"), RunState::Done, done(txn, true));
        let row = ("k", State::Committed, None, Some("statement 9"));
        check(&[remembered("k", txn)], &[replay], &[row]);
        let another = run(9, Some("k"), FAILED, Commit::Nothing);
        check(&[remembered("k", txn)], &[another], &[("k", State::Committed, None, None)]);
        let rows = join(&[remembered("k", txn)], &[]);
        assert!(rows[0].started_us > Some(1_700_000_000_000_000), "{rows:?}");
        assert_eq!((rows[0].txn, rows[0].rows_affected), (Some(txn), Some(5)));
    }

    #[test]
    fn what_is_not_committed_is_told_by_its_last_run_that_may_be() {
        let txn = TxnId::generate();
        let aborted = |number, state| run(number, Some("k"), state, Commit::Nothing);
        let cases = [
            (aborted(2, RunState::Running), State::Running),
            (aborted(2, RunState::Cancelled), State::Aborted),
            (aborted(2, FAILED), State::Aborted),
            (run(2, Some("k"), RunState::Cancelled, Commit::Asked(txn)), State::Running),
            (run(2, Some("k"), FAILED, Commit::Unknown(txn)), State::Unknown),
        ];
        for (run, state) in cases {
            let runs = [aborted(3, FAILED), run, aborted(1, FAILED)];
            let (query, text) = match state {
                State::Aborted => (3, "statement 3"),
                _ => (2, "statement 2"),
            };
            check(&[], &runs, &[("k", state, Some(query), Some(text))]);
        }
    }

    #[test]
    fn writes_without_a_key_go_by_their_query_id() {
        let txn = TxnId::generate();
        let reads = Run { write: None, ..run(8, None, RunState::Done, Commit::Nothing) };
        let runs = [
            reads,
            run(2, None, RunState::Done, done(txn, false)),
            run(1, None, RunState::Done, Commit::Nothing),
        ];
        let [first, second] = &join(&[], &runs)[..] else { panic!("two writes") };
        assert_eq!(first.request, Uuid::from_u128(2).to_string());
        assert_eq!((first.txn, first.rows_affected), (Some(txn), Some(5)));
        assert_eq!(
            (second.state, second.txn, second.rows_affected),
            (State::Committed, None, Some(0))
        );
    }
}
