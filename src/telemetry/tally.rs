//! Durations as a lane counts them: a request is counted in half a dozen of them.
//!
//! The buckets are those of [`Durations`], which is made of a tally when somebody reads it: that
//! keeps the histogram's own bookkeeping (growing, extremes, totals) away from the lane.
//!
//! # Threads
//!
//! One thread counts; any may read, without a lock: a row of buckets is made once and stays. What is
//! read while a duration is counted has it or not, and its sum may have one more or less.

use std::sync::OnceLock;

use super::histogram::Durations;
use super::meter::Counter;

/// Durations are told apart in steps of so many ticks: about 20 ns where they are the cycles of a
/// processor.
const FINEST: u32 = u64::BITS - 1 - super::histogram::FINEST.leading_zeros();
/// Buckets in a row. From the second row on, all of a row have one width, and each row's is twice
/// that of the row before: two significant digits.
const ROW: usize = 128;
/// Enough for 64 bits.
const ROWS: usize = (u64::BITS - FINEST - ROW.trailing_zeros()) as usize + 1;

type Row = [Counter; ROW];

/// How many durations fell into each bucket.
#[derive(Debug, Default)]
pub struct Tally(OnceLock<Box<Counted>>);

#[derive(Debug)]
struct Counted {
    sum: Counter,
    rows: [OnceLock<Box<Row>>; ROWS],
}

impl Default for Counted {
    fn default() -> Self {
        Self { sum: Counter::default(), rows: [const { OnceLock::new() }; ROWS] }
    }
}

/// The row of a duration, its place there, and by how much its bucket is shifted.
#[inline]
fn place(ticks: u64) -> (usize, usize, u32) {
    let steps = ticks >> FINEST;
    let bits = u64::BITS - steps.leading_zeros();
    let shift = bits.saturating_sub(ROW.trailing_zeros() + 1);
    // Below twice a row, steps are counted one by one, in the first two rows; above it the highest
    // bit of what is left is always set, and stands for the row.
    let bucket = (steps >> shift) as usize;
    (shift as usize + bucket / ROW, bucket % ROW, shift)
}

impl Tally {
    /// Counts one duration; to be called by one thread alone.
    #[inline]
    pub fn record(&self, ticks: u64) {
        let counted = self.0.get_or_init(Box::default);
        counted.sum.add(ticks);
        let (row, at, _) = place(ticks);
        let row = &counted.rows[row];
        row.get_or_init(|| Box::new([const { Counter::new() }; ROW]))[at].add(1);
    }

    /// A copy that tells more.
    #[must_use]
    pub fn read(&self) -> Durations {
        let mut read = Durations::default();
        let Some(counted) = self.0.get() else { return read };
        for (number, row) in counted.rows.iter().enumerate() {
            let Some(row) = row.get() else { continue };
            let shift = number.saturating_sub(1);
            let first = if number == 0 { 0 } else { ROW };
            for (at, count) in row.iter().enumerate() {
                let lowest = ((first + at) as u64) << shift << FINEST;
                // Not nothing, which a histogram takes for less than the others of its bucket.
                read.add(lowest | 1, count.get());
            }
        }
        read.add_sum(counted.sum.get());
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Scale;

    #[test]
    fn nothing_is_lost_between_nothing_and_a_century() {
        let tally = Tally::default();
        for ticks in [0, 1, 63, 64, 1_000_000, 1 << 62, u64::MAX] {
            tally.record(ticks);
        }
        assert_eq!(tally.read().count(), 7);
        let buckets = tally.read().buckets(Scale::measure());
        assert_eq!(buckets.iter().map(|bucket| bucket.1).sum::<u64>(), 7);
    }

    #[test]
    fn a_bucket_is_as_wide_as_promised() {
        let scale = Scale::measure();
        for ticks in [12_700, 16_383, 16_384, 16_385, 32_767, 32_768, 123_456_789, 1 << 50] {
            let tally = Tally::default();
            tally.record(ticks);
            let (upper, count) = tally.read().buckets(scale)[0];
            let exact = scale.seconds(ticks);
            assert_eq!(count, 1);
            assert!(upper >= exact && upper <= exact * 1.01, "{upper} for {exact}");
        }
    }

    #[test]
    fn the_buckets_are_those_of_the_histogram() {
        let scale = Scale::measure();
        let mut ticks = 1u64;
        while ticks < 1 << 60 {
            let (tally, mut direct) = (Tally::default(), Durations::default());
            tally.record(ticks);
            direct.add(ticks, 1);
            direct.add_sum(ticks);
            let read = tally.read();
            assert_eq!(read.buckets(scale), direct.buckets(scale), "{ticks}");
            assert_eq!(read.range(scale), direct.range(scale), "{ticks}");
            assert_eq!(read.sum(scale), direct.sum(scale), "{ticks}");
            ticks += ticks / 7 + 1;
        }
    }
}
