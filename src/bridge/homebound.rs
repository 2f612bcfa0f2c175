//! A value that belongs to one loop's thread, inside something that may travel.
//!
//! Only its own thread reaches it. When the last owner goes away on another thread, the value is
//! sent home and dropped there; if the loop is closed by then, it is leaked: nobody may drop it.

use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::home::Home;
use super::mailbox::{Letter, Mailbox};
use crate::python::lane_bound::LaneBound;

/// `T` at home, wherever the box is.
pub(super) struct Homebound<T: 'static> {
    value: Option<LaneBound<T>>,
    mailbox: Arc<Mailbox>,
}

impl<T: 'static> Homebound<T> {
    /// Binds `value` to the calling thread, which is that of `home`.
    pub(super) fn new(home: &Home, value: T) -> Self {
        Self { value: Some(LaneBound::new(value)), mailbox: home.mailbox().clone() }
    }

    /// The value, on its own thread.
    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref().and_then(LaneBound::get)
    }

    /// The value.
    ///
    /// # Errors
    /// `RuntimeError` on another thread; it says that `what` belongs elsewhere, and where it is now.
    pub(super) fn get_or_refuse(&self, what: &str) -> PyResult<&T> {
        self.get().ok_or_else(|| Python::attach(|py| self.misplaced(py, what)))
    }

    /// "`what` belongs to lane 0 (…) and cannot be used on lane 1 (…)".
    pub(super) fn misplaced(&self, py: Python<'_>, what: &str) -> PyErr {
        misplaced(&self.mailbox, py, what)
    }
}

/// That `what` belongs to the loop of `mailbox`, and where it is used instead.
pub(super) fn misplaced(mailbox: &Mailbox, py: Python<'_>, what: &str) -> PyErr {
    let (home, here) = (mailbox.name(), Home::current_name(py));
    PyRuntimeError::new_err(format!("{what} belongs to {home} and cannot be used on {here}"))
}

impl<T: 'static> Drop for Homebound<T> {
    fn drop(&mut self) {
        if self.get().is_none()
            && let Some(value) = self.value.take()
        {
            // Refused when the loop is closed; dropping a `LaneBound` here leaks.
            drop(self.mailbox.send(Letter::Drop(Box::new(value))));
        }
    }
}
