//! Watches lanes that serve: tells when one no longer comes to anything new, and when it goes on.
//!
//! One thread calls [`StallWatch::wait`], and sleeps there detached from the interpreter: it looks at
//! the lanes' beats a few times per limit, without the interpreter and without a lock that a lane
//! takes. So a healthy server does not notice it, whatever its lanes do. `stop` may be called by any
//! thread.
//!
//! A lane that sleeps, or whose loop has ended, is fine however long that takes. Of one that is awake,
//! or waits for the interpreter, the beat must change. A beat is known to stand still only from the
//! first look that found it so; lengths are therefore short by up to the time between two looks, and
//! never too long.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::stats::Meter;
use crate::telemetry::{Attendance, LaneMeter};

/// Looks within the limit. More cost more, fewer tell later.
const LOOKS: u32 = 4;
/// Looks that are this many times later than planned tell of the watcher, not of the lanes: the
/// process was stopped, the machine slept.
const OVERSLEPT: u32 = 3;

/// One lane as the watcher sees it.
struct Watched {
    meter: Arc<LaneMeter>,
    beat: u64,
    /// The first look that found this beat.
    since: Instant,
    /// Whether it has been told that the lane stands still.
    told: bool,
}

struct State {
    lanes: Vec<Watched>,
    /// The lane to look at next: what one look finds is told one by one.
    next: usize,
    looked: Instant,
    stopped: bool,
}

/// What `wait` tells: (lane's position, whether it stands still, for how many seconds it has or did,
/// whether it waits for the interpreter, its thread, its route counted from 1, its request).
type News = (usize, bool, f64, bool, u64, u32, u64);

/// The watcher of some lanes.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct StallWatch {
    limit: Duration,
    state: Mutex<State>,
    stop: Condvar,
}

impl StallWatch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep_and_look(&self) -> Option<News> {
        let pause = self.limit / LOOKS;
        let mut state = self.state();
        loop {
            if let Some(news) = state.look(self.limit) {
                return Some(news);
            }
            if state.stopped {
                return None;
            }
            let planned = state.looked + pause;
            let (woken, _) = self
                .stop
                .wait_timeout_while(state, planned.saturating_duration_since(Instant::now()), |s| {
                    !s.stopped
                })
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            let now = Instant::now();
            if now > planned + pause * OVERSLEPT {
                state.forgive(now);
            }
            state.looked = now;
            state.next = 0;
        }
    }
}

impl State {
    /// The next news of this look, if there is any.
    fn look(&mut self, limit: Duration) -> Option<News> {
        let now = self.looked;
        while let Some(lane) = self.lanes.get_mut(self.next) {
            self.next += 1;
            let news = lane.look(now, limit);
            if news.is_some() {
                return news;
            }
        }
        None
    }

    /// Nobody is to blame for the time that the watcher missed.
    fn forgive(&mut self, now: Instant) {
        for lane in self.lanes.iter_mut().filter(|lane| !lane.told) {
            lane.since = now;
        }
    }
}

impl Watched {
    fn look(&mut self, now: Instant, limit: Duration) -> Option<News> {
        // The beat first: whatever changes the attendance changes it too.
        let beat = self.meter.beat.get();
        let attendance = self.meter.attendance();
        let goes_on =
            beat != self.beat || matches!(attendance, Attendance::Parked | Attendance::Away);
        let stood = now.saturating_duration_since(self.since);
        if goes_on {
            self.beat = beat;
            self.since = now;
            let was_told = std::mem::replace(&mut self.told, false);
            return was_told.then(|| self.news(false, stood, attendance));
        }
        if self.told || stood < limit {
            return None;
        }
        self.told = true;
        Some(self.news(true, stood, attendance))
    }

    fn news(&self, stalled: bool, stood: Duration, attendance: Attendance) -> News {
        let waits = attendance == Attendance::Attaching;
        let (route, request) = self.meter.attended();
        let thread = self.meter.thread.get();
        (self.meter.index, stalled, stood.as_secs_f64(), waits, thread, route, request)
    }
}

#[pymethods]
impl StallWatch {
    /// Watches `meters` for beats that stand still for `limit` seconds.
    #[new]
    fn new(meters: Vec<PyRef<'_, Meter>>, limit: f64) -> PyResult<Self> {
        let limit = Duration::try_from_secs_f64(limit)
            .ok()
            .filter(|limit| !limit.is_zero())
            .ok_or_else(|| PyValueError::new_err("the limit must be greater than 0"))?;
        let now = Instant::now();
        let lanes = meters
            .into_iter()
            .map(|meter| meter.shared())
            .map(|meter| Watched { beat: meter.beat.get(), meter, since: now, told: false })
            .collect();
        let state = State { lanes, next: usize::MAX, looked: now, stopped: false };
        Ok(Self { limit, state: Mutex::new(state), stop: Condvar::new() })
    }

    /// Waits until a lane stands still, or goes on after that was told; `None` after `stop`, once
    /// what had happened by then is told. One thread at a time.
    fn wait(&self, py: Python<'_>) -> Option<News> {
        py.detach(|| self.sleep_and_look())
    }

    /// Has `wait` look once more and end; from any thread.
    fn stop(&self, py: Python<'_>) {
        // Detached: the waiting thread holds the lock while it looks.
        py.detach(|| self.state().stopped = true);
        self.stop.notify_all();
    }
}
