//! The lane's coarse clock: it counts sweeps, and reading it is reading a `Cell`.
//!
//! All timeouts of this layer are counted with it, so that a request needs neither a timer nor a
//! look at the system's clock. The price is resolution; a timeout fires up to two ticks late and
//! never early.

use std::cell::Cell;
use std::time::Duration;

const LONGEST_TICK: Duration = Duration::from_millis(100);
const SHORTEST_TICK: Duration = Duration::from_millis(1);

/// A counter of sweeps, and how far apart they are at least.
#[derive(Debug)]
pub(crate) struct Clock {
    tick: Duration,
    now: Cell<u32>,
}

impl Clock {
    /// A clock fine enough to tell apart moments of the length of `shortest`.
    pub(crate) fn resolving(shortest: Duration) -> Self {
        Self { tick: (shortest / 8).clamp(SHORTEST_TICK, LONGEST_TICK), now: Cell::new(0) }
    }

    pub(crate) fn tick(&self) -> Duration {
        self.tick
    }

    pub(crate) fn now(&self) -> u32 {
        self.now.get()
    }

    pub(crate) fn advance(&self) -> u32 {
        self.now.set(self.now.get().wrapping_add(1));
        self.now.get()
    }

    /// `time` in ticks, rounded up.
    pub(crate) fn ticks(&self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos());
        // The largest value means "never"; what is a hundred years off is as good.
        u32::try_from(ticks).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_rounded_up_and_never_none() {
        let clock = Clock::resolving(Duration::from_secs(10));
        assert_eq!(clock.tick(), LONGEST_TICK);
        assert_eq!(clock.ticks(Duration::from_millis(101)), 2);
        assert_eq!(clock.ticks(Duration::ZERO), 1);
        assert_eq!(clock.ticks(Duration::MAX), u32::MAX);
    }

    #[test]
    fn a_short_timeout_makes_a_fine_clock() {
        let clock = Clock::resolving(Duration::from_millis(80));
        assert_eq!(clock.tick(), Duration::from_millis(10));
    }
}
