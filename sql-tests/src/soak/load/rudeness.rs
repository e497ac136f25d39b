//! What clients should not do: statements that fail, results that nobody reads to the end,
//! connections that come and go.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::ensure;

use super::{Hand, Watch, within_time};
use crate::faults::choices::Choices;

/// Statements and the code of their error.
const FAILING: [(&str, &str); 9] = [
    ("SELEC 1", "SYNTAX_ERROR"),
    ("SELECT x FROM nowhere", "UNDEFINED_TABLE"),
    ("SELECT nothing FROM facts", "UNDEFINED_COLUMN"),
    ("SELECT sum(1 / (n - 77)) FROM facts", "DATA_EXCEPTION"),
    ("INSERT INTO facts SELECT n / (n - 30000), k, s FROM facts", "DATA_EXCEPTION"),
    ("CREATE TABLE facts (n BIGINT)", "DUPLICATE_OBJECT"),
    ("CREATE TABLE never AS SELECT 1 / (n - 500) AS x FROM facts", "DATA_EXCEPTION"),
    // More than a worker's memory,
    (
        "SELECT max(w) FROM (SELECT max(x.s || y.name) OVER () AS w FROM facts x \
         JOIN dims y ON x.k <> y.k)",
        "RESOURCES_EXHAUSTED",
    ),
    // and more than one call of a function may make, of the large batches of such a join.
    (
        "SELECT max(w) FROM (SELECT max(repeat(x.s, 50)) OVER () AS w FROM facts x \
         JOIN dims y ON x.k <> y.k)",
        "RESOURCES_EXHAUSTED",
    ),
];

/// What gives rows for longer than anybody waits.
const ENDLESS: [&str; 3] = [
    "SELECT x.n, y.n FROM facts x CROSS JOIN facts y",
    "SELECT count(*) FROM facts x CROSS JOIN facts y WHERE (x.n + y.n) % 7 = 1",
    "SELECT * FROM generate_series(1, 9223372036854775807)",
];

/// Is rude until the load is over.
///
/// # Errors
/// A statement that ends otherwise than it must.
pub(super) async fn run(url: &str, watch: &Arc<Watch>, mut random: Choices) -> anyhow::Result<()> {
    while !watch.is_over() {
        let mut hand = Hand::connect(url, watch).await?;
        let (sql, code) = *random.pick(&FAILING);
        hand.refused(sql, code).await?;
        let endless = *random.pick(&ENDLESS);
        cut_off(&mut hand, endless, &mut random).await?;
        // A failed load left nothing, and the connection works still.
        hand.is("SELECT count(*), sum(n) FROM facts", &[30_000, 30_000 * 30_001 / 2]).await?;
    }
    Ok(())
}

/// Begins to read and goes away: before the first batch, after it, or by asking to cancel.
async fn cut_off(hand: &mut Hand, sql: &str, random: &mut Choices) -> anyhow::Result<()> {
    let mut rows = within_time(hand.client.query(sql)).await??;
    match random.below(3) {
        0 => {
            let info = rows.info().clone();
            within_time(hand.client.cancel(info)).await??;
        }
        1 if !sql.contains("count") => {
            let batch = within_time(rows.next_batch()).await??;
            ensure!(batch.is_some(), "{sql} has no rows");
        }
        _ => {
            // The pause is what is tested: a query that is given up while it runs.
            let pause = std::time::Duration::from_millis(random.below(200));
            let _not_yet = tokio::time::timeout(pause, rows.next_batch()).await;
        }
    }
    drop(rows);
    hand.watch.cut_off.fetch_add(1, Ordering::Relaxed);
    Ok(())
}
