//! UPDATE and DELETE: rows change and go, and all come back, so that the table keeps its size.

use super::Hand;
use crate::faults::choices::Choices;

const ROWS: u64 = 4_000;
/// Rows that one DELETE takes.
const GAP: u64 = 200;

/// A table and what must be in it: `v` of each row is `changes` and how often the row was chosen.
pub(super) struct Changes {
    sum: i64,
    changes: i64,
}

impl Changes {
    /// # Errors
    /// When the cluster does not take the table.
    pub(super) async fn prepare(hand: &mut Hand) -> anyhow::Result<Self> {
        let create = format!(
            "CREATE TABLE stock DISTKEY(id) SORTKEY(id) AS SELECT value AS id, 0::BIGINT AS v, \
             0::BIGINT AS w, 'a row of the stock, number ' || value AS s FROM generate_series(1, {ROWS})"
        );
        hand.done(&create).await?;
        Ok(Self { sum: 0, changes: 0 })
    }

    /// Changes rows until the load is over.
    ///
    /// # Errors
    /// The first answer that is wrong.
    pub(super) async fn run(mut self, mut hand: Hand, mut random: Choices) -> anyhow::Result<()> {
        while !hand.watch.is_over() {
            match random.below(4) {
                0 => self.change_some(&mut hand, &mut random).await?,
                1 => self.change_all(&mut hand).await?,
                _ => self.take_out_and_bring_back(&mut hand, &mut random).await?,
            }
            let all = "SELECT count(*), sum(v), sum(w), count(DISTINCT id) FROM stock";
            let rows = ROWS as i64;
            hand.is(all, &[rows, self.sum, self.changes * rows, rows]).await?;
        }
        Ok(())
    }

    async fn change_some(&mut self, hand: &mut Hand, random: &mut Choices) -> anyhow::Result<()> {
        let first = 1 + random.below(ROWS - 100);
        let sql = format!("UPDATE stock SET v = v + 1 WHERE id BETWEEN {first} AND {}", first + 99);
        let changed = hand.done(&sql).await?;
        anyhow::ensure!(changed == 100, "{sql} changed {changed} rows");
        self.sum += 100;
        Ok(())
    }

    async fn change_all(&mut self, hand: &mut Hand) -> anyhow::Result<()> {
        let changed = hand.done("UPDATE stock SET w = w + 1").await?;
        anyhow::ensure!(changed == ROWS, "an UPDATE of all changed {changed} rows");
        self.changes += 1;
        Ok(())
    }

    async fn take_out_and_bring_back(
        &mut self,
        hand: &mut Hand,
        random: &mut Choices,
    ) -> anyhow::Result<()> {
        let first = 1 + random.below(ROWS - GAP);
        let range = format!("BETWEEN {first} AND {}", first + GAP - 1);
        let gone = hand.numbers(&format!("SELECT sum(v) FROM stock WHERE id {range}")).await?;
        hand.done(&format!("DELETE FROM stock WHERE id {range}")).await?;
        hand.is("SELECT count(*) FROM stock", &[(ROWS - GAP) as i64]).await?;
        let insert = format!(
            "INSERT INTO stock SELECT value, 0, {}, 'brought back, number ' || value \
             FROM generate_series({first}, {})",
            self.changes,
            first + GAP - 1
        );
        hand.done(&insert).await?;
        self.sum -= gone.first().copied().unwrap_or_default();
        Ok(())
    }
}
