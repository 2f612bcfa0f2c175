//! Calling Python with a prepared argument array, without building a tuple or a dict.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::error::owned_or_raised;

/// Calls `callable` with `args`; the last `kwnames.len()` of them are keyword arguments.
///
/// # Errors
/// What the callable raises.
pub fn vectorcall<'py>(
    callable: &Bound<'py, PyAny>,
    args: &[Py<PyAny>],
    kwnames: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let keywords = kwnames.map_or(0, PyTupleMethods::len);
    let positional = args.len().saturating_sub(keywords);
    let names = kwnames.map_or(std::ptr::null_mut(), |names| names.as_ptr());
    // SAFETY: `Py<PyAny>` is a transparent pointer to a live object, so the slice is an array of
    // `args.len()` valid object pointers that outlives the call; the names tuple counts the
    // trailing ones; the token inside `callable` proves that the thread is attached; the result
    // is a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            args.as_ptr().cast::<*mut ffi::PyObject>(),
            positional,
            names,
        );
        owned_or_raised(callable.py(), result)
    }
}

/// Calls `callable` without arguments.
///
/// # Errors
/// What the callable raises.
pub fn call_no_args<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `callable` is a live object and the thread is attached; the result is a new
    // reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallNoArgs(callable.as_ptr());
        owned_or_raised(callable.py(), result)
    }
}

/// Calls `callable` with one argument.
///
/// # Errors
/// What the callable raises.
pub fn call_one<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both objects are live and the thread is attached; the result is a new reference or
    // null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallOneArg(callable.as_ptr(), argument.as_ptr());
        owned_or_raised(callable.py(), result)
    }
}
