//! An extension built on pyo3-async-runtimes, used unchanged on a lane.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::{future_into_py, get_runtime, into_future};

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts the Rust futures that are neither done nor dropped.
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

#[pymodule(gil_used = false)]
mod interop {
    #[allow(clippy::wildcard_imports, reason = "a module in a module")]
    use super::*;

    /// Awaitable: `value`, from a Tokio thread.
    #[pyfunction]
    fn ready(py: Python<'_>, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
        future_into_py(py, async move { Ok(value) })
    }

    /// Awaitable: nothing, after a time on Tokio's clock.
    #[pyfunction]
    fn sleep(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
        let alive = Alive::new();
        future_into_py(py, async move {
            let _alive = alive;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Ok(())
        })
    }

    /// Awaitable: raises `ValueError`.
    #[pyfunction]
    fn fails(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        future_into_py(py, async move {
            Err::<(), _>(pyo3::exceptions::PyValueError::new_err("from a Tokio thread"))
        })
    }

    /// Awaitable: what `awaitable` gives, awaited from a Tokio thread.
    #[pyfunction]
    fn call<'py>(py: Python<'py>, awaitable: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let inner = into_future(awaitable)?;
        future_into_py(py, inner)
    }

    /// Calls `make()` on a Tokio thread and awaits there what it gives, on the caller's loop.
    #[pyfunction]
    fn call_from_a_tokio_thread<'py>(
        py: Python<'py>,
        make: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let locals = pyo3_async_runtimes::tokio::get_current_locals(py)?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        get_runtime().spawn(pyo3_async_runtimes::tokio::scope(locals, async move {
            let started = Python::attach(|py| into_future(make.bind(py).call0()?));
            let outcome = match started {
                Ok(future) => future.await,
                Err(error) => Err(error),
            };
            // Nobody listens when the caller was cancelled.
            let _ = sender.send(outcome);
        }));
        future_into_py(py, async move {
            receiver
                .await
                .unwrap_or_else(|_| Err(pyo3::exceptions::PyRuntimeError::new_err("no outcome")))
        })
    }

    /// Rust futures that are neither done nor dropped.
    #[pyfunction]
    fn alive() -> usize {
        ALIVE.load(Ordering::SeqCst)
    }
}
