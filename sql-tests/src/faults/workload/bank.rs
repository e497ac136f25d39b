//! Transfers between accounts, of which every reader sees the same sum (FAULTS A8, RULES 3).
//!
//! ```text
//! movements (id, account, delta)     a transfer is an INSERT of two rows that add up to nothing
//! balances (account, balance)        and an UPDATE of two rows whose sum stays
//! ```
//! A read that mixes two commits, over slices, over old and new rows or over both tables, shows a
//! sum that was never there. Writers of `balances` meet each other: a conflict is a refusal.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::{Unanswered, Workload, all};
use crate::faults::choices::Choices;
use crate::faults::session::{Outcome, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

const ACCOUNTS: u64 = 64;
const START: i64 = 1_000;
/// Numbers of transfers of one writer in one trial at most.
const IDS_OF_WRITER: i64 = 1_000_000;

const SUMS: &str = "SELECT (SELECT coalesce(sum(delta), 0) FROM movements), \
                    (SELECT sum(balance) FROM balances), (SELECT count(*) FROM balances)";
const TRANSFERS: &str = "SELECT id, count(*), sum(delta) FROM movements GROUP BY id";

/// The workload.
#[derive(Debug)]
pub struct Bank {
    writers: u64,
    readers: usize,
    trials: i64,
    /// Transfers by INSERT, and what their writers were told.
    history: BTreeMap<i64, Outcome>,
}

impl Bank {
    /// So many clients that transfer, and so many that add up.
    pub fn new(writers: u64, readers: usize) -> Self {
        Self { writers, readers, trials: 0, history: BTreeMap::new() }
    }
}

/// The sums of one read.
///
/// # Errors
/// When they are not what they always are.
pub fn judge_sums(rows: &[Vec<i64>]) -> Result<(), Violation> {
    let accounts = i64::try_from(ACCOUNTS).unwrap_or(i64::MAX);
    let expected = vec![vec![0, accounts * START, accounts]];
    let detail = || format!("movements, balances, accounts are {rows:?}, not {expected:?}");
    expect(rows == expected, Kind::Partial, detail)
}

/// Compares the transfers that are there with what their writers were told.
///
/// # Errors
/// One that is lost, there by half, twice, or unasked.
pub fn judge_transfers(
    history: &BTreeMap<i64, Outcome>,
    rows: &[Vec<i64>],
) -> Result<Unanswered, Violation> {
    let mut found = BTreeMap::new();
    for row in rows {
        let [id, rows, sum] = row[..] else {
            return Err(Violation::new(Kind::WrongAnswer, format!("a row {row:?}")));
        };
        let kind = if rows > 2 { Kind::Duplicate } else { Kind::Partial };
        expect((rows, sum) == (2, 0), kind, || format!("transfer {id}: {rows} rows, sum {sum}"))?;
        found.insert(id, ());
    }
    let mut unanswered = Unanswered::default();
    for (id, outcome) in history {
        let there = found.contains_key(id);
        match outcome {
            Outcome::Acknowledged(_) => expect(there, Kind::Lost, || format!("transfer {id}"))?,
            Outcome::Refused(error) => expect(!there, Kind::Duplicate, || {
                format!("transfer {id} was refused ({error}) and is there")
            })?,
            Outcome::Unknown(_) if there => unanswered.made += 1,
            Outcome::Unknown(_) => unanswered.not_made += 1,
        }
    }
    let stranger = found.keys().find(|id| !history.contains_key(id));
    expect(stranger.is_none(), Kind::WrongAnswer, || format!("nobody made {stranger:?}"))?;
    Ok(unanswered)
}

async fn transfer(
    mut session: Session,
    first: i64,
    traffic: Arc<Traffic>,
    mut choices: Choices,
) -> Result<BTreeMap<i64, Outcome>, Violation> {
    let mut history = BTreeMap::new();
    for id in first..first + IDS_OF_WRITER {
        if traffic.is_over() {
            break;
        }
        let (from, amount) = (choices.below(ACCOUNTS), 1 + choices.below(50));
        let to = (from + 1 + choices.below(ACCOUNTS - 1)) % ACCOUNTS;
        if choices.below(3) > 0 {
            let sql = format!(
                "INSERT INTO movements VALUES ({id}, {from}, -{amount}), ({id}, {to}, {amount})"
            );
            history.insert(id, traffic.write(&mut session, &sql).await?);
        } else {
            let sql = format!(
                "UPDATE balances SET balance = balance + CASE WHEN account = {from} \
                 THEN -{amount} ELSE {amount} END WHERE account IN ({from}, {to})"
            );
            if let Outcome::Acknowledged(rows) = traffic.write(&mut session, &sql).await? {
                expect(rows == 2, Kind::Partial, || format!("{rows} rows of {sql}"))?;
            }
        }
    }
    Ok(history)
}

async fn add_up(
    mut session: Session,
    traffic: Arc<Traffic>,
) -> Result<BTreeMap<i64, Outcome>, Violation> {
    while !traffic.is_over() {
        if let Some(rows) = traffic.read(&mut session, SUMS).await? {
            judge_sums(&rows)?;
        }
    }
    Ok(BTreeMap::new())
}

#[async_trait]
impl Workload for Bank {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        for table in [
            "movements (id BIGINT, account BIGINT, delta BIGINT) DISTKEY(account)",
            "balances (account BIGINT, balance BIGINT) DISTKEY(account)",
        ] {
            session.write_until_acknowledged(&format!("CREATE TABLE {table}")).await?;
        }
        let last = ACCOUNTS - 1;
        let accounts =
            format!("INSERT INTO balances SELECT value, {START} FROM generate_series(0, {last})");
        session.write_until_acknowledged(&accounts).await.map(|_| ())
    }

    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        choices: &mut Choices,
    ) -> Result<(), Violation> {
        let mut tasks = JoinSet::new();
        for _ in 0..self.writers {
            let first = self.trials * IDS_OF_WRITER;
            self.trials += 1;
            tasks.spawn(transfer(Session::new(url), first, Arc::clone(traffic), choices.fork()));
        }
        for _ in 0..self.readers {
            tasks.spawn(add_up(Session::new(url), Arc::clone(traffic)));
        }
        all(tasks).await?.into_iter().for_each(|part| self.history.extend(part));
        Ok(())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        judge_sums(&session.read_until_answered(SUMS).await?)?;
        let rows = session.read_until_answered(TRANSFERS).await?;
        let unanswered = judge_transfers(&self.history, &rows)?;
        let there: std::collections::BTreeSet<_> = rows.iter().map(|row| row[0]).collect();
        for (id, outcome) in self.history.iter_mut().filter(|(_, outcome)| outcome.is_unknown()) {
            *outcome = match there.contains(id) {
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

    #[test]
    fn a_sum_that_was_never_there_is_seen() {
        let accounts = i64::try_from(ACCOUNTS).unwrap();
        judge_sums(&[vec![0, accounts * START, accounts]]).unwrap();
        for wrong in [[-7, accounts * START, accounts], [0, accounts * START - 7, accounts]] {
            assert_eq!(judge_sums(&[wrong.to_vec()]).unwrap_err().kind, Kind::Partial);
        }
        assert!(judge_sums(&[]).is_err());
    }

    fn check_transfers(rows: &[[i64; 3]], expected: Result<Unanswered, Kind>) {
        let why = || "why".to_owned();
        let history = BTreeMap::from([
            (0, Outcome::Acknowledged(2)),
            (1, Outcome::Refused(why())),
            (2, Outcome::Unknown(why())),
        ]);
        let rows: Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
        let judged = judge_transfers(&history, &rows).map_err(|violation| violation.kind);
        assert_eq!(judged, expected, "{rows:?}");
    }

    #[test]
    fn transfers_are_there_as_they_were_answered() {
        check_transfers(&[[0, 2, 0]], Ok(Unanswered { made: 0, not_made: 1 }));
        check_transfers(&[[0, 2, 0], [2, 2, 0]], Ok(Unanswered { made: 1, not_made: 0 }));
        check_transfers(&[], Err(Kind::Lost));
        check_transfers(&[[0, 1, -5]], Err(Kind::Partial));
        check_transfers(&[[0, 4, 0]], Err(Kind::Duplicate));
        check_transfers(&[[0, 2, 0], [1, 2, 0]], Err(Kind::Duplicate));
        check_transfers(&[[0, 2, 0], [8, 2, 0]], Err(Kind::WrongAnswer));
    }
}
