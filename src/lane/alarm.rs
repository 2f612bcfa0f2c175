//! The clock of a loop and the descriptor that wakes it for its next timer.
//!
//! A timerfd rather than Tokio's own timer: that counts in milliseconds, and rounds up. It is set
//! only when a nearer time is waited for than the one it stands at; a timer that is cancelled
//! leaves it as it is, and costs one turn for nothing at most.
//!
//! Owned by the turn, on the loop's thread.

use std::io;
use std::os::fd::OwnedFd;
use std::task::Context;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use super::nudge::Nudging;

const NANOS: i64 = 1_000_000_000;

/// The latest time that is waited for at once, as in asyncio: clocks overflow beyond.
const LONGEST_WAIT: f64 = 24.0 * 3600.0;

/// Loop time: seconds on the system's monotonic clock, the float that `time.monotonic()` gives.
pub(super) fn now() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    #[expect(clippy::cast_precision_loss, reason = "as CPython converts it")]
    let nanos = (time.tv_sec * NANOS + time.tv_nsec) as f64;
    nanos / 1e9
}

/// Wakes the turn at a loop time.
pub(super) struct Alarm {
    fd: Nudging,
    /// The loop time that the descriptor stands at.
    armed: Option<f64>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd: OwnedFd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: Nudging::new(fd)?, armed: None })
    }

    /// Takes note whether the time has come; wakes `cx` when it comes.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        let came = self.fd.came(cx)?;
        if came {
            // Not read: setting it anew takes the expiration back.
            self.armed = None;
        }
        Ok(came)
    }

    /// Waits for `when` from now on. True when it has come already.
    pub(super) fn arm(&mut self, when: Option<f64>) -> io::Result<bool> {
        let Some(when) = when else {
            return Ok(false);
        };
        if self.armed.is_some_and(|armed| armed <= when) {
            return Ok(false);
        }
        let now = now();
        if when.is_nan() || when <= now {
            return Ok(true);
        }
        let when = when.min(now + LONGEST_WAIT);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "within a day of the clock's own value"
        )]
        let nanos = (when * 1e9).ceil() as i64;
        // One more for the conversion: a timer is never early.
        let nanos = nanos + 1;
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: nanos / NANOS, tv_nsec: nanos % NANOS },
        };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &value)?;
        self.armed = Some(when);
        Ok(false)
    }
}
