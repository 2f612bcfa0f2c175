//! What `add_reader` and `add_writer` watch with in debug mode.

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::handle::Handle;

/// A handle that knows where it was made.
#[pyclass(frozen, extends = Handle, weakref, module = "treadle._treadle")]
pub struct TracedHandle {
    /// As `traceback.extract_stack` gives it, the innermost last; never empty.
    source_traceback: Py<PyList>,
}

impl TracedHandle {
    /// `handle` with a stack, if there is one.
    pub(super) fn wrap<'py>(
        handle: Handle,
        stack: Bound<'py, PyList>,
    ) -> PyResult<Bound<'py, Handle>> {
        let py = stack.py();
        if stack.is_empty() {
            return Bound::new(py, handle);
        }
        let traced = Self { source_traceback: stack.unbind() };
        let traced = PyClassInitializer::from(handle).add_subclass(traced);
        Ok(Bound::new(py, traced)?.into_super())
    }
}

#[pymethods]
impl TracedHandle {
    #[getter]
    fn _source_traceback(&self, py: Python<'_>) -> Py<PyList> {
        self.source_traceback.clone_ref(py)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let stack = slf.get().source_traceback.bind(slf.py());
        let frame = stack.get_item(stack.len().saturating_sub(1))?;
        let described = slf.as_super().get().describe(slf.py())?;
        Ok(format!(
            "<Handle {described} created at {}:{}>",
            frame.getattr("filename")?,
            frame.getattr("lineno")?
        ))
    }
}
