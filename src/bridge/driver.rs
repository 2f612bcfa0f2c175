//! The coroutine object that a Task steps on behalf of the user's coroutine.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::python::call::call_one;
use crate::python::coroutine::{Step, send};
use crate::python::lane_bound::LaneBound;

/// What the Task does after a coroutine ended.
#[must_use]
pub enum Next {
    /// The Task ends.
    Done,
    /// The Task goes on with this coroutine, in the same context.
    Await(Py<PyAny>),
    /// The Task ends with this exception (its cancellation, for one).
    Raise(PyErr),
}

/// Told the outcome of a driven coroutine, once, inside its Task, on the lane.
pub trait Completion {
    /// Takes the outcome and says how the Task goes on.
    fn complete(&self, py: Python<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> Next;
}

/// Steps a coroutine, then reports what became of it.
#[pyclass(frozen, weakref, module = "treadle._treadle")]
pub struct Driver {
    /// What the Task was started with; introspection goes here, from any thread.
    coroutine: Py<PyAny>,
    state: LaneBound<State>,
}

struct State {
    /// The coroutine being stepped; `None` once the Task is to end.
    current: RefCell<Option<Py<PyAny>>>,
    completion: Rc<dyn Completion>,
}

impl Driver {
    fn state(&self) -> PyResult<&State> {
        self.state
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("this coroutine belongs to another lane"))
    }

    /// One step: resumes with `None`, or throws `error` in.
    fn step(&self, py: Python<'_>, error: Option<Py<PyAny>>) -> PyResult<Option<Py<PyAny>>> {
        let state = self.state()?;
        let mut error = error;
        loop {
            let Some(current) = state.current.borrow().as_ref().map(|c| c.clone_ref(py)) else {
                return Err(PyRuntimeError::new_err("cannot reuse already awaited coroutine"));
            };
            let current = current.into_bound(py);
            let outcome = match error.take() {
                None => match send(&current, py.None().bind(py)) {
                    Step::Yielded(value) => return Ok(Some(value.unbind())),
                    Step::Returned(value) => Ok(value),
                    Step::Raised(error) => Err(error),
                },
                Some(error) => match throw(&current, error.bind(py)) {
                    Ok(value) => return Ok(Some(value.unbind())),
                    Err(raised) => match stop_value(py, &raised)? {
                        Some(value) => Ok(value),
                        None => Err(raised),
                    },
                },
            };
            match state.completion.complete(py, outcome) {
                Next::Done => {
                    state.current.replace(None);
                    return Ok(None);
                }
                Next::Raise(error) => {
                    state.current.replace(None);
                    return Err(error);
                }
                Next::Await(coroutine) => {
                    state.current.replace(Some(coroutine));
                }
            }
        }
    }
}

/// Throws `error` into a coroutine.
fn throw<'py>(
    coroutine: &Bound<'py, PyAny>,
    error: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    call_one(&coroutine.getattr(pyo3::intern!(coroutine.py(), "throw"))?, error)
}

/// The value of a `StopIteration`; `None` for any other exception.
fn stop_value<'py>(py: Python<'py>, error: &PyErr) -> PyResult<Option<Bound<'py, PyAny>>> {
    if error.is_instance_of::<pyo3::exceptions::PyStopIteration>(py) {
        error.value(py).getattr(pyo3::intern!(py, "value")).map(Some)
    } else {
        Ok(None)
    }
}

#[pymethods]
impl Driver {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py, None)
    }

    fn send(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        self.step(py, None)?.ok_or_else(|| pyo3::exceptions::PyStopIteration::new_err(()))
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        error: Py<PyAny>,
        value: Option<Py<PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        let error = match value {
            Some(value) => value,
            None => error,
        };
        self.step(py, Some(error))?.ok_or_else(|| pyo3::exceptions::PyStopIteration::new_err(()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(state) = self.state.get() {
            let current = state.current.replace(None);
            if let Some(current) = current {
                current.call_method0(py, pyo3::intern!(py, "close"))?;
            }
        }
        Ok(())
    }

    /// Introspection (`cr_frame`, `cr_await`, `__name__`, …) shows the user's coroutine.
    fn __getattr__(&self, py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
        self.coroutine.getattr(py, name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.coroutine.bind(py).repr()?.to_string())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.coroutine)
    }
}

/// Makes Tasks on one lane's loop.
pub struct TaskFactory {
    class: Py<PyAny>,
    event_loop: Py<PyAny>,
    /// `{"loop": …, "eager_start": True}`, made once: `Task` takes a dict, not a vector call.
    keywords: Py<PyDict>,
}

impl TaskFactory {
    /// For `event_loop`, which runs on the calling thread.
    ///
    /// # Errors
    /// When asyncio cannot be imported.
    pub fn new(event_loop: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = event_loop.py();
        let keywords = PyDict::new(py);
        keywords.set_item("loop", event_loop)?;
        keywords.set_item("eager_start", true)?;
        Ok(Self {
            class: py.import("asyncio")?.getattr("Task")?.unbind(),
            event_loop: event_loop.clone().unbind(),
            keywords: keywords.unbind(),
        })
    }

    /// The loop that the Tasks run on.
    pub fn event_loop(&self) -> &Py<PyAny> {
        &self.event_loop
    }

    /// Starts `coroutine` in a Task of its own and takes its first step.
    ///
    /// `completion` may have been told the outcome already when this returns.
    ///
    /// # Errors
    /// `RuntimeError` when the loop does not run.
    pub fn start<'py>(
        &self,
        py: Python<'py>,
        coroutine: Py<PyAny>,
        completion: Rc<dyn Completion>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let driver = Driver {
            coroutine: coroutine.clone_ref(py),
            state: LaneBound::new(State { current: RefCell::new(Some(coroutine)), completion }),
        };
        self.class.bind(py).call((Py::new(py, driver)?,), Some(self.keywords.bind(py)))
    }
}
