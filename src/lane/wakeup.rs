//! A Task's wake-up in the ready queue: its future is done, and has the loop call the Task.
//!
//! A future drops the handle that `call_soon` gives it, so none is made: what is to be called lies in
//! the queue itself. Where the lane steps the coroutine, nothing of Python is called at all.

use pyo3::prelude::*;

use super::handle::{Args, Handle, report};
use super::loop_core::LoopCore;
use super::turn::ends_loop;
use crate::bridge::LaneWakeup;
use crate::python::call::call_one;
use crate::python::context;
use crate::telemetry::Steps;

/// What is called, with what, and where.
pub(super) struct Wakeup {
    pub(super) callback: Py<PyAny>,
    pub(super) future: Py<PyAny>,
    pub(super) context: Py<PyAny>,
}

impl Wakeup {
    /// Calls it, and reports what it raises.
    ///
    /// # Errors
    /// What ends the loop.
    pub(super) fn run(self, event_loop: &Bound<'_, LoopCore>, steps: &Steps) -> PyResult<()> {
        let py = event_loop.py();
        // On a thread that is attached: `Py` would look that up for each that is dropped.
        let (callback, future) = (self.callback.into_bound(py), self.future.into_bound(py));
        let context = self.context.into_bound(py);
        let (callback, outcome) = match callback.cast_into_exact::<LaneWakeup>() {
            Ok(wakeup) => {
                // Given away, so that it can be used again: what a report would name is its class.
                let class = wakeup.get_type().into_any();
                (class, context::run(&context, || LaneWakeup::wake(wakeup, &future)))
            }
            Err(other) => {
                let callback = other.into_inner();
                let step = steps.enter(context.as_ptr().addr());
                let outcome = context::run(&context, || call_one(&callback, &future)).map(drop);
                if let Some(step) = step {
                    steps.leave(step);
                }
                (callback, outcome)
            }
        };
        match outcome {
            Err(error) if !ends_loop(py, &error) => {
                let args = Args::One(future.unbind());
                let handle = Handle::new(event_loop, callback, args, context);
                report(event_loop, &Bound::new(py, handle)?, error)
            }
            outcome => outcome,
        }
    }
}
