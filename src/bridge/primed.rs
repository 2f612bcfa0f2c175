//! A stand-in for a coroutine whose next step is already taken.

use std::cell::{Cell, RefCell};

use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::python::lane_bound::LaneBound;

/// What a step came to.
pub(super) enum Taken {
    /// The coroutine waits for this.
    Yielded(Py<PyAny>),
    /// It returned.
    Returned(Py<PyAny>),
    /// It raised.
    Raised(PyErr),
}

/// Gives a Task the step that was taken on its behalf, as if the Task had taken it just now.
///
/// A Task that was asked to cancel meanwhile throws instead of asking for the next value. What
/// asyncio would have done, had the request come during the step, is in each case:
///
/// * the coroutine waits: the Task waits too, then cancels what it waits for (which is the
///   caller's part, see [`Primed::was_thrown_at`]);
/// * it returned: the Task is cancelled;
/// * it raised: the exception stands.
#[pyclass(frozen, weakref, module = "treadle._treadle")]
pub struct Primed {
    state: LaneBound<State>,
}

struct State {
    taken: RefCell<Option<Taken>>,
    thrown_at: Cell<bool>,
    /// Whose step it is: what it is asked for by those who name the Task's coroutine.
    coroutine: RefCell<Option<Py<PyAny>>>,
}

impl Primed {
    pub(super) fn new() -> Self {
        Self {
            state: LaneBound::new(State {
                taken: RefCell::new(None),
                thrown_at: Cell::new(false),
                coroutine: RefCell::new(None),
            }),
        }
    }

    /// Sets what the next step gives.
    pub(super) fn prime(&self, taken: Taken) {
        if let Some(state) = self.state.get() {
            state.thrown_at.set(false);
            state.taken.replace(Some(taken));
        }
    }

    /// Whose step that is, or that it is over.
    pub(super) fn stand_in_for(&self, coroutine: Option<Py<PyAny>>) {
        if let Some(state) = self.state.get() {
            state.coroutine.replace(coroutine);
        }
    }

    /// Whether the Task threw something into the last step.
    pub(super) fn was_thrown_at(&self) -> bool {
        self.state.get().is_some_and(|state| state.thrown_at.get())
    }

    fn step(&self, thrown: Option<PyErr>) -> PyResult<Py<PyAny>> {
        let state = self.state.get();
        let taken = state.and_then(|state| {
            state.thrown_at.set(thrown.is_some());
            state.taken.take()
        });
        match (taken, thrown) {
            (Some(Taken::Yielded(value)), _) => Ok(value),
            (Some(Taken::Returned(value)), None) => Err(PyStopIteration::new_err((value,))),
            (Some(Taken::Raised(error)), _) => Err(error),
            (_, Some(thrown)) => Err(thrown),
            (None, None) => Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine")),
        }
    }
}

#[pymethods]
impl Primed {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> PyResult<Py<PyAny>> {
        self.step(None)
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        self.step(None)
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw(
        &self,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        self.step(Some(PyErr::from_value(value.unwrap_or(error))))
    }

    fn close(&self) {}

    /// The coroutine's: a Task that complains in this step names it.
    fn __getattr__(&self, py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
        let coroutine = self.state.get().and_then(|state| {
            state.coroutine.borrow().as_ref().map(|coroutine| coroutine.clone_ref(py))
        });
        match coroutine {
            Some(coroutine) => coroutine.getattr(py, name),
            None => Err(PyAttributeError::new_err(name.clone().unbind())),
        }
    }
}
