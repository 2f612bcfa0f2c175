//! The clock of the stamps, and what its ticks are in seconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Reads a monotonic counter of constant rate, the same on all cores.
pub type Source = fn() -> u64;

/// Where the clock's ticks began, by the system's clock.
static ANCHOR: OnceLock<(Clock, u64, Instant)> = OnceLock::new();

/// How long the two clocks must have run side by side before one can be told by the other.
const LEAST_COMPARED: Duration = Duration::from_millis(2);

/// How long they have to have run for what then is known to be final: it is exact to a millionth.
const LONG_COMPARED: Duration = Duration::from_secs(1);

static SETTLED: OnceLock<Scale> = OnceLock::new();

/// Takes stamps.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

impl Clock {
    /// The process's clock; `choose` names its source when it is first asked for.
    pub fn of_process(choose: impl FnOnce() -> Option<Source>) -> Self {
        ANCHOR
            .get_or_init(|| {
                let clock = Self(choose().unwrap_or(nanoseconds));
                let (ticks, instant) = clock.both();
                (clock, ticks, instant)
            })
            .0
    }

    /// A stamp, and the system's of the same moment.
    fn both(self) -> (u64, Instant) {
        // The thread may lose its core between the two: of some tries, the shortest is the truest.
        let try_once = |()| {
            let (before, instant, after) = (self.now(), Instant::now(), self.now());
            (after.saturating_sub(before), before, instant)
        };
        let first = try_once(());
        let (took, before, instant) = [(); 4]
            .map(try_once)
            .into_iter()
            .fold(first, |best, next| if next.0 < best.0 { next } else { best });
        (before + took / 2, instant)
    }

    /// A stamp.
    #[inline]
    #[must_use]
    pub fn now(self) -> u64 {
        (self.0)()
    }
}

impl Clock {
    /// How many ticks `duration` has; `None` while the process's clock is too young to say. Does not
    /// wait.
    #[must_use]
    pub fn ticks_in(self, duration: Duration) -> Option<u64> {
        let (_, _, instant) = ANCHOR.get()?;
        if instant.elapsed() < LEAST_COMPARED {
            return None;
        }
        Some(Scale::measure().ticks(duration))
    }
}

/// The system's monotonic clock, since it was first read.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What a tick is worth.
#[derive(Clone, Copy, Debug)]
pub struct Scale(f64);

impl Scale {
    /// Compares the process's clock with the system's, over the time since it was chosen. Waits, for
    /// 2 ms at most, if it was only just now. Once that was long enough ago to be exact, the answer
    /// stays the same: what only grows in ticks must not go down in seconds.
    #[must_use]
    pub fn measure() -> Self {
        if let Some(scale) = SETTLED.get() {
            return *scale;
        }
        let Some((clock, ticks, instant)) = ANCHOR.get() else {
            return Self(1e-9);
        };
        if let Some(rest) = LEAST_COMPARED.checked_sub(instant.elapsed()) {
            std::thread::sleep(rest);
        }
        let (now, real) = clock.both();
        let passed = now.saturating_sub(*ticks);
        let real = real.saturating_duration_since(*instant);
        let scale = Self(real.as_secs_f64() / as_float(passed.max(1)));
        if real < LONG_COMPARED { scale } else { *SETTLED.get_or_init(|| scale) }
    }

    /// For numbers of nanoseconds.
    #[must_use]
    pub fn of_nanoseconds() -> Self {
        Self(1e-9)
    }

    /// A number of ticks in seconds.
    #[must_use]
    pub fn seconds(self, ticks: u64) -> f64 {
        as_float(ticks) * self.0
    }

    /// How many ticks a duration has.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "neither is negative, and what is too large becomes the largest number"
    )]
    fn ticks(self, duration: Duration) -> u64 {
        (duration.as_secs_f64() / self.0) as u64
    }
}

#[expect(clippy::cast_precision_loss, reason = "53 bits are 104 days of nanoseconds, to one")]
fn as_float(ticks: u64) -> f64 {
    ticks as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_a_second_in_whatever_ticks() {
        let clock = Clock::of_process(|| None);
        let scale = Scale::measure();
        let (start, instant) = (clock.now(), Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let (ticks, real) = (clock.now() - start, instant.elapsed());
        let told = scale.seconds(ticks);
        assert!((told / real.as_secs_f64() - 1.0).abs() < 0.05, "{told} s for {real:?}");
        let counted = clock.ticks_in(real).unwrap();
        assert!(counted.abs_diff(ticks) < ticks / 20, "{counted} ticks for {ticks}");
    }
}
