//! The turn: the Tokio task that runs the Python side of a lane.
//!
//! It is spawned for each `run_forever` and ends with it. It owns nothing of the loop but
//! references to its queues; the loop's own thread is the only one that takes from them. Another
//! thread only appends to the ready queue (a deque's append is atomic) and then wakes this task:
//! an entry that was appended before the wake-up is seen by the poll that the wake-up causes.

use std::future::Future;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use tokio::time::Sleep;

use super::LaneCore;
use super::handle::Handle;
use super::loop_core::LoopCore;
use super::remote::Remote;
use crate::bridge::{Turn, was_answered};
use crate::python::call::call_no_args;
use crate::python::fd::{Watched, watch};

/// asyncio sweeps cancelled timers only in `_run_once`; it gets its chance whenever the heap has
/// grown by this much since.
const TIMERS_BETWEEN_SWEEPS: usize = 128;

/// The longest the turn sleeps for a timer, as in asyncio: clocks overflow beyond.
const LONGEST_SLEEP: Duration = Duration::from_secs(24 * 3600);

/// Drives `event_loop` until it is stopped; `fd` is its selector's descriptor.
pub(super) async fn run(
    event_loop: &Bound<'_, LoopCore>,
    fd: RawFd,
    remote: Arc<Remote>,
    core: Rc<LaneCore>,
) -> PyResult<()> {
    let driver = LoopDriver::new(event_loop, fd, remote, core)?;
    let _entered = driver.turn.enter();
    // A task rather than the root future: Tokio's queue then puts it behind the connections that
    // are ready now, so one turn serves what all of them left.
    tokio::task::spawn_local(driver)
        .await
        .map_err(|error| PyRuntimeError::new_err(format!("the lane's turn failed: {error}")))?
}

struct LoopDriver {
    turn: Rc<Turn>,
    remote: Arc<Remote>,
    core: Rc<LaneCore>,
    event_loop: Py<LoopCore>,
    selector: Py<PyAny>,
    popleft: Py<PyAny>,
    run_once: Py<PyAny>,
    fd: Watched,
    /// The last look at the selector found something; level-triggered, so look again.
    fd_pending: bool,
    sleep: Pin<Box<Sleep>>,
    /// The loop time that `sleep` is set to.
    armed: Option<f64>,
    /// One moment on both clocks: loop time is `time.monotonic()`, in seconds.
    epoch: (Instant, f64),
    /// Length of the timer heap after the last `_run_once`.
    swept_at: usize,
}

impl LoopDriver {
    fn new(
        event_loop: &Bound<'_, LoopCore>,
        fd: RawFd,
        remote: Arc<Remote>,
        core: Rc<LaneCore>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let ready = event_loop.getattr(intern!(py, "_ready"))?;
        let now: f64 = event_loop.call_method0(intern!(py, "time"))?.extract()?;
        Ok(Self {
            popleft: ready.getattr(intern!(py, "popleft"))?.unbind(),
            turn: Rc::new(Turn::new(
                ready.unbind(),
                event_loop.getattr(intern!(py, "_scheduled"))?.unbind(),
            )),
            remote,
            core,
            run_once: event_loop.getattr(intern!(py, "_run_once"))?.unbind(),
            selector: event_loop.getattr(intern!(py, "_selector"))?.unbind(),
            event_loop: event_loop.clone().unbind(),
            fd: watch(fd)?,
            fd_pending: true,
            sleep: Box::pin(tokio::time::sleep(LONGEST_SLEEP)),
            armed: None,
            epoch: (Instant::now(), now),
            swept_at: 0,
        })
    }

    /// One turn. `Ready` when the loop was stopped or a callback raised what must end it.
    fn turn(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> PyResult<Poll<()>> {
        if let Poll::Ready(ready) = self.fd.poll_read_ready(cx) {
            ready?.clear_ready();
            self.fd_pending = true;
        }
        let timer_due = self.armed.is_some() && self.sleep.as_mut().poll(cx).is_ready();
        if timer_due {
            // A fired timer is armed anew even for the same moment: it wakes nobody twice.
            self.armed = None;
        }
        let event_loop = self.event_loop.bind(py).clone();
        let timers = self.turn.scheduled(py).len()?;
        let debug = self.event_loop.get().is_debugging();
        if self.fd_pending || timer_due || debug || timers > self.swept_at + TIMERS_BETWEEN_SWEEPS {
            call_no_args(self.run_once.bind(py))?;
            let found = self.selector.bind(py).getattr(intern!(py, "found"))?;
            self.fd_pending = found.is_truthy()?;
            self.swept_at = event_loop.getattr(intern!(py, "_scheduled"))?.len()?;
        } else {
            self.drain(py)?;
        }
        if event_loop.getattr(intern!(py, "_stopping"))?.is_truthy()? {
            return Ok(Poll::Ready(()));
        }
        let ready = self.turn.ready(py).len()?;
        if self.arm(py, cx)? || ready > 0 || self.fd_pending {
            // Not a plain wake-up: Tokio polls its sockets before it comes back to a deferred one.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
        }
        Ok(Poll::Pending)
    }

    /// Runs the callbacks that are ready now; those they add wait for the next turn.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let popleft = self.popleft.bind(py);
        for _ in 0..self.turn.ready(py).len()? {
            let handle = call_no_args(popleft)?;
            let Ok(native) = handle.cast::<Handle>() else {
                // asyncio's own: a timer, a descriptor, or a call from another thread.
                handle.call_method0(intern!(py, "_run"))?;
                continue;
            };
            if let Err(error) = native.get().run(py) {
                if ends_loop(py, &error) {
                    return Err(error);
                }
                self.event_loop.call_method1(
                    py,
                    intern!(py, "_report_callback_error"),
                    (handle, error.into_value(py)),
                )?;
            }
        }
        Ok(())
    }

    /// Sets the Tokio timer to the nearest deadline; true when that has passed already.
    fn arm(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> PyResult<bool> {
        let scheduled = self.event_loop.bind(py).getattr(intern!(py, "_scheduled"))?;
        let len = scheduled.len()?;
        let when = match len {
            0 => None,
            _ => Some(scheduled.get_item(0)?.getattr(intern!(py, "_when"))?.extract::<f64>()?),
        };
        self.turn.saw_timers(scheduled, len);
        if when == self.armed {
            return Ok(false);
        }
        self.armed = when;
        let Some(when) = when else {
            return Ok(false);
        };
        let wait = Duration::try_from_secs_f64(when - self.epoch.1).unwrap_or_default();
        let deadline = self.epoch.0 + wait.min(LONGEST_SLEEP + self.epoch.0.elapsed());
        self.sleep.as_mut().reset(deadline.into());
        Ok(self.sleep.as_mut().poll(cx).is_ready())
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
        this.turn.set_waker(cx.waker());
        let errands = this.remote.begin(cx.waker());
        let turn = Python::attach(|py| {
            for errand in errands {
                errand(py, &this.core);
            }
            this.turn(py, cx)
        });
        match turn {
            Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
            Ok(Poll::Pending) => Poll::Pending,
            Err(error) if Python::attach(|py| was_answered(&error, py)) => {
                // A handler's `sys.exit()` is one failed request. What is left of the turn follows.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
