//! Signal handlers of Python's that run while the lane waits.
//!
//! What a handler raises (`KeyboardInterrupt`, the exception of a time limit) has to come out of the
//! run, as it comes out of the `select` of asyncio's loop; in a callback it would be reported and
//! forgotten. So the lane runs the handlers itself, when it is woken and before any callback, and
//! the turn raises what they raised. Handlers run on the main thread only.
//!
//! Written and taken by the lane's own thread; the lock is there because Tokio's hooks may travel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

/// What signal handlers raised.
#[derive(Default)]
pub(super) struct Interrupts {
    on_main: AtomicBool,
    /// There is something in `raised`.
    have_raised: AtomicBool,
    raised: Mutex<Option<PyErr>>,
}

impl Interrupts {
    /// Whether the loop runs on the main thread.
    pub(super) fn listen(&self, on_main: bool) {
        self.on_main.store(on_main, Ordering::Relaxed);
    }

    /// The thread is awake and attached: runs the handlers of signals that arrived. True when one
    /// raised: the turn has to run, whatever else woke the lane.
    pub(super) fn wake(&self) -> bool {
        if self.on_main.load(Ordering::Relaxed) {
            Python::attach(|py| self.run_handlers(py));
        }
        self.have_raised()
    }

    /// Whether a handler raised what the turn has not taken yet.
    pub(super) fn have_raised(&self) -> bool {
        self.have_raised.load(Ordering::Relaxed)
    }

    fn run_handlers(&self, py: Python<'_>) {
        if let Err(error) = py.check_signals() {
            let former = self.raised.lock().unwrap_or_else(PoisonError::into_inner).replace(error);
            self.have_raised.store(true, Ordering::Relaxed);
            drop(former);
        }
    }

    /// Runs the handlers of signals that arrived meanwhile.
    ///
    /// # Errors
    /// What they raised, now or when the lane woke.
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        if !self.on_main.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.run_handlers(py);
        self.have_raised.store(false, Ordering::Relaxed);
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.map_or(Ok(()), Err)
    }
}
