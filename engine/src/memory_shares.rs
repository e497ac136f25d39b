//! How memory is shared by those that can spill and those that cannot.
//!
//! DataFusion's `FairSpillPool` gives each that can spill the memory by their number, whether the others use
//! theirs or not: each output of each repartitioning counts, and a sort beside forty of them has a fortieth.
//! Its `GreedyMemoryPool` gives all to the first, and the next has nothing to begin with. Here one that can
//! spill may have as much as a multiple of what is still free, as queues that share a buffer do (dynamic
//! thresholds: Choudhury and Hahne, IEEE/ACM Transactions on Networking 1998):
//!
//! ```text
//! what cannot spill    whatever is free
//! what can spill       its first batch, and what it puts into another reservation: as much as is then free
//!                      more: three times of what is then free but for an eighth of all, or a quarter of
//!                      what is then free
//! ```
//!
//! So what is idle keeps nobody from anything, one that spills alone has 21/32 of the memory, n that grow
//! together have equal parts and leave four parts, and something is free for the next. One that asks
//! for more than that is refused, spills, and what it gives back is there for all; one that does not ask keeps
//! what it has. Nobody is sure of anything: what cannot spill may take it all.
//!
//! What is left is for first batches and second reservations, of which a refusal ends the query: DataFusion's
//! merge of spilled runs takes as much as it gets for the runs, and fails if there is nothing to put the
//! merged rows into.

use std::collections::HashMap;

/// One may have so many times of what is then free but for [`LEFT_PART`]: two that grow together have 3/7 of that
/// each, as if one were to come.
const TIMES_FREE: usize = 3;
/// Those who have much leave one of so many parts of all.
const LEFT_PART: usize = 8;
/// Where there is less than that, many share: each may have one of so many parts of what is then free.
const PARTS_OF_FREE: usize = 4;

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

    /// Forgets one that has nothing and will not ask again.
    pub(crate) fn unregister(&mut self, asker: Asker) {
        let had = self.spillers.remove(&asker.id).unwrap_or_default();
        debug_assert_eq!(had, 0, "a consumer of memory left with some");
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
        let less = |has: &mut usize| {
            debug_assert!(*has >= bytes, "{bytes} bytes are given back of {has}");
            *has = has.saturating_sub(bytes);
        };
        if asker.can_spill {
            less(self.spillers.entry(asker.id).or_default());
            less(&mut self.spillable);
        } else {
            less(&mut self.fixed);
        }
    }

    /// Gives it so many bytes more, or says how many there are for it.
    pub(crate) fn try_grow(&mut self, asker: Asker, bytes: usize) -> Result<(), usize> {
        let free = self.bytes_max.saturating_sub(self.reserved());
        let available = if asker.can_spill { self.available_to(asker, free) } else { free };
        if bytes > available {
            return Err(available);
        }
        self.grow(asker, bytes);
        Ok(())
    }

    /// How much of what is free one that spills may have.
    fn available_to(&self, asker: Asker, free: usize) -> usize {
        let spillable_max = self.bytes_max.saturating_sub(self.fixed);
        let own = self.spillers.get(&asker.id).copied().unwrap_or_default();
        let is_another = own > asker.reserved;
        if own == 0 || is_another {
            // The most for which reserved + more <= free - more.
            return free.saturating_sub(asker.reserved) / 2;
        }
        // The most for which own + more <= TIMES_FREE * (free - left - more).
        let unleft = free.saturating_sub(spillable_max / LEFT_PART);
        let much = unleft.saturating_mul(TIMES_FREE).saturating_sub(own) / (TIMES_FREE + 1);
        // The most for which PARTS_OF_FREE * (own + more) <= free - more.
        let little = free.saturating_sub(own.saturating_mul(PARTS_OF_FREE)) / (PARTS_OF_FREE + 1);
        much.max(little)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: usize = 6_400;

    /// What one that spills has in its reservations.
    #[derive(Debug, Default, Clone, Copy)]
    struct Spiller {
        id: usize,
        first: usize,
        second: usize,
    }

    impl Spiller {
        fn of(id: usize) -> Self {
            Self { id, ..Self::default() }
        }

        fn asker(&self, reserved: usize) -> Asker {
            Asker { id: self.id, can_spill: true, reserved }
        }

        fn grows(&mut self, shares: &mut Shares, bytes: usize) -> bool {
            let granted = shares.try_grow(self.asker(self.first), bytes).is_ok();
            self.first += if granted { bytes } else { 0 };
            granted
        }

        /// Until it is refused.
        fn grows_greedily(&mut self, shares: &mut Shares) {
            while self.grows(shares, 1) {}
        }

        fn grows_in_second(&mut self, shares: &mut Shares, bytes: usize) -> bool {
            let granted = shares.try_grow(self.asker(self.second), bytes).is_ok();
            self.second += if granted { bytes } else { 0 };
            granted
        }

        fn spills(&mut self, shares: &mut Shares) {
            shares.shrink(self.asker(self.first), std::mem::take(&mut self.first));
        }
    }

    const FIXED: Asker = Asker { id: 99, can_spill: false, reserved: 0 };

    fn free(shares: &Shares) -> usize {
        ALL - shares.reserved()
    }

    #[test]
    fn one_that_spills_alone_has_most_of_it() {
        let (mut shares, mut one) = (Shares::new(ALL), Spiller::of(1));
        one.grows_greedily(&mut shares);
        assert_eq!(one.first, ALL / 32 * 21);
        assert_eq!(shares.try_grow(one.asker(one.first), 1), Err(0));
        assert_eq!(shares.try_grow(FIXED, free(&shares)), Ok(()), "what cannot spill has the rest");
        assert_eq!(shares.try_grow(FIXED, 1), Err(0));
    }

    #[test]
    fn all_that_grow_together_have_as_much_and_leave_something_to_their_second_reservations() {
        for number in [2, 3, 16, 24, 50, 57, 64, 256] {
            let mut shares = Shares::new(ALL);
            let mut all: Vec<_> = (0..number).map(Spiller::of).collect();
            while all.iter_mut().fold(false, |grew, one| one.grows(&mut shares, 1) | grew) {}
            let (least, most) = all
                .iter()
                .fold((ALL, 0), |(least, most), one| (least.min(one.first), most.max(one.first)));
            assert!(most - least <= 1, "{number}: {least} to {most}");
            assert!(least * number >= ALL / 2, "{number}: {least} each");
            let left = (ALL / LEFT_PART).min(least * PARTS_OF_FREE);
            assert!(free(&shares) >= left, "{number}: {} are free", free(&shares));
            let second = free(&shares) / number / 2;
            assert!(all.iter_mut().all(|one| one.grows_in_second(&mut shares, second)), "{number}");
        }
    }

    #[test]
    fn one_after_the_other_has_something_to_begin_with() {
        let mut shares = Shares::new(ALL);
        let mut has = Vec::new();
        for id in 0..8 {
            let mut next = Spiller::of(id);
            next.grows_greedily(&mut shares);
            has.push(next.first);
        }
        assert_eq!(has, [4200, 1050, 262, 177, 142, 113, 91, 73]);
    }

    #[test]
    fn those_who_come_late_have_a_first_batch_of_some_size() {
        let mut shares = Shares::new(ALL);
        let mut first: Vec<_> = (0..4).map(Spiller::of).collect();
        while first.iter_mut().fold(false, |grew, one| one.grows(&mut shares, 1) | grew) {}
        let mut late = (4..8).map(Spiller::of);
        assert!(late.all(|mut one| one.grows(&mut shares, ALL / 32)));
    }

    #[test]
    fn what_one_gives_back_is_there_for_all() {
        let mut shares = Shares::new(ALL);
        let (mut first, mut next) = (Spiller::of(1), Spiller::of(2));
        first.grows_greedily(&mut shares);
        next.grows_greedily(&mut shares);
        assert!(!first.grows(&mut shares, 1), "it has more than three times of what is free");
        first.spills(&mut shares);
        next.grows_greedily(&mut shares);
        assert_eq!(next.first, ALL / 32 * 21);
        next.spills(&mut shares);
        shares.unregister(next.asker(0));
        assert_eq!(shares.reserved(), 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Grow(usize, usize),
        GrowInSecond(usize, usize),
        GrowForGood(usize),
        Spill(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_usize..6, 0_usize..2_000).prop_map(|(id, bytes)| Step::Grow(id, bytes)),
            2 => (0_usize..6, 0_usize..500).prop_map(|(id, bytes)| Step::GrowInSecond(id, bytes)),
            1 => (0_usize..500).prop_map(Step::GrowForGood),
            2 => (0_usize..6).prop_map(Step::Spill),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        #[test]
        fn all_have_no_more_than_there_is_and_no_spiller_takes_the_last(steps in steps()) {
            let (mut shares, mut fixed) = (Shares::new(ALL), 0);
            let mut all: Vec<_> = (0..6).map(Spiller::of).collect();
            for step in steps {
                match step {
                    Step::Grow(id, bytes) => {
                        let granted = all[id].grows(&mut shares, bytes);
                        prop_assert!(!granted || bytes == 0 || free(&shares) > 0);
                    }
                    Step::GrowInSecond(id, bytes) => {
                        let granted = all[id].grows_in_second(&mut shares, bytes);
                        prop_assert!(!granted || bytes == 0 || free(&shares) > 0);
                    }
                    Step::GrowForGood(bytes) => {
                        fixed += if shares.try_grow(FIXED, bytes).is_ok() { bytes } else { 0 };
                    }
                    Step::Spill(id) => all[id].spills(&mut shares),
                }
                let spillable: usize = all.iter().map(|one| one.first + one.second).sum();
                prop_assert_eq!(shares.reserved(), spillable + fixed);
                prop_assert!(shares.reserved() <= ALL);
            }
        }
    }
}
