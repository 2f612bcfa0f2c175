//! `contextvars.Context`: one copy a request, entered around the handler.
//!
//! Most handlers set no variable, and most programs none outside of handlers either. A copy in which
//! nothing was set, of a context in which nothing is set, is as good for the next request as a new
//! one: [`SpareContext`] keeps it.

use std::cell::Cell;

use pyo3::ffi;
use pyo3::prelude::*;

use super::error::{owned_or_raised, take};
use super::unique::is_unique;

/// A copy of the current context.
///
/// # Errors
/// `MemoryError`.
pub fn copy_current(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: the thread is attached (`py`); the result is a new reference or null with an
    // exception set.
    unsafe { owned_or_raised(py, ffi::PyContext_CopyCurrent()) }
}

/// A copy of a lane's own context, kept for whoever needs one next.
///
/// Belongs to the lane's thread, and so does what it gives.
#[derive(Default)]
pub struct SpareContext(Cell<Option<Py<PyAny>>>);

impl SpareContext {
    /// A copy of the current context, which is the lane's own: no other is entered.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.0.take() {
            Some(spare) => Ok(spare.into_bound(py)),
            None => copy_current(py),
        }
    }

    /// Takes back a context that has been left; it is kept if it is as good as new.
    pub fn put(&self, context: Bound<'_, PyAny>) {
        if is_unique(&context) && is_empty(&context) {
            self.0.set(Some(context.unbind()));
        }
    }

    /// Something may have been set in the lane's own context since the last copy.
    pub fn forget(&self) {
        self.0.take();
    }
}

/// Whether nothing is set in `context`.
fn is_empty(context: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live context, whose length is the number of its variables: nobody's code runs.
    unsafe { ffi::PyObject_Size(context.as_ptr()) == 0 }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(py: Python<'_>) -> Bound<'_, PyAny> {
        let class = py.import("contextvars").unwrap().getattr("ContextVar").unwrap();
        class.call1(("variable",)).unwrap()
    }

    #[test]
    fn a_context_in_which_nothing_was_set_is_used_again() {
        Python::initialize();
        Python::attach(|py| {
            let spare = SpareContext::default();
            let context = spare.take(py).unwrap();
            let address = context.as_ptr().addr();
            run(&context, || Ok(())).unwrap();
            spare.put(context);
            let again = spare.take(py).unwrap();
            assert_eq!(again.as_ptr().addr(), address);
            assert_ne!(spare.take(py).unwrap().as_ptr().addr(), address);
            spare.put(again);
            spare.forget();
            assert!(spare.0.take().is_none());
        });
    }

    #[test]
    fn what_was_set_is_seen_by_nobody_else() {
        Python::initialize();
        Python::attach(|py| {
            let (spare, variable) = (SpareContext::default(), variable(py));
            let context = spare.take(py).unwrap();
            run(&context, || variable.call_method1("set", (1,))).unwrap();
            spare.put(context);
            assert!(spare.0.take().is_none());
        });
    }

    #[test]
    fn a_context_that_somebody_holds_stays_theirs() {
        Python::initialize();
        Python::attach(|py| {
            let (spare, variable) = (SpareContext::default(), variable(py));
            let context = spare.take(py).unwrap();
            // The token knows where it was made, though nothing is set there any more.
            let token = run(&context, || {
                let token = variable.call_method1("set", (1,))?;
                variable.call_method1("reset", (&token,))?;
                Ok(token)
            });
            spare.put(context.clone());
            assert!(spare.0.take().is_none());
            drop(context);
            drop(token);
        });
    }
}
