//! Durations of one kind: an HDR histogram, and what is told of it.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::job::LoadError;

/// Nanoseconds below which nothing need be told apart.
const LOWEST: u64 = 100;
/// What the histogram has room for from the start; it grows beyond, to `HIGHEST`.
const USUAL: u64 = 1_000_000_000;
/// A day; longer ones count as that long.
const HIGHEST: u64 = 24 * 3600 * 1_000_000_000;
const DIGITS: u8 = 2;

/// Durations, in two significant digits; their sum and extremes are exact.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    histogram: Histogram<u64>,
    sum: u128,
    min: u64,
    max: u64,
}

/// Durations in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// All together.
    pub sum: f64,
    /// The shortest; 0 where there is none.
    pub min: f64,
    /// The longest; 0 where there is none.
    pub max: f64,
    /// The highest duration that a bucket holds, and how many it holds: ascending, none empty.
    pub buckets: Vec<(f64, u64)>,
}

impl Timing {
    pub(crate) fn new() -> Result<Self, LoadError> {
        let mut histogram = Histogram::new_with_bounds(LOWEST, USUAL, DIGITS)
            .map_err(|error| LoadError::new(format!("no histogram: {error}")))?;
        histogram.auto(true);
        Ok(Self { histogram, sum: 0, min: u64::MAX, max: 0 })
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(HIGHEST).min(HIGHEST);
        // Fails only where a histogram cannot grow to a day, which an automatic one can.
        if self.histogram.record(nanos).is_ok() {
            self.sum += u128::from(nanos);
            self.min = self.min.min(nanos);
            self.max = self.max.max(nanos);
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if self.histogram.add(&other.histogram).is_ok() {
            self.sum += other.sum;
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.histogram.clear();
        (self.sum, self.min, self.max) = (0, u64::MAX, 0);
    }

    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The duration that a share `quantile` of all does not exceed, in seconds; 0 where there is
    /// none.
    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        seconds(self.histogram.value_at_quantile(quantile).min(self.max))
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let buckets = self.histogram.iter_recorded().map(|bucket| {
            let highest = self.histogram.highest_equivalent(bucket.value_iterated_to());
            (seconds(highest), bucket.count_since_last_iteration())
        });
        #[expect(clippy::cast_precision_loss, reason = "a sum for people")]
        let sum = self.sum as f64 / 1e9;
        Distribution {
            count: self.histogram.len(),
            sum,
            min: if self.histogram.is_empty() { 0.0 } else { seconds(self.min) },
            max: seconds(self.max),
            buckets: buckets.collect(),
        }
    }
}

fn seconds(nanos: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a day of nanoseconds is exact")]
    let nanos = nanos as f64;
    nanos / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_hundredth_and_extremes_exact() {
        let mut timing = Timing::new().unwrap();
        for micros in 1..=10_000 {
            timing.record(Duration::from_micros(micros));
        }
        for (quantile, expected) in [(0.5, 5e-3), (0.99, 9.9e-3), (0.999, 9.99e-3)] {
            let found = timing.quantile(quantile);
            assert!((found / expected - 1.0).abs() < 0.01, "{quantile}: {found}");
        }
        let told = timing.distribution();
        assert_eq!((told.count, told.min, told.max), (10_000, 1e-6, 1e-2));
        assert!((told.sum - 50.005).abs() < 1e-9);
        assert_eq!(told.buckets.iter().map(|bucket| bucket.1).sum::<u64>(), 10_000);
        assert!(told.buckets.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn what_takes_for_ever_counts_and_makes_no_more_than_some_thousand_buckets() {
        let mut timing = Timing::new().unwrap();
        let mut duration = Duration::from_nanos(1);
        while duration < Duration::from_secs(200_000) {
            timing.record(duration);
            duration = duration.mul_f64(1.001) + Duration::from_nanos(1);
        }
        timing.record(Duration::MAX);
        let told = timing.distribution();
        assert_eq!(told.max, 86_400.0);
        assert!(told.buckets.len() < 5_000, "{}", told.buckets.len());
    }

    #[test]
    fn none_is_zero_and_sums_add_up() {
        let mut all = Timing::new().unwrap();
        assert_eq!(all.distribution().max, 0.0);
        assert_eq!(all.distribution().min, 0.0);
        assert_eq!(all.quantile(0.5), 0.0);
        let mut one = Timing::new().unwrap();
        one.record(Duration::from_secs(90));
        all.add(&one);
        all.add(&one);
        assert_eq!((all.distribution().count, all.distribution().max), (2, 90.0));
        all.clear();
        assert_eq!(all.distribution().count, 0);
    }
}
