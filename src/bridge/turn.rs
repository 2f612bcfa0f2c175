//! (to be removed)
use pyo3::prelude::*;

/// Nothing.
pub fn after_python(_py: Python<'_>) {}
