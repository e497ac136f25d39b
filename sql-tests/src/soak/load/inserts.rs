//! Small INSERTs: a segment each, made fewer by compaction in the background and by VACUUM.

use super::Hand;
use crate::faults::choices::Choices;

/// Rows that stay; the oldest go when there are twice as many.
const ROWS_KEPT: i64 = 150;

/// A table of the numbers from `first` up to, and without, `next`.
pub(super) struct Inserts {
    first: i64,
    next: i64,
}

impl Inserts {
    /// # Errors
    /// When the cluster does not take the table.
    pub(super) async fn prepare(hand: &mut Hand) -> anyhow::Result<Self> {
        hand.done("CREATE TABLE events (n BIGINT, s VARCHAR)").await?;
        Ok(Self { first: 0, next: 0 })
    }

    /// Inserts until the load is over.
    ///
    /// # Errors
    /// The first answer that is wrong.
    pub(super) async fn run(mut self, mut hand: Hand, mut random: Choices) -> anyhow::Result<()> {
        while !hand.watch.is_over() {
            let rows = 1 + random.below(4) as i64;
            let values = (self.next..self.next + rows).map(|n| format!("({n}, 'event {n}')"));
            let values = values.collect::<Vec<_>>().join(", ");
            hand.done(&format!("INSERT INTO events VALUES {values}")).await?;
            self.next += rows;
            if self.next - self.first > 2 * ROWS_KEPT {
                self.first = self.next - ROWS_KEPT;
                hand.done(&format!("DELETE FROM events WHERE n < {}", self.first)).await?;
                if random.below(3) == 0 {
                    hand.done("VACUUM events").await?;
                }
            }
            if random.below(8) == 0 {
                let count = self.next - self.first;
                let sum = (self.first..self.next).sum();
                hand.is("SELECT count(*), sum(n) FROM events", &[count, sum]).await?;
            }
        }
        Ok(())
    }
}
