//! Stepping a coroutine without raising `StopIteration`.

use pyo3::ffi;
use pyo3::prelude::*;

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
    // SAFETY: a type check of a live object.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}
