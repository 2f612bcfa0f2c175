//! The context that a Task runs in.

use pyo3::prelude::*;

/// Which context a Task runs in.
pub enum Scope<'py> {
    /// A copy of the current one.
    Copy,
    /// This one, which the Task enters.
    Own(Bound<'py, PyAny>),
    /// This one, which is entered already.
    Entered(Bound<'py, PyAny>),
}

impl<'py> Scope<'py> {
    /// The context, unless it is to be made.
    pub(super) fn given(self) -> Option<Bound<'py, PyAny>> {
        match self {
            Self::Copy => None,
            Self::Own(context) | Self::Entered(context) => Some(context),
        }
    }
}
