//! The turn: the Tokio task that runs the Python side of a lane.
//!
//! It is spawned for each `run_forever` and ends with it, on the loop's thread. The queues belong to
//! the loop ([`LoopCore`]); the turn owns what watches for it: the descriptor of the loop's epoll,
//! and the alarm. Who wakes it: a callback that is pushed, from any thread; a timer that is nearer
//! than the others; the two descriptors; what other threads or Rust futures have for it
//! ([`Home`](crate::bridge::Home)).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;

use super::LaneCore;
use super::alarm::Alarm;
use super::clock;
use super::handle::Handle;
use super::loop_core::LoopCore;
use super::nudge::Nudging;
use super::polling::{self, Look};
use super::ready::Entry;
use super::remote_handle::RemoteHandle;
use super::timers::Timed;
use crate::bridge::was_answered;
use crate::python::socket::os_error;
use crate::telemetry::{Clock, Steps};

/// Rounds of the ready queue go on for as long before sockets, timers and other tasks of the lane
/// come to their turn: looking at them costs more than most callbacks do. The clock is looked at
/// after every round: how long the next one takes cannot be told from those before it.
const LONGEST_TURN: Duration = Duration::from_micros(50);

/// Drives `event_loop` until it is stopped.
pub(super) async fn run(event_loop: &Bound<'_, LoopCore>, core: Rc<LaneCore>) -> PyResult<()> {
    event_loop.get().ready.count_for(&core.meter);
    let _running = event_loop.get().ready.begin();
    let refused = |error| os_error(event_loop.py(), error);
    let driver = LoopDriver {
        event_loop: event_loop.clone().unbind(),
        core,
        fd: event_loop.get().descriptors.share().and_then(Nudging::new).map_err(refused)?,
        fd_pending: true,
        alarm: Alarm::new().map_err(refused)?,
        batch: VecDeque::new(),
        due: Vec::new(),
        longest_turn: None,
        polls: polling::is_on(),
    };
    // A task rather than the root future: Tokio's queue then puts it behind the connections that
    // are ready now, so one turn serves what all of them left.
    let outcome = tokio::task::spawn_local(driver).await;
    outcome.map_err(|error| PyRuntimeError::new_err(format!("the lane's turn failed: {error}")))?
}

struct LoopDriver {
    event_loop: Py<LoopCore>,
    core: Rc<LaneCore>,
    /// Readable when a watched descriptor is ready.
    fd: Nudging,
    /// The last look at the descriptors found something; level-triggered, so look again.
    fd_pending: bool,
    alarm: Alarm,
    /// The callbacks of this turn; empty between turns.
    batch: VecDeque<Entry>,
    /// The timers of this turn, on their way into the queue; empty between turns.
    due: Vec<Timed>,
    /// [`LONGEST_TURN`] in ticks of the lane's clock, which costs a third of the system's.
    longest_turn: Option<u64>,
    /// The lane may poll before it sleeps.
    polls: bool,
}

impl LoopDriver {
    /// Whether a turn that began at `stamp` is to end.
    fn is_long(&mut self, clock: Clock, stamp: u64) -> bool {
        if self.longest_turn.is_none() {
            self.longest_turn = clock.ticks_in(LONGEST_TURN);
        }
        // As long as nobody knows, every turn is long enough at its first look.
        clock.now().saturating_sub(stamp) >= self.longest_turn.unwrap_or_default()
    }

    /// Whether the turn was woken for a look at the sockets only, and they had nothing for it.
    fn looks_again(&mut self, cx: &mut Context<'_>) -> PyResult<bool> {
        let look = polling::look(cx);
        if look == Look::No {
            return Ok(false);
        }
        self.fd_pending |= self.fd.came(cx)?;
        let is_due = self.alarm.poll(cx)?;
        let core = self.event_loop.get();
        if self.fd_pending || is_due {
            polling::paid();
            return Ok(false);
        }
        let has_mail = self.core.home.end_turn() || self.core.interrupts.wake();
        if has_mail || !core.ready.is_empty() || core.is_stopping() {
            polling::stop();
            return Ok(false);
        }
        if look == Look::Last {
            return Ok(false);
        }
        // Whoever wants the interpreter has it now.
        Python::attach(|py| py.detach(|| ()));
        core.ready.keep_turning();
        let _ = pin!(tokio::task::yield_now()).poll(cx);
        Ok(true)
    }

    /// One turn. `Ready` when the loop was stopped or a callback raised what must end it.
    fn turn(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> PyResult<Poll<()>> {
        let meter = self.core.meter.clone();
        let stamp = meter.clock.now();
        let event_loop = self.event_loop.clone_ref(py);
        let event_loop = event_loop.bind(py);
        let core = event_loop.get();
        self.fd_pending |= self.fd.came(cx).map_err(|error| os_error(py, error))?;
        self.alarm.poll(cx).map_err(|error| os_error(py, error))?;
        if self.fd_pending {
            self.fd_pending =
                core.descriptors.collect(py, &core.ready).map_err(|error| os_error(py, error))?;
            self.core.interrupts.check(py)?;
        } else if self.core.interrupts.have_raised() {
            self.core.interrupts.check(py)?;
        }
        let late = |late| meter.timer_ran_late(late);
        core.timers.take_due(event_loop, &mut self.due, late, |entry| core.ready.append(entry))?;
        for round in 1_u32.. {
            let went_on = self.core.home.open_mail(py);
            // Callbacks that these add wait for the next round.
            core.ready.take(&mut self.batch);
            if round == 1 {
                meter.turn_begins(stamp, self.batch.len());
            }
            meter.callbacks.add(self.batch.len() as u64);
            if self.batch.is_empty() && !went_on {
                break;
            }
            while let Some(entry) = self.batch.pop_front() {
                // A handler's `sys.exit()` is one failed request: the turn goes on.
                if let Err(error) = run_entry(event_loop, entry, self.core.home.steps())
                    && !was_answered(&error, py)
                {
                    core.ready.put_back(std::mem::take(&mut self.batch));
                    return Err(error);
                }
            }
            if core.is_stopping() || core.timers.has_overdue() || self.is_long(meter.clock, stamp) {
                break;
            }
        }
        core.turn_end.call(py);
        self.core.shelter.empty();
        self.core.spare_context.forget();
        meter.turn_ends(stamp);
        if core.is_stopping() {
            return Ok(Poll::Ready(()));
        }
        core.ready.end_turn();
        let nearest = clock::on_system_clock(event_loop, core.timers.nearest(py))?;
        let is_due = self.alarm.arm(nearest).map_err(|error| os_error(py, error))?;
        let has_mail = self.core.home.end_turn();
        if is_due || self.fd_pending || has_mail || !core.ready.is_empty() {
            core.ready.keep_turning();
            // Not a plain wake-up: Tokio polls its sockets before it comes back to a deferred one.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Ok(Poll::Pending)
    }
}

/// Calls one callback. What it raises is reported, unless it ends the loop.
fn run_entry(event_loop: &Bound<'_, LoopCore>, entry: Entry, steps: &Steps) -> PyResult<()> {
    let py = event_loop.py();
    match entry {
        Entry::Once(handle) => Handle::run_queued(py, handle, &event_loop.get().ready, steps),
        Entry::Wakeup(wakeup) => wakeup.run(event_loop, steps),
        Entry::Resumed(resumption) => resumption.resume(py),
        Entry::Remote(handle) => RemoteHandle::run_queued(handle.bind(py)),
        // In debug mode it is timed: a watched descriptor's, or one that was made before.
        Entry::Native(handle) if event_loop.get().is_debugging() => {
            event_loop.call_method1(intern!(py, "_run_handle"), (handle,)).map(drop)
        }
        Entry::Native(handle) => Handle::_run(handle.bind(py)),
        Entry::Foreign(handle) => {
            event_loop.call_method1(intern!(py, "_run_handle"), (handle,)).map(drop)
        }
    }
}

/// Whether an exception out of a callback ends the loop rather than being reported.
pub(super) fn ends_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

impl Future for LoopDriver {
    type Output = PyResult<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if this.polls {
            match this.looks_again(cx) {
                Ok(false) => {}
                Ok(true) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let turn = Python::attach(|py| {
            this.event_loop.get().ready.begin_turn(cx.waker());
            this.core.home.begin_turn(cx.waker());
            this.turn(py, cx)
        });
        match turn {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
