//! Writes that their client sends again, under one request key each, until they are acknowledged:
//! every one is there exactly once, however often it was sent (RULES 11).
//!
//! ```text
//! sent (id, n)      INSERT ... LABEL, or the key in a header: by the number of the write
//! sent_files (n)    COPY with the key in a header
//! uploaded (id)     rows that come over Flight, with the key in a header
//! ```
//! A write that is made twice has twice its rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use async_trait::async_trait;
use futures::stream;

use super::statements::write_numbers;
use super::{Unanswered, Workload};
use crate::client::{Client, ClientError, IngestMode, IngestTarget};
use crate::faults::choices::Choices;
use crate::faults::session::{Outcome, RECOVERY_MAX, STATEMENT_MAX, Session};
use crate::faults::traffic::Traffic;
use crate::faults::violation::{Kind, Violation, expect};

/// Rows of every write, and of the file that COPY reads.
const ROWS: i64 = 1_000;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// INSERT, COPY, upload, by the number of the write.
const KINDS: i64 = 3;

/// The workload: one client.
#[derive(Debug)]
pub struct Requests {
    file: PathBuf,
    acknowledged: Vec<i64>,
    next: i64,
}

impl Requests {
    /// Writes whose COPY reads a file that is written to `dir` now; the cluster may read there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let file = dir.join("requests.parquet");
        write_numbers(&file, ROWS)?;
        Ok(Self { file, acknowledged: Vec::new(), next: 1 })
    }

    /// Sends a write until it is acknowledged.
    async fn send_until_acknowledged(
        &self,
        url: &str,
        id: i64,
        traffic: &Traffic,
    ) -> Result<(), Violation> {
        let deadline = tokio::time::Instant::now() + RECOVERY_MAX + STATEMENT_MAX;
        loop {
            let (url, file) = (url.to_owned(), self.file.clone());
            // On a thread of its own: the compiler does not see that an upload may change threads.
            let sending = tokio::task::spawn_blocking(move || {
                tokio::runtime::Handle::current().block_on(send(url, id, file))
            });
            let sent = tokio::time::timeout_at(deadline, sending).await;
            let sent = sent.map_err(|_| Violation::new(Kind::Hang, format!("write {id} hangs")))?;
            match sent.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())) {
                Ok(rows) => {
                    let whole = ROWS.unsigned_abs();
                    expect(rows == whole, Kind::Partial, || format!("write {id} of {rows} rows"))?;
                    traffic.count(&Outcome::Acknowledged(rows));
                    return Ok(());
                }
                Err(error) => {
                    // The key would stand for another write.
                    let reused = error.code() == Some("INVALID_PARAMETER");
                    expect(!reused, Kind::WrongAnswer, || format!("write {id}: {error}"))?;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn of_kind(&self, kind: i64) -> impl Iterator<Item = i64> {
        self.acknowledged.iter().copied().filter(move |id| id % KINDS == kind)
    }
}

/// Sends a write once, by one of the three ways there are.
async fn send(url: String, id: i64, file: PathBuf) -> Result<u64, ClientError> {
    let key = format!("requests-{id}");
    let mut client = Client::connect(&url).await?;
    match id % KINDS {
        0 => {
            let rows = format!("SELECT {id}, value FROM generate_series(1, {ROWS})");
            client.execute_update(&format!("INSERT INTO sent {rows} LABEL '{key}'")).await
        }
        1 => {
            let copy = format!("COPY sent_files FROM '{}' FORMAT PARQUET", file.display());
            client.with_request_key(&key)?.execute_update(&copy).await
        }
        _ => {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..ROWS).map(|_| id)));
            let batch = RecordBatch::try_from_iter([("id", ids)])
                .map_err(|error| ClientError::Local(error.to_string()))?;
            let (table, mode) = ("uploaded".to_owned(), IngestMode::Append);
            let target = IngestTarget { schema: None, table, mode, options: Default::default() };
            let mut keyed = client.with_request_key(&key)?;
            keyed.ingest(target, batch.schema(), stream::iter([Ok(batch)])).await
        }
    }
}

#[async_trait]
impl Workload for Requests {
    async fn prepare(&mut self, session: &mut Session) -> Result<(), Violation> {
        let tables = [
            "sent (id BIGINT, n BIGINT) DISTKEY(n)",
            "sent_files (n BIGINT)",
            "uploaded (id BIGINT)",
        ];
        for table in tables {
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
        while !traffic.is_over() {
            self.send_until_acknowledged(url, self.next, traffic).await?;
            self.acknowledged.push(self.next);
            self.next += 1;
        }
        Ok(())
    }

    async fn check(&mut self, session: &mut Session) -> Result<Unanswered, Violation> {
        for (kind, table) in [(0, "sent"), (2, "uploaded")] {
            let counts = format!("SELECT id, count(*) FROM {table} GROUP BY id");
            let found = session.read_until_answered(&counts).await?;
            let found: BTreeMap<_, _> = found.iter().map(|row| (row[0], row[1])).collect();
            judge(&found, self.of_kind(kind), table)?;
        }
        let copied = session.read_until_answered("SELECT count(*) FROM sent_files").await?;
        let copies = ROWS * i64::try_from(self.of_kind(1).count()).unwrap_or(i64::MAX);
        let kind = if copied[0][0] > copies { Kind::Duplicate } else { Kind::Lost };
        expect(copied == [[copies]], kind, || format!("sent_files: {copied:?}, not {copies}"))?;
        let known = "SELECT count(*), CAST(coalesce(sum(rows_affected), 0) AS BIGINT) \
                     FROM sys.requests WHERE state = 'COMMITTED' AND request LIKE 'requests-%'";
        let known = session.read_until_answered(known).await?;
        let all = i64::try_from(self.acknowledged.len()).unwrap_or(i64::MAX);
        expect(known == [[all, all * ROWS]], Kind::WrongAnswer, || {
            format!("sys.requests knows {known:?} of {all} acknowledged writes")
        })?;
        Ok(Unanswered::default())
    }
}

/// Compares the rows of each write with what was acknowledged.
///
/// # Errors
/// A write that is lost, there by half, twice, or nobody's.
fn judge(
    found: &BTreeMap<i64, i64>,
    acknowledged: impl Iterator<Item = i64>,
    table: &str,
) -> Result<(), Violation> {
    let mut expected = 0;
    for id in acknowledged {
        expected += 1;
        let rows = found.get(&id).copied().unwrap_or(0);
        let kind = match rows {
            0 => Kind::Lost,
            rows if rows > ROWS => Kind::Duplicate,
            _ => Kind::Partial,
        };
        expect(rows == ROWS, kind, || format!("write {id} of {table}: {rows} rows"))?;
    }
    expect(found.len() == expected, Kind::WrongAnswer, || {
        format!("{table} has {} writes, and {expected} were acknowledged", found.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(found: &[(i64, i64)]) -> Result<(), Kind> {
        let found = found.iter().copied().collect();
        judge(&found, [3, 6].into_iter(), "sent").map_err(|violation| violation.kind)
    }

    #[test]
    fn a_write_that_was_sent_twice_and_made_twice_is_seen() {
        assert_eq!(judged(&[(3, ROWS), (6, ROWS)]), Ok(()));
        assert_eq!(judged(&[(3, ROWS), (6, 2 * ROWS)]), Err(Kind::Duplicate));
        assert_eq!(judged(&[(3, ROWS)]), Err(Kind::Lost));
        assert_eq!(judged(&[(3, ROWS), (6, 10)]), Err(Kind::Partial));
        assert_eq!(judged(&[(3, ROWS), (6, ROWS), (9, ROWS)]), Err(Kind::WrongAnswer));
    }
}
