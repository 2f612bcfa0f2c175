//! Waits for a moment with the kernel's precision.
//!
//! A timerfd: Tokio's own timers count in milliseconds, which would make bunches of the requests of
//! a high rate. The runtime watches it as what it is to a reader, a pipe that has eight bytes in it
//! when the time has come.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What is nearer than this is awaited awake: to sleep and to be woken takes as long.
const AWAKE: Duration = Duration::from_micros(20);
/// The longest sleep at once.
const LONGEST: Duration = Duration::from_secs(3600);

pub(crate) struct Alarm {
    timer: pipe::Receiver,
    handle: OwnedFd,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Two handles on one timer: the runtime's, and one to set it by.
        let handle = timer.try_clone()?;
        Ok(Self { timer: pipe::Receiver::from_owned_fd_unchecked(timer)?, handle })
    }

    /// Returns at `moment` or a little later.
    pub(crate) async fn until(&mut self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if left < AWAKE {
                tokio::task::yield_now().await;
            } else {
                self.sleep(left.min(LONGEST)).await?;
            }
        }
    }

    async fn sleep(&mut self, time: Duration) -> io::Result<()> {
        let value = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: time.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.handle, TimerfdTimerFlags::empty(), &value)?;
        // Eight bytes come. Room for more tells the runtime that there is no need to look for them.
        self.timer.read(&mut [0; 16]).await.map(drop)
    }
}
