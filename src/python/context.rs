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
pub struct SpareContext {
    spare: Cell<Option<Py<PyAny>>>,
    /// Whether nothing was set in the lane's own context when the last copy was made.
    is_own_empty: Cell<bool>,
}

impl SpareContext {
    /// A copy of the current context, which is the lane's own: no other is entered.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare.into_bound(py));
        }
        let copy = copy_current(py)?;
        self.is_own_empty.set(is_empty(&copy));
        Ok(copy)
    }

    /// Takes back a context that has been left; it is kept if it is as good as a copy made now.
    pub fn put(&self, context: Bound<'_, PyAny>) {
        if self.is_own_empty.get() && is_unique(&context) && is_empty(&context) {
            self.spare.set(Some(context.unbind()));
        }
    }

    /// Something may have been set in the lane's own context since the last copy.
    pub fn forget(&self) {
        self.spare.take();
        self.is_own_empty.set(false);
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
            assert!(spare.spare.take().is_none());
        });
    }

    #[test]
    fn a_context_from_an_earlier_turn_is_kept_once_the_own_one_is_known_to_be_empty() {
        Python::initialize();
        Python::attach(|py| {
            let spare = SpareContext::default();
            let suspended = spare.take(py).unwrap();
            let address = suspended.as_ptr().addr();
            spare.forget();
            spare.put(suspended.clone());
            assert!(spare.spare.take().is_none(), "the own one may have changed");
            let other = spare.take(py).unwrap();
            spare.put(suspended);
            assert_eq!(spare.take(py).unwrap().as_ptr().addr(), address);
            drop(other);
        });
    }

    #[test]
    fn nothing_is_kept_while_something_is_set_in_the_own_context() {
        Python::initialize();
        Python::attach(|py| {
            let (spare, variable) = (SpareContext::default(), variable(py));
            let old = spare.take(py).unwrap();
            let own = copy_current(py).unwrap();
            spare.forget();
            run(&own, || {
                variable.call_method1("set", (1,))?;
                let copy = spare.take(py)?;
                assert!(!is_empty(&copy));
                spare.put(old);
                assert!(spare.spare.take().is_none());
                Ok(())
            })
            .unwrap();
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
            assert!(spare.spare.take().is_none());
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
            assert!(spare.spare.take().is_none());
            drop(context);
            drop(token);
        });
    }
}
