//! When a gauge counts as flat.
//!
//! ```text
//! samples   | warm-up | second third | last third |
//!                        median b        median l      flat: l <= factor * b + slack
//! ```
//! Medians, so that a moment of work at the wrong time is no growth; the slack is for what comes in
//! pieces, as the memory of an allocator.

/// How much more a gauge may show in the last third than in the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margin {
    /// Times as much,
    pub factor: f64,
    /// and this more.
    pub slack: f64,
}

/// What a gauge did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// At the start.
    pub first: f64,
    /// The median of the second third.
    pub before: f64,
    /// The median of the last third.
    pub last: f64,
    /// The most there ever was.
    pub most: f64,
}

impl Course {
    /// The course of a series of samples; `None` of fewer than three.
    pub fn of(series: &[f64]) -> Option<Self> {
        let third = series.len() / 3;
        let (first, most) = (*series.first()?, series.iter().copied().fold(f64::MIN, f64::max));
        let before = median(series.get(third..2 * third)?)?;
        let last = median(series.get(2 * third..)?)?;
        Some(Self { first, before, last, most })
    }

    /// Whether it stayed within its margin.
    pub fn is_flat(&self, margin: Margin) -> bool {
        self.last <= margin.factor * self.before + margin.slack
    }
}

fn median(series: &[f64]) -> Option<f64> {
    let mut sorted = series.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARGIN: Margin = Margin { factor: 1.1, slack: 5.0 };

    fn is_flat(series: impl IntoIterator<Item = u32>) -> bool {
        let series: Vec<_> = series.into_iter().map(f64::from).collect();
        Course::of(&series).unwrap().is_flat(MARGIN)
    }

    #[test]
    fn what_grows_while_it_warms_up_is_flat() {
        assert!(is_flat((0..30).chain(std::iter::repeat_n(30, 60))));
    }

    #[test]
    fn what_grows_all_the_time_is_not_flat() {
        assert!(!is_flat(0..90));
    }

    #[test]
    fn a_peak_is_no_growth_and_saw_teeth_are_flat() {
        assert!(is_flat((0..90).map(|i| if i == 80 { 1_000 } else { 30 })));
        assert!(is_flat((0..90).map(|i| 30 + i % 10)));
    }

    #[test]
    fn too_few_samples_have_no_course() {
        assert_eq!(Course::of(&[]), None);
        assert_eq!(Course::of(&[1.0, 2.0]), None);
        assert!(Course::of(&[1.0, 2.0, 3.0]).is_some());
    }
}
