//! Taking the exception that a C call left behind.
//!
//! PyO3's own `PyErr::fetch` turns a `PanicException` back into a Rust panic. On the request path a
//! panic in somebody's native extension is one failed request like any other, so it stays an
//! exception here.

use pyo3::exceptions::PySystemError;
use pyo3::ffi;
use pyo3::prelude::*;

/// The current exception, cleared; a `SystemError` if a call failed without setting one.
pub fn take(py: Python<'_>) -> PyErr {
    // SAFETY: the thread is attached (`py`); the result is a new reference or null.
    let raised = unsafe {
        let raised = ffi::PyErr_GetRaisedException();
        Bound::from_owned_ptr_or_opt(py, raised)
    };
    match raised {
        Some(raised) => PyErr::from_value(raised),
        None => PySystemError::new_err("a call failed without an exception"),
    }
}

/// The object behind a new reference, or the current exception where it is null.
///
/// # Safety
/// `object` is null with an exception set, or a new reference that nobody else gives back.
pub(super) unsafe fn owned_or_raised(
    py: Python<'_>,
    object: *mut ffi::PyObject,
) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: as the caller promises.
    unsafe { Bound::from_owned_ptr_or_opt(py, object) }.ok_or_else(|| take(py))
}
