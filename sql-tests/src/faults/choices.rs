//! A seeded source of choices: the same seed gives the same run of choices on every machine.
//!
//! SplitMix64 (Steele, Lea, Flood 2014): neighbouring seeds give unlike runs, which a bare linear
//! generator does not.

/// A source of choices.
#[derive(Debug, Clone)]
pub struct Choices(u64);

impl Choices {
    /// The source of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.any().checked_rem(end).unwrap_or(0)
    }

    /// One of `items`.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        // An index below a length is one.
        &items[self.below(items.len() as u64) as usize]
    }

    /// A source of its own, for a task that runs beside others.
    pub fn fork(&mut self) -> Self {
        Self(self.any())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_its_neighbour_has_others() {
        let run = |seed| {
            let mut choices = Choices::new(seed);
            (0..20).map(|_| choices.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|choice| *choice < 1_000));
    }
}
