//! The callback by which a coroutine that the lane steps waits for a future.
//!
//! It stands in the future where a Task's own would. The loop calls it in the turn after the future
//! is done, in the coroutine's context; a lane knows it and does not need Python for that
//! ([`LaneWakeup::wake`]).
//!
//! # Who owns what
//!
//! The future owns it while it waits, then the loop's queue, then the Task's [`Worker`], which uses
//! it again for the next wait. While it waits it owns the coroutine's [`InLane`]; no other thread
//! sees that. Where the loop has moved to another thread, the Task goes on by itself. The garbage
//! collector does not see that either: whoever waits for the coroutine cancels it or keeps its Task,
//! so it comes to its end, and with it the circle of Task, future and this.
//!
//! [`Worker`]: super::task::Worker

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::intern;
use pyo3::prelude::*;

use super::in_lane::InLane;
use crate::python::call::call_no_args;
use crate::python::lane_bound::LaneBound;

/// Wakes a coroutine that waits for a future.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct LaneWakeup {
    /// The Task's own next step; it keeps the Task.
    step: Py<PyAny>,
    /// `None` while it does not wait.
    waits: LaneBound<RefCell<Option<Rc<InLane>>>>,
}

impl LaneWakeup {
    pub(super) fn new(step: Py<PyAny>) -> Self {
        Self { step, waits: LaneBound::new(RefCell::new(None)) }
    }

    /// Whether it waits for nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.waits.get().is_some_and(|waits| waits.borrow().is_none())
    }

    /// It waits for `in_lane`.
    pub(super) fn wakes(&self, in_lane: Rc<InLane>) {
        if let Some(waits) = self.waits.get() {
            waits.replace(Some(in_lane));
        }
    }

    /// Takes the coroutine's next step: `future` is done, and the coroutine's context is entered.
    ///
    /// # Errors
    /// What ends the loop.
    pub fn wake(slf: Bound<'_, Self>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(waits) = slf.get().waits.get() else {
            return call_no_args(slf.get().step.bind(slf.py())).map(drop);
        };
        let waited = waits.take();
        waited.map_or(Ok(()), |in_lane| in_lane.wake(slf, future))
    }
}

#[pymethods]
impl LaneWakeup {
    /// As asyncio's loops call it; a lane in debug mode does, too.
    fn __call__(slf: Bound<'_, Self>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::wake(slf, future)
    }

    /// What `repr()` of the future says it is.
    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> &Bound<'py, pyo3::types::PyString> {
        intern!(py, "Task.task_wakeup")
    }

    /// The Task, as of a Task's own callback.
    #[getter]
    fn __self__(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let waits = self.waits.get()?.borrow();
        waits.as_ref()?.with_task(py, |task| task.clone().unbind())
    }
}
