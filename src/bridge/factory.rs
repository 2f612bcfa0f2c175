//! What a lane starts its coroutines with.

use std::rc::Rc;
use std::sync::Arc;

use pyo3::prelude::*;

use super::completion::Completion;
use super::in_lane::ReadyQueue;
use super::scope::Scope;
use super::task::Tasks;
use super::waiting::Waiting;
use crate::telemetry::LaneMeter;

/// Makes Tasks on one lane's loop.
pub struct TaskFactory {
    tasks: Rc<Tasks>,
    meter: Option<Arc<LaneMeter>>,
}

impl TaskFactory {
    /// For `event_loop`, which runs on the calling thread; a lane's Tasks are counted, and its loop
    /// has a ready queue that is reached without Python.
    ///
    /// # Errors
    /// When asyncio cannot be imported.
    pub fn new(
        event_loop: &Bound<'_, PyAny>,
        ready: Option<Rc<dyn ReadyQueue>>,
        meter: Option<Arc<LaneMeter>>,
    ) -> PyResult<Self> {
        Ok(Self { tasks: Rc::new(Tasks::new(event_loop, ready)?), meter })
    }

    /// The loop that the Tasks run on.
    pub fn event_loop(&self) -> &Py<PyAny> {
        &self.tasks.event_loop
    }

    /// Starts `coroutine` in a Task of its own and takes its first step. `None` when it ended in
    /// it, and so did all that followed; otherwise it waits, in that Task.
    ///
    /// `first` is told of what ends in the first step, what `lasting` then gives of all the rest.
    ///
    /// # Errors
    /// Nobody was told anything, and nothing runs: `RuntimeError` when the loop does not run on
    /// this thread, `TypeError` when `coroutine` is none.
    pub fn start(
        &self,
        py: Python<'_>,
        coroutine: Py<PyAny>,
        scope: Scope<'_>,
        first: &dyn Completion,
        lasting: impl FnOnce() -> Rc<dyn Completion>,
    ) -> PyResult<Option<Waiting>> {
        if let Some(meter) = &self.meter {
            meter.tasks_started.add(1);
        }
        let begun = self.tasks.begin(py, coroutine.into_bound(py), scope, first)?;
        let Some(waiting) = begun else {
            return Ok(None);
        };
        if let Some(meter) = &self.meter {
            meter.tasks_suspended.add(1);
        }
        if let Err(error) = self.tasks.listen(py, &waiting, lasting()) {
            // No memory for a listener: the Task goes, its outcome with it.
            error.write_unraisable(py, None);
            waiting.cancel(py);
        }
        Ok(Some(waiting))
    }

    /// Whether asyncio is not called for what it keeps for a thread.
    #[cfg(test)]
    pub fn knows_thread(&self) -> bool {
        self.tasks.knows_thread()
    }

    /// Takes a Task back that its owner needs no more; one that ended serves again if nobody
    /// noticed it. Gives the context that it ran in, if nothing of asyncio's had to do with it.
    pub fn reuse<'py>(&self, py: Python<'py>, waiting: Waiting) -> Option<Bound<'py, PyAny>> {
        self.tasks.reuse(py, waiting).unwrap_or_else(|error| {
            error.write_unraisable(py, None);
            None
        })
    }
}
