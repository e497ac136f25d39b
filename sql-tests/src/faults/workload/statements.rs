//! Statements that add rows, one after another: INSERT, COPY, CREATE TABLE AS.
//!
//! One writer, so that a COPY, whose rows bear no number of their own, can be told by how often
//! the file is there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use parquet::arrow::ArrowWriter;

use super::{Unanswered, Workload};
use crate::faults::choices::Choices;
use crate::faults::session::{Outcome, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

/// Rows of every statement: enough for all slices, so that each spans all workers.
const STATEMENT_ROWS: i64 = 1_000;
const STATEMENT_SUM: i64 = STATEMENT_ROWS * (STATEMENT_ROWS + 1) / 2;
/// INSERT, COPY, CREATE TABLE AS, by the number of the statement.
const KINDS: i64 = 3;

/// The workload.
#[derive(Debug)]
pub struct Statements {
    file: PathBuf,
    history: BTreeMap<i64, Outcome>,
    next: i64,
}

impl Statements {
    /// Statements whose COPY reads a file that is written to `dir` now; the cluster may read
    /// there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("statements.parquet");
        write_numbers(&file, STATEMENT_ROWS)?;
        Ok(Self { file, history: BTreeMap::new(), next: 0 })
    }

    fn statement(&self, id: i64) -> String {
        let series = format!("generate_series(1, {STATEMENT_ROWS})");
        match id % KINDS {
            0 => format!("INSERT INTO inserted SELECT {id}, value FROM {series}"),
            1 => format!("COPY copied FROM '{}' FORMAT PARQUET", self.file.display()),
            _ => format!("CREATE TABLE made_{id} AS SELECT value AS n FROM {series}"),
        }
    }

    /// Statements of a kind.
    fn of_kind(&self, kind: i64) -> impl Iterator<Item = (i64, &Outcome)> {
        let of_kind = move |(id, _): &(&i64, &Outcome)| **id % KINDS == kind;
        self.history.iter().filter(of_kind).map(|(id, outcome)| (*id, outcome))
    }

    /// Compares statements that have names of their own with those that are there.
    fn judge(&self, kind: i64, found: &BTreeMap<i64, bool>) -> Result<Unanswered, Violation> {
        let mut unanswered = Unanswered::default();
        for (id, outcome) in self.of_kind(kind) {
            let there = found.get(&id);
            expect(there != Some(&false), Kind::Partial, || format!("statement {id}"))?;
            match (outcome, there.is_some()) {
                (Outcome::Acknowledged(_), false) => {
                    return Err(Violation::new(Kind::Lost, format!("statement {id}")));
                }
                (Outcome::Refused(error), true) => {
                    let detail = format!("statement {id} was refused ({error}) and is there");
                    return Err(Violation::new(Kind::Duplicate, detail));
                }
                (Outcome::Unknown(_), true) => unanswered.made += 1,
                (Outcome::Unknown(_), false) => unanswered.not_made += 1,
                _ => {}
            }
        }
        Ok(unanswered)
    }

    async fn check_copies(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        let sql = "SELECT count(*), coalesce(sum(n), 0) FROM copied";
        let copied = session.read_until_answered(sql).await?;
        let times = copied[0][0] / STATEMENT_ROWS;
        let whole = copied == [[times * STATEMENT_ROWS, times * STATEMENT_SUM]];
        expect(whole, Kind::Partial, || format!("copied has {copied:?}"))?;
        let count = |wanted: fn(&Outcome) -> bool| {
            let number = self.of_kind(1).filter(|(_, outcome)| wanted(outcome)).count();
            i64::try_from(number).unwrap_or(i64::MAX)
        };
        let made = count(|outcome| matches!(outcome, Outcome::Acknowledged(_)));
        let unknown = count(Outcome::is_unknown);
        expect(times >= made, Kind::Lost, || format!("{times} COPYs of {made} are there"))?;
        expect(times <= made + unknown, Kind::Duplicate, || {
            format!("{times} COPYs are there, of {made} and at most {unknown} more")
        })?;
        // From now on as many as are there have to be there; which of them does not matter.
        let mut surplus = times - made;
        for (id, outcome) in &mut self.history {
            if *id % KINDS == 1 && outcome.is_unknown() {
                *outcome = known(surplus > 0);
                surplus -= 1;
            }
        }
        let made = (times - made).unsigned_abs();
        Ok(Unanswered { made, not_made: unknown.unsigned_abs() - made })
    }
}

/// Writes a Parquet file of the numbers from 1 on, as column `n`.
pub(super) fn write_numbers(path: &Path, rows: i64) -> anyhow::Result<()> {
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=rows));
    let batch = RecordBatch::try_from_iter([("n", n)])?;
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path)?, batch.schema(), None)?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

/// What came of a statement without an answer, once it was looked for.
fn known(there: bool) -> Outcome {
    match there {
        true => Outcome::Acknowledged(0),
        false => Outcome::Refused("not there after a recovery".to_owned()),
    }
}

#[async_trait]
impl Workload for Statements {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        for table in ["inserted (id BIGINT, n BIGINT) DISTKEY(n)", "copied (n BIGINT)"] {
            session.write_until_acknowledged(&format!("CREATE TABLE {table}")).await?;
        }
        Ok(())
    }

    async fn run(
        &mut self,
        url: &str,
        traffic: &Arc<Traffic>,
        _choices: &mut Choices,
    ) -> Result<(), Violation> {
        let mut session = Session::new(url);
        while !traffic.is_over() {
            let outcome = traffic.write(&mut session, &self.statement(self.next)).await?;
            self.history.insert(self.next, outcome);
            self.next += 1;
        }
        Ok(())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        let inserted = "SELECT id, count(*), sum(n) FROM inserted GROUP BY id";
        let rows = session.read_until_answered(inserted).await?;
        let whole = |row: &Vec<i64>| (row[0], row[1..] == [STATEMENT_ROWS, STATEMENT_SUM]);
        let inserted: BTreeMap<_, _> = rows.iter().map(whole).collect();
        let tables = "SELECT cast(substr(table_name, 6) AS BIGINT), cast(rows AS BIGINT) \
                      FROM sys.tables WHERE table_name LIKE 'made_%'";
        let rows = session.read_until_answered(tables).await?;
        let tables: BTreeMap<_, _> =
            rows.iter().map(|row| (row[0], row[1] == STATEMENT_ROWS)).collect();
        let unanswered = self.judge(0, &inserted)?.and(self.judge(2, &tables)?);
        if let Some(id) = tables.keys().next_back() {
            let count = format!("SELECT count(*) FROM made_{id}");
            let count = session.read_until_answered(&count).await?;
            expect(count == [[STATEMENT_ROWS]], Kind::Partial, || format!("made_{id}: {count:?}"))?;
        }
        for (id, outcome) in self.history.iter_mut().filter(|(_, outcome)| outcome.is_unknown()) {
            match id % KINDS {
                0 => *outcome = known(inserted.contains_key(id)),
                2 => *outcome = known(tables.contains_key(id)),
                _ => {}
            }
        }
        Ok(unanswered.and(self.check_copies(session).await?))
    }
}
