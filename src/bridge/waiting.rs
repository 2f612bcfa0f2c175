//! The Task of a coroutine that suspended, and who takes its next step.
//!
//! Owned by whoever started the coroutine, on the thread of its loop.

use std::rc::Rc;

use pyo3::intern;
use pyo3::prelude::*;

use super::completion::Completion;
use super::future::cancel;
use super::in_lane::InLane;
use super::listener::Listener;
use super::task::{Tasks, Worker};
use crate::python::call::call_method_one;

/// The Task of a coroutine that suspended.
pub struct Waiting(Suspended);

enum Suspended {
    /// The Task steps it.
    InTask {
        worker: SteppedBy,
        /// The address of its context.
        context: usize,
    },
    /// The lane steps it, until something happens to its Task.
    InLane(Rc<InLane>),
}

enum SteppedBy {
    Lane(Worker),
    /// asyncio made it, and stepped it first.
    Asyncio(Py<PyAny>),
}

impl Waiting {
    pub(super) fn of_lane(worker: Worker, context: usize) -> Self {
        Self(Suspended::InTask { worker: SteppedBy::Lane(worker), context })
    }

    pub(super) fn of_asyncio(task: Bound<'_, PyAny>, context: usize) -> Self {
        Self(Suspended::InTask { worker: SteppedBy::Asyncio(task.unbind()), context })
    }

    pub(super) fn in_lane(in_lane: Rc<InLane>) -> Self {
        Self(Suspended::InLane(in_lane))
    }

    /// Cancels the Task, unless it has ended.
    pub fn cancel(&self, py: Python<'_>) {
        match &self.0 {
            Suspended::InTask { worker: SteppedBy::Lane(worker), .. } => {
                cancel(worker.task.bind(py));
            }
            Suspended::InTask { worker: SteppedBy::Asyncio(task), .. } => cancel(task.bind(py)),
            Suspended::InLane(in_lane) => in_lane.with_task(py, cancel).unwrap_or_default(),
        }
    }

    /// The address of the context that is the Task's own: no other has it while the Task is there.
    pub fn context(&self) -> usize {
        match &self.0 {
            Suspended::InTask { context, .. } => *context,
            Suspended::InLane(in_lane) => in_lane.context(),
        }
    }

    /// Whether the lane takes the next step; it says so when it does no more
    /// ([`Completion::left_to_task`]).
    pub fn is_in_lane(&self) -> bool {
        matches!(self.0, Suspended::InLane(_))
    }

    /// The Task, for whoever keeps it; `None` when it has ended.
    pub fn into_task(self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self.0 {
            Suspended::InTask { worker: SteppedBy::Lane(worker), .. } => {
                Some(worker.task.into_inner())
            }
            Suspended::InTask { worker: SteppedBy::Asyncio(task), .. } => Some(task),
            Suspended::InLane(in_lane) => in_lane.with_task(py, |task| task.clone().unbind()),
        }
    }
}

impl Tasks {
    /// Has `completion` told what becomes of the Task.
    pub(super) fn listen(
        self: &Rc<Self>,
        py: Python<'_>,
        waiting: &Waiting,
        completion: Rc<dyn Completion>,
    ) -> PyResult<()> {
        match &waiting.0 {
            Suspended::InTask { worker: SteppedBy::Lane(worker), .. } => {
                self.listen_to(py, worker, completion)
            }
            Suspended::InTask { worker: SteppedBy::Asyncio(task), .. } => {
                let listener = Py::new(py, Listener::new(self.clone(), completion))?;
                let name = intern!(py, "add_done_callback");
                call_method_one(task.bind(py), name, listener.bind(py)).map(drop)
            }
            Suspended::InLane(in_lane) => {
                in_lane.listen(completion);
                Ok(())
            }
        }
    }

    /// Makes a Task that has ended serve again, if a result is all that came of it; gives its context
    /// if the lane stepped it to its end.
    pub(super) fn reuse<'py>(
        &self,
        py: Python<'py>,
        waiting: Waiting,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let worker = match waiting.0 {
            Suspended::InTask { worker: SteppedBy::Lane(worker), .. } => worker,
            Suspended::InTask { worker: SteppedBy::Asyncio(_), .. } => return Ok(None),
            Suspended::InLane(in_lane) => match in_lane.take() {
                Some(worker) => worker,
                None => {
                    return Ok(Rc::into_inner(in_lane).map(|ended| ended.into_context(py)));
                }
            },
        };
        let Some(layout) = self.known_layout() else { return Ok(None) };
        self.asyncio.ended(py, &worker.task)?;
        if let Some(result) = layout.renew(py, &worker.task) {
            drop(result);
            self.park(py, layout, worker);
        }
        Ok(None)
    }
}
