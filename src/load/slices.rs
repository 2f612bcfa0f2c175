//! What arrived when: counts and latencies of one span of time after the other.

use std::time::{Duration, Instant};

use super::job::LoadError;
use super::timing::Timing;

/// A run has no more slices than this, so a longer one has longer ones.
const MOST: u32 = 480;

/// A span of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Seconds from the end of the warm-up to its begin.
    pub start: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Expected answers that arrived.
    pub completed: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The median latency, in seconds; 0 where nothing completed.
    pub p50: f64,
    /// The 99th percentile of the latencies.
    pub p99: f64,
    /// Bytes received.
    pub bytes: u64,
}

/// The slices of a run, the current one included.
#[derive(Debug)]
pub(crate) struct Slices {
    width: Duration,
    origin: Instant,
    end: Instant,
    done: Vec<Slice>,
    /// Where the current slice begins, after `origin`.
    start: Duration,
    completed: u64,
    failed: u64,
    latency: Timing,
    bytes_before: u64,
}

impl Slices {
    /// From `origin` on for `duration`, each at least as long as `slice`.
    pub(crate) fn new(
        origin: Instant,
        duration: Duration,
        slice: Duration,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            width: slice.max(duration / MOST),
            origin,
            end: origin + duration,
            done: Vec::new(),
            start: Duration::ZERO,
            completed: 0,
            failed: 0,
            latency: Timing::new()?,
            bytes_before: 0,
        })
    }

    /// The sending is over at `now`, before its time where the run was stopped: what arrives later is
    /// in no slice.
    pub(crate) fn end_at(&mut self, now: Instant) {
        self.end = self.end.min(now);
    }

    /// Ends the slices that are over at `now`; true if `now` is in one.
    fn advance(&mut self, now: Instant, bytes: u64) -> bool {
        let Some(elapsed) = now.checked_duration_since(self.origin) else {
            self.bytes_before = bytes;
            return false;
        };
        let elapsed = elapsed.min(self.end.saturating_duration_since(self.origin));
        while elapsed >= self.start + self.width {
            self.close(self.width, bytes);
        }
        now < self.end
    }

    fn close(&mut self, length: Duration, bytes: u64) {
        self.done.push(Slice {
            start: self.start.as_secs_f64(),
            seconds: length.as_secs_f64(),
            completed: std::mem::take(&mut self.completed),
            failed: std::mem::take(&mut self.failed),
            p50: self.latency.quantile(0.5),
            p99: self.latency.quantile(0.99),
            bytes: bytes.saturating_sub(self.bytes_before),
        });
        self.latency.clear();
        self.bytes_before = bytes;
        self.start += length;
    }

    /// `bytes` are those received so far, here and below.
    pub(crate) fn completed(&mut self, now: Instant, latency: Duration, bytes: u64) {
        if self.advance(now, bytes) {
            self.completed += 1;
            self.latency.record(latency);
        }
    }

    pub(crate) fn failed(&mut self, now: Instant, bytes: u64) {
        if self.advance(now, bytes) {
            self.failed += 1;
        }
    }

    /// All slices until `now`, where the last one ends.
    pub(crate) fn finish(&mut self, now: Instant, bytes: u64) -> Vec<Slice> {
        self.advance(now, bytes);
        let until = now.min(self.end).saturating_duration_since(self.origin);
        let rest = until.saturating_sub(self.start);
        if !rest.is_zero() {
            self.close(rest, bytes);
        }
        std::mem::take(&mut self.done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn what_arrives_is_in_the_slice_of_its_time() {
        let origin = Instant::now() + MILLI;
        let mut slices = Slices::new(origin, 100 * MILLI, 25 * MILLI).unwrap();
        slices.completed(origin.checked_sub(MILLI).unwrap(), MILLI, 7);
        slices.completed(origin, MILLI, 10);
        slices.completed(origin + 24 * MILLI, 3 * MILLI, 20);
        slices.failed(origin + 25 * MILLI, 30);
        slices.completed(origin + 99 * MILLI, MILLI, 40);
        slices.completed(origin + 100 * MILLI, MILLI, 50);
        let done = slices.finish(origin + 150 * MILLI, 60);
        let counts: Vec<_> = done.iter().map(|s| (s.completed, s.failed)).collect();
        assert_eq!(counts, [(2, 0), (0, 1), (0, 0), (1, 0)]);
        assert_eq!(done.iter().map(|s| s.bytes).sum::<u64>(), 50 - 7);
        assert!((done[0].p99 - 3e-3).abs() < 3e-5 && done[2].p99 == 0.0);
        assert!((done[3].start - 0.075).abs() < 1e-9);
    }

    #[test]
    fn an_early_end_cuts_the_last_one() {
        let origin = Instant::now();
        let mut slices = Slices::new(origin, 100 * MILLI, 25 * MILLI).unwrap();
        let done = slices.finish(origin + 30 * MILLI, 0);
        assert_eq!(done.len(), 2);
        assert!((done[1].seconds - 0.005).abs() < 1e-9);
    }

    #[test]
    fn what_arrives_after_an_early_end_is_in_none() {
        let origin = Instant::now();
        let mut slices = Slices::new(origin, 100 * MILLI, 25 * MILLI).unwrap();
        slices.completed(origin + 10 * MILLI, MILLI, 10);
        slices.end_at(origin + 30 * MILLI);
        slices.completed(origin + 60 * MILLI, MILLI, 20);
        let done = slices.finish(origin + 30 * MILLI, 20);
        let told: Vec<_> = done.iter().map(|s| s.completed).collect();
        assert_eq!(told, [1, 0]);
        assert!((done[1].seconds - 0.005).abs() < 1e-9);
    }

    #[test]
    fn a_long_run_has_longer_slices_not_more() {
        let origin = Instant::now();
        let day = Duration::from_secs(24 * 3600);
        let mut slices = Slices::new(origin, day, 250 * MILLI).unwrap();
        assert_eq!(slices.finish(origin + day, 0).len(), MOST as usize);
    }
}
