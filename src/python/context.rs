//! `contextvars.Context`: one copy a request, entered around the handler.

use pyo3::ffi;
use pyo3::prelude::*;

use super::error::{owned_or_raised, take};

/// A copy of the current context.
///
/// # Errors
/// `MemoryError`.
pub fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached (`py`); the result is a new reference or null with an
    // exception set.
    unsafe { owned_or_raised(py, ffi::PyContext_CopyCurrent()) }
}

/// Runs `body` inside `context`.
///
/// # Errors
/// `RuntimeError` when the context is already entered; else what `body` returns.
pub fn run<'py, R>(context: &Bound<'py, PyAny>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let _entered = Entered::new(context)?;
    body()
}

/// Leaves the context when dropped, also when `body` panics.
struct Entered<'a, 'py>(&'a Bound<'py, PyAny>);

impl<'a, 'py> Entered<'a, 'py> {
    fn new(context: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: the thread is attached; a non-context object is refused with a TypeError.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } == 0 {
            Ok(Self(context))
        } else {
            Err(take(context.py()))
        }
    }
}

impl Drop for Entered<'_, '_> {
    fn drop(&mut self) {
        // SAFETY: entered by `new` on this thread and not yet left. Leaving fails only when
        // another context was left entered inside; the exception is then reported and cleared.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            take(self.0.py()).write_unraisable(self.0.py(), Some(self.0));
        }
    }
}
