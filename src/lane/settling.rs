//! The callback of `asyncio.sleep`, run without the Python function that it is.
//!
//! `asyncio.futures._set_result_unless_cancelled(future, result)` looks whether the future was
//! cancelled and gives it the result. For a future of asyncio's own C class, which nobody can change,
//! giving it the result looks by itself; only when that is refused does the function have a say.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use crate::python::call::call_two;

struct Known {
    function: Py<PyAny>,
    class: Py<PyType>,
    /// The method of the class, not bound.
    set_result: Py<PyAny>,
    refused: Py<PyAny>,
}

/// `None` where asyncio has none of these.
static KNOWN: PyOnceLock<Option<Known>> = PyOnceLock::new();

impl Known {
    fn find(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("_asyncio")?.getattr("Future")?.cast_into::<PyType>()?;
        let function = py.import("asyncio.futures")?.getattr("_set_result_unless_cancelled")?;
        Ok(Self {
            function: function.unbind(),
            set_result: class.getattr("set_result")?.unbind(),
            class: class.unbind(),
            refused: py.import("asyncio.exceptions")?.getattr("InvalidStateError")?.unbind(),
        })
    }
}

/// `callback(first, second)`
///
/// # Errors
/// What it raises.
pub(super) fn call<'py>(
    callback: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callback.py();
    if let Some(known) = KNOWN.get_or_init(py, || Known::find(py).ok())
        && callback.is(&known.function)
        && first.get_type_ptr() == known.class.bind(py).as_type_ptr()
    {
        match call_two(known.set_result.bind(py), first, second) {
            Err(error) if error.is_instance(py, known.refused.bind(py)) => {}
            outcome => return outcome,
        }
    }
    call_two(callback, first, second)
}
