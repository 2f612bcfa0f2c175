//! Which request is the next: drawn by weight, and the same at each run.
//!
//! A request's kind depends on its number and the seed alone, not on which connection was free
//! first, so two runs send the same sequence however the server behaves.

/// A weighted choice for every number.
#[derive(Debug)]
pub(crate) struct Choice {
    seed: u64,
    /// The sums of the weights up to and with each kind.
    bounds: Vec<f64>,
    /// The last kind that has any weight: what a rounded-up draw falls to.
    last: usize,
}

impl Choice {
    /// `None` unless the weights are finite, none is negative, and some is positive.
    pub(crate) fn new(seed: u64, weights: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sum = 0.0;
        let mut last = None;
        let mut bounds = Vec::new();
        for (index, weight) in weights.into_iter().enumerate() {
            if !(weight.is_finite() && weight >= 0.0) {
                return None;
            }
            if weight > 0.0 {
                last = Some(index);
            }
            sum += weight;
            bounds.push(sum);
        }
        let last = last.filter(|_| sum.is_finite())?;
        Some(Self { seed, bounds, last })
    }

    /// The kind of request `number`.
    pub(crate) fn pick(&self, number: u64) -> usize {
        if self.last == 0 {
            return 0;
        }
        let total = self.bounds[self.last];
        let drawn = unit(mix(self.seed, number)) * total;
        self.bounds.partition_point(|bound| *bound <= drawn).min(self.last)
    }
}

/// `SplitMix64`: a counter stirred until its bits are as good as random.
fn mix(seed: u64, number: u64) -> u64 {
    let mut x = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// From 0 up to, not including, 1.
fn unit(bits: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    let whole = (bits >> 11) as f64;
    whole / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(choice: &Choice, kinds: usize, draws: u64) -> Vec<u64> {
        let mut counts = vec![0; kinds];
        for number in 0..draws {
            counts[choice.pick(number)] += 1;
        }
        counts
    }

    #[test]
    fn kinds_come_by_their_weights() {
        let choice = Choice::new(7, [3.0, 1.0, 0.5]).unwrap();
        let counts = counts(&choice, 3, 45_000);
        for (count, expected) in counts.iter().zip([30_000_u64, 10_000, 5_000]) {
            assert!(count.abs_diff(expected) < expected / 20, "{counts:?}");
        }
    }

    #[test]
    fn a_number_always_has_the_same_kind_and_another_seed_another_sequence() {
        let sequence = |seed| {
            let choice = Choice::new(seed, [1.0, 1.0]).unwrap();
            (0..64).map(|number| choice.pick(number)).collect::<Vec<_>>()
        };
        assert_eq!(sequence(1), sequence(1));
        assert_ne!(sequence(1), sequence(2));
    }

    #[test]
    fn what_weighs_nothing_is_never_picked() {
        let choice = Choice::new(0, [0.0, 2.0, 0.0, 2.0, 0.0]).unwrap();
        let counts = counts(&choice, 5, 10_000);
        assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0), "{counts:?}");
        assert_eq!(Choice::new(0, [5.0, 0.0]).unwrap().pick(99), 0);
    }

    #[test]
    fn weights_that_allow_no_choice_are_refused() {
        for weights in [&[][..], &[0.0, 0.0], &[1.0, -1.0], &[f64::NAN], &[f64::INFINITY]] {
            assert!(Choice::new(0, weights.iter().copied()).is_none(), "{weights:?}");
        }
        assert!(Choice::new(0, [f64::MAX, f64::MAX]).is_none());
    }
}
