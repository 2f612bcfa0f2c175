//! A Rust future as something Python can await, on its own lane.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use super::turn::after_python;

/// An awaitable that is done already: awaiting it does not suspend.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Immediate {
    value: Py<PyAny>,
}

impl Immediate {
    /// Gives `value` to whoever awaits it.
    pub fn new(value: Py<PyAny>) -> Self {
        Self { value }
    }
}

#[pymethods]
impl Immediate {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        // In a tuple, because a value that is itself a tuple would be unpacked.
        Err(PyStopIteration::new_err((self.value.clone_ref(py),)))
    }
}

/// Cancelling the `asyncio.Future` drops the Rust future it stands for.
#[pyclass(frozen, module = "treadle._treadle")]
struct AbortOnCancel {
    handle: AbortHandle,
}

#[pymethods]
impl AbortOnCancel {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future.call_method0(pyo3::intern!(future.py(), "cancelled"))?.is_truthy()? {
            self.handle.abort();
        }
        Ok(())
    }
}

/// Makes `future` awaitable on `event_loop`, which runs on the calling thread.
///
/// A future that is ready at once gives an awaitable that does not suspend; its error is raised
/// here. Otherwise it goes on as a Tokio task of the lane, and an `asyncio.Future` stands for it.
///
/// # Errors
/// What the future resolves to when it is ready at once; what the loop raises.
pub fn into_awaitable<'py>(
    py: Python<'py>,
    event_loop: &Bound<'py, PyAny>,
    future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let mut future: Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>>>> = Box::pin(future);
    if let Poll::Ready(outcome) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(Bound::new(py, Immediate::new(outcome?))?.into_any());
    }
    let awaited = event_loop.call_method0(pyo3::intern!(py, "create_future"))?;
    let target = awaited.clone().unbind();
    let task = tokio::task::spawn_local(async move {
        let outcome = future.await;
        Python::attach(|py| {
            resolve(target.bind(py), outcome);
            after_python(py);
        });
    });
    let abort = AbortOnCancel { handle: task.abort_handle() };
    awaited.call_method1(pyo3::intern!(py, "add_done_callback"), (Py::new(py, abort)?,))?;
    Ok(awaited)
}

/// Sets the outcome, unless the future was cancelled or its loop closed meanwhile.
fn resolve(future: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) {
    let py = future.py();
    let set = || -> PyResult<()> {
        if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
            return Ok(());
        }
        match outcome {
            Ok(value) => future.call_method1(pyo3::intern!(py, "set_result"), (value,))?,
            Err(error) => {
                future.call_method1(pyo3::intern!(py, "set_exception"), (error.into_value(py),))?
            }
        };
        Ok(())
    };
    if let Err(error) = set() {
        error.write_unraisable(py, Some(future));
    }
}
