//! Queries of tables that nobody changes.

use super::Hand;
use crate::faults::choices::Choices;

const ROWS: i64 = 30_000;
/// Keys of `dims`, each of which every so many-th row of `facts` has.
const KEYS: i64 = 100;

/// # Errors
/// When the cluster does not take the tables.
pub(super) async fn prepare(hand: &mut Hand) -> anyhow::Result<()> {
    let facts = format!(
        "CREATE TABLE facts DISTKEY(n) SORTKEY(n) AS SELECT value AS n, value % {KEYS} AS k, \
         'fact ' || value AS s FROM generate_series(1, {ROWS})"
    );
    hand.done(&facts).await?;
    let dims = format!(
        "CREATE TABLE dims DISTSTYLE ALL AS SELECT value AS k, 'dimension ' || value AS name \
         FROM generate_series(0, {})",
        KEYS - 1
    );
    hand.done(&dims).await?;
    Ok(())
}

/// Reads until the load is over.
///
/// # Errors
/// The first answer that is wrong.
pub(super) async fn run(mut hand: Hand, mut random: Choices) -> anyhow::Result<()> {
    let each = ROWS / KEYS;
    while !hand.watch.is_over() {
        let n = 1 + random.below(ROWS as u64) as i64;
        let k = random.below(KEYS as u64) as i64;
        hand.is(
            &format!("SELECT k, length(s) FROM facts WHERE n = {n}"),
            &[n % KEYS, format!("fact {n}").len() as i64],
        )
        .await?;
        match random.below(5) {
            0 => {
                let join = format!(
                    "SELECT count(*), count(DISTINCT d.name) FROM facts f JOIN dims d ON f.k = d.k \
                     WHERE d.k >= {k}"
                );
                hand.is(&join, &[(KEYS - k) * each, KEYS - k]).await?;
            }
            1 => {
                let groups = "SELECT count(*), min(c), max(c) FROM (SELECT k, count(*) AS c FROM facts GROUP BY k)";
                hand.is(groups, &[KEYS, each, each]).await?;
            }
            2 => {
                let window = format!(
                    "SELECT max(r), count(*) FROM (SELECT row_number() OVER (PARTITION BY k ORDER BY s) \
                     AS r FROM facts WHERE k = {k})"
                );
                hand.is(&window, &[each, each]).await?;
            }
            3 => {
                let top = format!(
                    "SELECT min(n), max(n) FROM (SELECT n FROM facts WHERE n <= {n} ORDER BY n DESC LIMIT 5)"
                );
                hand.is(&top, &[(n - 4).max(1), n]).await?;
            }
            _ => {
                let big =
                    "SELECT count(*), count(DISTINCT x.s) FROM facts x JOIN facts y ON x.s = y.s";
                hand.is(big, &[ROWS, ROWS]).await?;
            }
        }
    }
    Ok(())
}
