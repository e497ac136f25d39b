//! How memory is shared by those that can spill and those that cannot.
//!
//! DataFusion's `FairSpillPool` gives each that can spill the memory by their number, whether the others use
//! theirs or not: each output of each repartitioning counts, and a sort beside forty of them has a fortieth.
//! Its `GreedyMemoryPool` gives all to the first, and the next has nothing to begin with. Here memory goes to
//! those who use it, and two parts of it are kept:
//!
//! ```text
//! | what cannot spill |              what can spill, n of them               |
//!     first come        a quarter is guaranteed, 1/n of it to each
//!                       an eighth is left by those who have much already
//!                       the rest, and what is guaranteed to none any more
//!                       because they have it: first come
//! ```
//!
//! So one that spills alone has seven eighths, one beside others that are idle five, and none that spills is
//! refused what is guaranteed to it, unless what cannot spill took it: the banker's rule (Dijkstra 1965,
//! EWD 123) with one claim each. One that is refused spills, and what it gives back is there for all.
//!
//! The eighth is for the second reservations of operators: DataFusion's merge of spilled runs takes as much as
//! it gets for the runs, and fails if there is nothing left to put the merged rows into.

use std::collections::HashMap;

/// The part of what can be spilled that is guaranteed: one of so many.
const GUARANTEED_PART: usize = 4;
/// The part of it that a reservation of more than half of that leaves: one of so many.
const LEFT_PART: usize = 8;

/// Who has how much, in bytes.
#[derive(Debug)]
pub(crate) struct Shares {
    bytes_max: usize,
    /// What each that can spill has, by its id.
    spillers: HashMap<usize, usize>,
    /// What they have together.
    spillable: usize,
    /// What the others have.
    fixed: usize,
}

/// One that asks for memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) id: usize,
    pub(crate) can_spill: bool,
    /// What it has in the reservation that it asks for; it may have others.
    pub(crate) reserved: usize,
}

impl Shares {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, spillers: HashMap::new(), spillable: 0, fixed: 0 }
    }

    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What all have together.
    pub(crate) fn reserved(&self) -> usize {
        self.spillable + self.fixed
    }

    /// From now on a part is guaranteed to it.
    pub(crate) fn register(&mut self, asker: Asker) {
        if asker.can_spill {
            self.spillers.insert(asker.id, 0);
        }
    }

    /// It has nothing, and will not ask again.
    pub(crate) fn unregister(&mut self, asker: Asker) {
        if asker.can_spill {
            self.spillers.remove(&asker.id);
        }
    }

    /// Counts what it took without asking.
    pub(crate) fn grow(&mut self, asker: Asker, bytes: usize) {
        match asker.can_spill {
            true => {
                *self.spillers.entry(asker.id).or_default() += bytes;
                self.spillable += bytes;
            }
            false => self.fixed += bytes,
        }
    }

    pub(crate) fn shrink(&mut self, asker: Asker, bytes: usize) {
        match asker.can_spill {
            true => {
                if let Some(own) = self.spillers.get_mut(&asker.id) {
                    *own = own.saturating_sub(bytes);
                }
                self.spillable = self.spillable.saturating_sub(bytes);
            }
            false => self.fixed = self.fixed.saturating_sub(bytes),
        }
    }

    /// Gives it so many bytes more, or says how many there are for it.
    pub(crate) fn try_grow(&mut self, asker: Asker, bytes: usize) -> Result<(), usize> {
        let free = self.bytes_max.saturating_sub(self.reserved());
        let available = if asker.can_spill { self.available_to(asker, bytes, free) } else { free };
        if bytes > available {
            return Err(available);
        }
        self.grow(asker, bytes);
        Ok(())
    }

    /// How much of what is free one that spills may have.
    fn available_to(&self, asker: Asker, bytes: usize, free: usize) -> usize {
        let spillable_max = self.bytes_max.saturating_sub(self.fixed);
        let guaranteed = spillable_max / GUARANTEED_PART / self.spillers.len().max(1);
        let left = spillable_max / LEFT_PART;
        let own = self.spillers.get(&asker.id).copied().unwrap_or_default();
        let others = self.spillers.iter().filter(|(other, _)| **other != asker.id);
        let claimed: usize = others.map(|(_, bytes)| guaranteed.saturating_sub(*bytes)).sum();
        let has_much = asker.reserved.saturating_add(bytes) > guaranteed.max(left / 2);
        let kept = claimed + if has_much { left } else { 0 };
        free.saturating_sub(kept).max(guaranteed.saturating_sub(own).min(free))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: usize = 1_000;

    /// One with a single reservation.
    struct Spiller(usize);

    impl Shares {
        fn has(&self, id: usize) -> usize {
            self.spillers.get(&id).copied().unwrap_or_default()
        }

        fn ask(&mut self, Spiller(id): Spiller, bytes: usize) -> Result<(), usize> {
            let reserved = self.has(id);
            self.try_grow(Asker { id, can_spill: true, reserved }, bytes)
        }

        fn ask_in_second_reservation(
            &mut self,
            Spiller(id): Spiller,
            bytes: usize,
        ) -> Result<(), usize> {
            self.try_grow(Asker { id, can_spill: true, reserved: 0 }, bytes)
        }

        fn ask_for_good(&mut self, bytes: usize) -> Result<(), usize> {
            self.try_grow(Asker { id: 99, can_spill: false, reserved: 0 }, bytes)
        }

        fn give_back(&mut self, Spiller(id): Spiller, bytes: usize) {
            self.shrink(Asker { id, can_spill: true, reserved: 0 }, bytes);
        }

        fn leave(&mut self, Spiller(id): Spiller) {
            self.unregister(Asker { id, can_spill: true, reserved: 0 });
        }
    }

    fn shares_of(spillers: usize) -> Shares {
        let mut shares = Shares::new(ALL);
        (0..spillers).for_each(|id| shares.register(Asker { id, can_spill: true, reserved: 0 }));
        shares
    }

    #[test]
    fn one_that_spills_alone_leaves_an_eighth_to_its_second_reservation() {
        let mut shares = shares_of(1);
        assert_eq!(shares.ask(Spiller(0), ALL), Err(875));
        assert_eq!(shares.ask(Spiller(0), 875), Ok(()));
        assert_eq!(shares.ask(Spiller(0), 1), Err(0));
        assert_eq!(shares.ask_in_second_reservation(Spiller(0), 125), Ok(()));
        assert_eq!(shares.ask_for_good(1), Err(0));
    }

    #[test]
    fn one_beside_many_that_are_idle_has_most_of_it() {
        let mut shares = shares_of(50);
        assert_eq!(shares.ask(Spiller(7), ALL), Err(630));
        assert_eq!(shares.ask(Spiller(7), 630), Ok(()));
        // Each of the others has what is guaranteed to it, and the first what was left.
        assert_eq!(shares.ask(Spiller(0), 50), Ok(()));
        assert_eq!(shares.ask(Spiller(1), 62), Ok(()));
        for id in (2..50).filter(|id| *id != 7) {
            assert_eq!(shares.ask(Spiller(id), 5), Ok(()), "{id}");
        }
        // What one gives back is there for all.
        shares.give_back(Spiller(7), 630);
        assert!(shares.ask(Spiller(8), 500).is_ok());
        shares.leave(Spiller(7));
        assert_eq!(shares.ask_for_good(ALL), Err(ALL - shares.reserved()));
    }

    #[test]
    fn what_cannot_spill_comes_first() {
        let mut shares = shares_of(2);
        assert_eq!(shares.ask_for_good(920), Ok(()));
        assert_eq!(shares.ask(Spiller(0), 80), Err(60), "10 are the other's, 10 are left");
        assert_eq!(shares.ask(Spiller(1), 10), Ok(()));
        assert_eq!(shares.ask(Spiller(0), 60), Ok(()));
        assert_eq!(shares.ask_for_good(10), Ok(()));
        assert_eq!(shares.reserved(), ALL);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask(usize, usize),
        GiveBack(usize, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_usize..6, 0_usize..300).prop_map(|(id, bytes)| Step::Ask(id, bytes)),
            (0_usize..6, 0_usize..300).prop_map(|(id, bytes)| Step::GiveBack(id, bytes)),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn nobody_is_refused_what_is_guaranteed_and_all_have_no_more_than_there_is(steps in steps()) {
            let mut shares = shares_of(6);
            let mut has = [0; 6];
            let guaranteed = ALL / GUARANTEED_PART / has.len();
            for step in steps {
                match step {
                    Step::Ask(id, bytes) => {
                        let granted = shares.ask(Spiller(id), bytes);
                        prop_assert!(granted.is_ok() || has[id] + bytes > guaranteed);
                        has[id] += if granted.is_ok() { bytes } else { 0 };
                    }
                    Step::GiveBack(id, bytes) => {
                        let bytes = bytes.min(has[id]);
                        shares.give_back(Spiller(id), bytes);
                        has[id] -= bytes;
                    }
                }
                prop_assert_eq!(shares.reserved(), has.iter().sum::<usize>());
                prop_assert!(shares.reserved() <= ALL);
            }
        }
    }
}
