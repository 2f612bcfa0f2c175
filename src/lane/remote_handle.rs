//! What `call_soon_threadsafe` gives back.
//!
//! # Why a cancelled callback does not run on
//!
//! The turn says that the callback runs ([`Run::thread`], under its lock), *then* takes its own
//! reference to it (under the handle's lock), runs it, and says that it has ended. A cancellation
//! takes the callback away, *then* looks whether it runs, and waits for the end. Whoever has the
//! handle's lock first decides: either the turn finds nothing to run, or it has said already that it
//! runs what is taken away, and is waited for. (A cancellation looks before it takes, too: what a
//! callback raises that runs is then reported with its name.)
//!
//! Nobody who waits holds a lock, nor the interpreter, so any number may wait for one callback. A
//! callback that cancels itself does not wait: its thread is the one that runs it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::handle::{Handle, asyncio_class};
use crate::python::lane_bound::this_thread;

static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A callback from another thread.
///
/// As `asyncio` has it since 3.14: `cancel` and `cancelled` on another thread wait for a callback
/// that runs at the moment, so that afterwards it has ended or will not begin.
#[pyclass(frozen, extends = Handle, weakref, module = "treadle._treadle")]
pub struct RemoteHandle {
    run: Mutex<Run>,
    ended: Condvar,
}

/// The callback of a [`RemoteHandle`] while it runs.
#[derive(Default)]
struct Run {
    /// The thread that runs it now, or 0.
    thread: usize,
    /// How many threads wait for its end. Nearly always none, and telling nobody is a system call.
    waiting: usize,
}

impl RemoteHandle {
    pub(super) fn new(handle: Handle) -> PyClassInitializer<Self> {
        let remote = Self { run: Mutex::default(), ended: Condvar::new() };
        PyClassInitializer::from(handle).add_subclass(remote)
    }

    fn now(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a callback that another thread runs.
    fn wait(&self, py: Python<'_>) {
        let here = this_thread();
        let runs_elsewhere = |run: &mut Run| run.thread != 0 && run.thread != here;
        if runs_elsewhere(&mut self.now()) {
            py.detach(|| {
                let mut run = self.now();
                run.waiting += 1;
                let run = self.ended.wait_while(run, runs_elsewhere);
                run.unwrap_or_else(PoisonError::into_inner).waiting -= 1;
            });
        }
    }

    /// Runs the callback, unless it was cancelled, and reports what it raises.
    ///
    /// # Errors
    /// What ends the loop.
    pub(super) fn run_queued(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().now().thread = this_thread();
        let outcome = Handle::_run(slf.as_super());
        let mut run = slf.get().now();
        run.thread = 0;
        if run.waiting > 0 {
            slf.get().ended.notify_all();
        }
        outcome
    }
}

#[pymethods]
impl RemoteHandle {
    /// Takes the callback out of its turn; waits for it where it runs already.
    fn cancel(slf: &Bound<'_, Self>) {
        slf.get().wait(slf.py());
        slf.as_super().get().take(slf.py());
        slf.get().wait(slf.py()); // it may have begun between the two
    }

    /// Whether `cancel` was called; waits for a callback that runs.
    fn cancelled(slf: &Bound<'_, Self>) -> bool {
        slf.get().wait(slf.py());
        slf.as_super().get().is_cancelled()
    }

    /// For `isinstance(handle, asyncio.Handle)`.
    #[getter(__class__)]
    fn class(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        asyncio_class(py, &CLASS, &["_ThreadSafeHandle"])
    }
}
