//! What rows of writes may take in memory, and who waits when they take more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Raw rows in memory, until they are on the disk.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    /// A part of the memory of queries: what rows take, queries and decoded columns cannot.
    reserved: MemoryReservation,
    /// Segments that are on their way to the disk.
    closing: AtomicUsize,
    /// Told whenever one of them is there.
    closed: Notify,
    /// Who encodes: as many at a time as there are processors.
    turns: Arc<Semaphore>,
}

/// A segment on its way to the disk, with the bytes of its rows.
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
            closing: AtomicUsize::new(0),
            closed: Notify::new(),
            turns: Arc::new(Semaphore::new(threads)),
        })
    }

    /// Counts rows that were taken.
    pub(super) fn add(&self, bytes: usize) {
        self.reserved.grow(bytes);
    }

    /// Forgets rows that are no longer in memory.
    pub(super) fn remove(&self, bytes: usize) {
        self.reserved.shrink(bytes);
    }

    /// Whether one of `writers` writers that holds `bytes` should close: half of the budget is
    /// used, the other half being for rows on their way to the disk, and it has more than its share.
    pub(super) fn wants_back(&self, bytes: usize, writers: usize) -> bool {
        let half = self.bytes_max / 2;
        self.reserved.size() > half && bytes > half / writers.max(1)
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

    /// Counts a segment on its way to the disk.
    pub(super) fn begin_closing(self: &Arc<Self>, bytes: usize) -> Closing {
        self.closing.fetch_add(1, Ordering::AcqRel);
        Closing { budget: Arc::clone(self), bytes }
    }
}

impl Closing {
    /// Waits for a processor; `None` when there will be none.
    pub(super) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.budget.turns).acquire_owned().await.ok()
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.budget.remove(self.bytes);
        self.budget.closing.fetch_sub(1, Ordering::AcqRel);
        self.budget.closed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::UnboundedMemoryPool;
    use futures::FutureExt;

    use super::*;

    fn budget(bytes_max: usize) -> Arc<Budget> {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        Budget::new(bytes_max, &pool)
    }

    #[test]
    fn writers_with_more_than_their_share_close_when_half_is_used() {
        let budget = budget(100);
        budget.add(50);
        assert!(!budget.wants_back(50, 2));
        budget.add(1);
        assert!(budget.wants_back(26, 2) && !budget.wants_back(25, 2));
    }

    #[test]
    fn who_has_rows_waits_until_a_segment_is_on_the_disk() {
        let budget = budget(100);
        budget.add(120);
        assert!(budget.wait_for_room().now_or_never().is_some(), "nothing would change");
        let closing = budget.begin_closing(60);
        let mut waiting = Box::pin(budget.wait_for_room());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(closing);
        assert!(waiting.now_or_never().is_some());
        assert_eq!(budget.reserved.size(), 60);
    }
}
