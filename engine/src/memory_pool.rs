//! The memory of queries as DataFusion asks for it, shared by use (`memory_shares`).

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use datafusion::common::human_readable_size;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};

use crate::memory_shares::{Asker, Shares};

/// So much memory.
#[derive(Debug)]
pub(crate) struct SharedByUse {
    /// Who may have it, for those who are refused: `so many bytes that ...`.
    whose: &'static str,
    shares: Mutex<Shares>,
}

impl SharedByUse {
    pub(crate) fn new(whose: &'static str, bytes_max: usize) -> Self {
        Self { whose, shares: Mutex::new(Shares::new(bytes_max)) }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
        available: usize,
    ) -> DataFusionError {
        let shares = self.shares();
        DataFusionError::ResourcesExhausted(format!(
            "{} more for {}, which has {}: of {} that {}, {} are in use, and {} are for it",
            human_readable_size(additional),
            reservation.consumer().name(),
            human_readable_size(reservation.size()),
            human_readable_size(shares.bytes_max()),
            self.whose,
            human_readable_size(shares.reserved()),
            human_readable_size(available),
        ))
    }
}

fn asker(consumer: &MemoryConsumer, reserved: usize) -> Asker {
    Asker { id: consumer.id(), can_spill: consumer.can_spill(), reserved }
}

fn asker_for(reservation: &MemoryReservation) -> Asker {
    asker(reservation.consumer(), reservation.size())
}

impl fmt::Display for SharedByUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} that {}", human_readable_size(self.shares().bytes_max()), self.whose)
    }
}

impl MemoryPool for SharedByUse {
    fn name(&self) -> &'static str {
        "shared_by_use"
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shares().unregister(asker(consumer, 0));
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.shares().grow(asker_for(reservation), additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.shares().shrink(asker_for(reservation), shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let granted = self.shares().try_grow(asker_for(reservation), additional);
        granted.map_err(|available| self.refused(reservation, additional, available))
    }

    fn reserved(&self) -> usize {
        self.shares().reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.shares().bytes_max())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_refusal_says_who_asked_for_how_much_and_what_there_is() {
        let pool: Arc<dyn MemoryPool> = Arc::new(SharedByUse::new("queries may have", 4 << 20));
        let sort = MemoryConsumer::new("a sort").with_can_spill(true).register(&pool);
        let join = MemoryConsumer::new("a join").register(&pool);
        sort.try_grow(2 << 20).unwrap();
        let refused = join.try_grow(3 << 20).unwrap_err().strip_backtrace();
        let says = "Resources exhausted: 3.0 MB more for a join, which has 0.0 B: of 4.0 MB that queries may have, \
                    2.0 MB are in use, and 2.0 MB are for it";
        assert_eq!(refused, says);
        drop((sort, join));
        assert_eq!(pool.reserved(), 0);
    }
}
