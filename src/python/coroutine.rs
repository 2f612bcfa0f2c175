//! Stepping a coroutine without raising `StopIteration`.

use pyo3::exceptions::PyStopIteration;
use pyo3::ffi;
use pyo3::prelude::*;

use super::call::call_one;
use super::error::take;

/// What one step of a coroutine produced.
#[must_use]
pub enum Step<'py> {
    /// It suspended and yielded this (an asyncio future, or `None` for a bare yield).
    Yielded(Bound<'py, PyAny>),
    /// It returned.
    Returned(Bound<'py, PyAny>),
    /// It raised.
    Raised(PyErr),
}

/// Resumes `coroutine` with `value`.
pub fn send<'py>(coroutine: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> Step<'py> {
    let py = coroutine.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: both objects are live and the thread is attached; `result` receives a new
    // reference unless the call says error.
    let outcome = unsafe { ffi::PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &raw mut result) };
    match outcome {
        ffi::PySendResult::PYGEN_NEXT => {
            // SAFETY: on NEXT `result` holds a new reference.
            Step::Yielded(unsafe { Bound::from_owned_ptr(py, result) })
        }
        ffi::PySendResult::PYGEN_RETURN => {
            // SAFETY: on RETURN `result` holds a new reference.
            Step::Returned(unsafe { Bound::from_owned_ptr(py, result) })
        }
        ffi::PySendResult::PYGEN_ERROR => Step::Raised(take(py)),
    }
}

/// Whether `object` is a native coroutine (what calling an `async def` function gives).
pub fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a type check of a live object. `PyCoro_CheckExact` of the bindings asks for a base class
    // where the type is another.
    unsafe { ffi::Py_IS_TYPE(object.as_ptr(), &raw mut ffi::PyCoro_Type) != 0 }
}

/// The `StopIteration` with which an iterator returns `value`.
pub fn returned(value: &Bound<'_, PyAny>) -> PyErr {
    // Made as an object at once: given as an argument, a value that is a tuple would be unpacked,
    // and PyO3 would make the exception only after it had boxed the argument.
    let class = value.py().get_type::<PyStopIteration>();
    match call_one(class.as_any(), value) {
        Ok(raised) => PyErr::from_value(raised),
        Err(error) => error,
    }
}
