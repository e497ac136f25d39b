//! What rows of writes may take in memory, and who waits when they take more.
//!
//! ```text
//! Held (rows that a writer takes) ─▶ Closing (rows on their way to the disk) ─▶ nothing
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};

/// Beyond the whole budget a writer closes whatever its share, but for fewer bytes than this: a
/// segment has its price.
const CLOSED_BYTES_MIN: usize = 1 << 20;

/// Raw rows in memory, until they are on the disk.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    /// A part of the memory of queries: what rows take, queries and decoded columns cannot.
    reserved: MemoryReservation,
    /// Writers that hold rows, of all transactions.
    writers: AtomicUsize,
    /// Segments that are on their way to the disk.
    closing: AtomicUsize,
    /// Told whenever one of them is there.
    closed: Notify,
    /// Who encodes: as many at a time as there are processors.
    turns: Arc<Semaphore>,
}

/// The bytes of the rows that one writer holds.
#[derive(Debug)]
pub(super) struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

/// The bytes of rows that are on their way to the disk.
#[derive(Debug)]
pub(super) struct Closing {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// A budget of so many bytes of `pool`'s.
    pub(super) fn new(bytes_max: usize, pool: &Arc<dyn MemoryPool>) -> Arc<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            bytes_max,
            reserved: MemoryConsumer::new("rows of writes").register(pool),
            writers: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            closed: Notify::new(),
            turns: Arc::new(Semaphore::new(threads)),
        })
    }

    /// Counts a new writer, without rows yet.
    pub(super) fn new_writer(self: &Arc<Self>) -> Held {
        self.writers.fetch_add(1, Ordering::AcqRel);
        Held { budget: Arc::clone(self), bytes: 0 }
    }

    /// Waits while the budget is used up and something is being done about it.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let closed = self.closed.notified();
            tokio::pin!(closed);
            // From here on nothing that is told is missed.
            closed.as_mut().enable();
            let is_closing = self.closing.load(Ordering::Acquire) > 0;
            if !is_closing || self.reserved.size() <= self.bytes_max {
                return;
            }
            closed.await;
        }
    }
}

impl Held {
    /// Counts rows that were taken.
    pub(super) fn add(&mut self, bytes: usize) {
        self.budget.reserved.grow(bytes);
        self.bytes += bytes;
    }

    /// Whether the writer should close: half of the budget is used, the other half being for rows on
    /// their way to the disk, and it has more than its share; or all of it is used, and not by what
    /// will soon be there.
    pub(super) fn should_close(&self) -> bool {
        let used = self.budget.reserved.size();
        let half = self.budget.bytes_max / 2;
        let share = half / self.budget.writers.load(Ordering::Acquire).max(1);
        let is_closing = self.budget.closing.load(Ordering::Acquire) > 0;
        (used > half && self.bytes > share)
            || (used > self.budget.bytes_max && !is_closing && self.bytes >= CLOSED_BYTES_MIN)
    }

    /// The same bytes, on their way to the disk.
    pub(super) fn close(mut self) -> Closing {
        self.budget.closing.fetch_add(1, Ordering::AcqRel);
        Closing { budget: Arc::clone(&self.budget), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.reserved.shrink(self.bytes);
        self.budget.writers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Closing {
    /// Waits for a processor.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.budget.turns).acquire_owned().await
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.budget.reserved.shrink(self.bytes);
        self.budget.closing.fetch_sub(1, Ordering::AcqRel);
        self.budget.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::UnboundedMemoryPool;
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget(bytes_max: usize) -> Arc<Budget> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        Budget::new(bytes_max, &pool)
    }

    fn writer(budget: &Arc<Budget>, bytes: usize) -> Held {
        let mut held = budget.new_writer();
        held.add(bytes);
        held
    }

    #[test]
    fn a_writer_with_more_than_its_share_closes_when_half_is_used() {
        let budget = budget(100);
        let (large, small) = (writer(&budget, 30), writer(&budget, 20));
        assert!(!large.should_close());
        let last = writer(&budget, 1);
        assert!(large.should_close() && small.should_close() && !last.should_close());
    }

    #[test]
    fn beyond_the_budget_every_writer_closes_that_has_a_segment_worth_its_price() {
        let budget = budget(64 * MIB);
        let mut others: Vec<_> = (0..5).map(|_| writer(&budget, 17 * MIB)).collect();
        assert!(writer(&budget, MIB).should_close());
        assert!(!writer(&budget, MIB - 1).should_close());
        let _closing = others.pop().map(Held::close);
        assert!(!writer(&budget, MIB).should_close(), "there will be room");
    }

    #[test]
    fn who_has_rows_waits_until_a_segment_is_on_the_disk() {
        let budget = budget(100);
        let (closing, held) = (writer(&budget, 60), writer(&budget, 60));
        assert!(budget.wait_for_room().now_or_never().is_some(), "nothing would change");
        let closing = closing.close();
        let mut waiting = Box::pin(budget.wait_for_room());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(closing);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(budget.reserved.size(), 60);
        drop(held);
        assert_eq!((budget.reserved.size(), budget.writers.load(Ordering::Acquire)), (0, 0));
    }
}
