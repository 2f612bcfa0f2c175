//! Who is told what became of a coroutine.

use std::rc::Rc;

use pyo3::prelude::*;

use super::waiting::Waiting;

/// What follows the end of a coroutine.
#[must_use]
pub enum Next {
    /// Nothing.
    Done,
    /// This coroutine, in the same context: in the same Task while that takes its first step, in a
    /// Task of its own afterwards ([`Completion::goes_on`]).
    Await(Py<PyAny>),
}

/// The outcome for who keeps it.
pub fn own<'py>(
    py: Python<'py>,
    outcome: &PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(error.clone_ref(py)),
    }
}

/// Told the outcome of a coroutine, once, inside its Task's context, on the lane.
pub trait Completion {
    /// Takes the outcome and says what follows it.
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next;

    /// The lane takes a further step of the coroutine, which gave way; [`Completion::stepped`] follows.
    fn steps(&self) {}

    /// That step is over.
    fn stepped(&self) {}

    /// The coroutine's Task takes all further steps itself; its context is at that address.
    fn left_to_task(&self, context: usize) {
        let _ = context;
    }

    /// What followed runs in this Task now: whoever wants to cancel has to cancel that.
    fn goes_on(&self, py: Python<'_>, waiting: Waiting) {
        let _ = (py, waiting);
    }
}

impl Completion for Rc<dyn Completion> {
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        self.as_ref().complete(py, outcome)
    }

    fn steps(&self) {
        self.as_ref().steps();
    }

    fn stepped(&self) {
        self.as_ref().stepped();
    }

    fn left_to_task(&self, context: usize) {
        self.as_ref().left_to_task(context);
    }

    fn goes_on(&self, py: Python<'_>, waiting: Waiting) {
        self.as_ref().goes_on(py, waiting);
    }
}
