//! Durations of one kind.

use hdrhistogram::Histogram;

use super::clock::Scale;

/// Stamps are finer than any duration that matters, so this many ticks are one bucket at least:
/// about 20 ns where they count the cycles of a processor.
const FINEST: u64 = 64;
/// Two significant digits: a bucket is at most a hundredth wide.
const DIGITS: u8 = 2;

/// An HDR histogram of ticks. It is made with the first duration, grows with the longest, and never
/// loses one.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    histogram: Option<Box<Histogram<u64>>>,
    sum: u64,
}

fn histogram() -> Option<Box<Histogram<u64>>> {
    // Never `None`: the bounds are at least 1 and more than a factor of 2 apart.
    let mut histogram = Histogram::new_with_bounds(FINEST, FINEST << 12, DIGITS).ok()?;
    histogram.auto(true);
    Some(Box::new(histogram))
}

impl Durations {
    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, ticks: u64) {
        self.sum = self.sum.wrapping_add(ticks);
        if self.histogram.is_none() {
            self.histogram = histogram();
        }
        if let Some(histogram) = &mut self.histogram
            && histogram.record(ticks).is_err()
        {
            // Longer than 64 bits can tell the bucket of.
            histogram.saturating_record(ticks);
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.len())
    }

    /// The sum of all, in seconds.
    #[must_use]
    pub fn sum(&self, scale: Scale) -> f64 {
        scale.seconds(self.sum)
    }

    /// The shortest and the longest, in seconds; zeros where nothing was counted.
    #[must_use]
    pub fn range(&self, scale: Scale) -> (f64, f64) {
        match &self.histogram {
            Some(histogram) if !histogram.is_empty() => {
                (scale.seconds(histogram.min()), scale.seconds(histogram.max()))
            }
            _ => (0.0, 0.0),
        }
    }

    /// The longest duration of each bucket that is not empty, in seconds, and how many it has.
    #[must_use]
    pub fn buckets(&self, scale: Scale) -> Vec<(f64, u64)> {
        let Some(histogram) = &self.histogram else { return Vec::new() };
        histogram
            .iter_recorded()
            .map(|each| {
                let highest = histogram.highest_equivalent(each.value_iterated_to());
                (scale.seconds(highest), each.count_since_last_iteration())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_nothing_and_a_century() {
        let mut durations = Durations::default();
        for ticks in [0, 1, 63, 64, 1_000_000, 1 << 62, u64::MAX] {
            durations.record(ticks);
        }
        assert_eq!(durations.count(), 7);
        let counted: u64 = durations.buckets(Scale::measure()).iter().map(|bucket| bucket.1).sum();
        assert_eq!(counted, 7);
    }

    #[test]
    fn a_bucket_is_as_wide_as_promised() {
        let mut durations = Durations::default();
        durations.record(123_456_789);
        let scale = Scale::measure();
        let (upper, count) = durations.buckets(scale)[0];
        let exact = scale.seconds(123_456_789);
        assert_eq!(count, 1);
        assert!(upper >= exact && upper <= exact * 1.01, "{upper} for {exact}");
    }
}
