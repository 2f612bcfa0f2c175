//! Durations of one kind, as they are read.

use hdrhistogram::Histogram;

use super::clock::Scale;

/// Stamps are finer than any duration that matters, so this many ticks are one bucket at least:
/// about 20 ns where they count the cycles of a processor.
pub(super) const FINEST: u64 = 64;
/// Two significant digits: a bucket is at most a hundredth wide.
const DIGITS: u8 = 2;

/// An HDR histogram of ticks, made of a [`Tally`](super::tally::Tally). It is made with the first
/// duration, grows with the longest, and never loses one.
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
    /// Counts as many durations of one bucket, of which `ticks` is in it.
    pub(super) fn add(&mut self, ticks: u64, count: u64) {
        if count == 0 {
            return;
        }
        if self.histogram.is_none() {
            self.histogram = histogram();
        }
        if let Some(histogram) = &mut self.histogram
            && histogram.record_n(ticks, count).is_err()
        {
            // Longer than 64 bits can tell the bucket of.
            histogram.saturating_record_n(ticks, count);
        }
    }

    /// Adds to the sum, which is exact.
    pub(super) fn add_sum(&mut self, ticks: u64) {
        self.sum = self.sum.wrapping_add(ticks);
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
