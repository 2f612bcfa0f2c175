//! asyncio's own functions about Tasks, and which Task is the current one.
//!
//! What is current belongs to a thread and its running loop; both are used there only.

use std::cell::Cell;

use pyo3::prelude::*;

use crate::python::call::{call_one, call_two};

/// What `_asyncio` has.
pub(super) struct Asyncio {
    pub(super) class: Py<PyAny>,
    pub(super) running_loop: Py<PyAny>,
    pub(super) current_task: Py<PyAny>,
    pub(super) swap_current_task: Py<PyAny>,
    pub(super) unregister: Py<PyAny>,
    pub(super) register_eager: Py<PyAny>,
    pub(super) unregister_eager: Py<PyAny>,
    /// `None` since CPython 3.14, where a Task that takes its first step is registered as any other.
    pub(super) register: Option<Py<PyAny>>,
}

impl Asyncio {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let module = py.import("_asyncio")?;
        let function = |name: &str| module.getattr(name).map(Bound::unbind);
        let register =
            if py.version_info() >= (3, 14) { None } else { Some(function("_register_task")?) };
        Ok(Self {
            class: function("Task")?,
            running_loop: function("_get_running_loop")?,
            current_task: function("current_task")?,
            swap_current_task: function("_swap_current_task")?,
            unregister: function("_unregister_task")?,
            register_eager: function("_register_eager_task")?,
            unregister_eager: function("_unregister_eager_task")?,
            register,
        })
    }

    fn swap<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        task: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        call_two(self.swap_current_task.bind(task.py()), event_loop, task)
    }
}

/// Makes a Task the current one; when dropped, the one before is current again.
pub(super) struct Current<'a, 'py> {
    asyncio: &'a Asyncio,
    event_loop: &'a Bound<'py, PyAny>,
    /// The Task before, or `None` of Python.
    before: Bound<'py, PyAny>,
    inside: Cell<bool>,
}

impl<'a, 'py> Current<'a, 'py> {
    /// Makes `task` current on the loop that runs on this thread.
    pub(super) fn enter(
        asyncio: &'a Asyncio,
        event_loop: &'a Bound<'py, PyAny>,
        task: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let before = asyncio.swap(event_loop, task)?;
        Ok(Self { asyncio, event_loop, before, inside: Cell::new(true) })
    }

    /// As if a Task had been entered and left.
    pub(super) fn nobody(
        asyncio: &'a Asyncio,
        event_loop: &'a Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let before = call_one(asyncio.current_task.bind(py), event_loop)?;
        // Up to CPython 3.12 it is an error to swap nothing for nothing.
        if !before.is_none() {
            asyncio.swap(event_loop, py.None().bind(py))?;
        }
        Ok(Self { asyncio, event_loop, before, inside: Cell::new(false) })
    }

    /// No Task is current from now on.
    pub(super) fn leave(&self) -> PyResult<()> {
        if self.inside.replace(false) {
            let py = self.event_loop.py();
            self.asyncio.swap(self.event_loop, py.None().bind(py))?;
        }
        Ok(())
    }
}

impl Drop for Current<'_, '_> {
    fn drop(&mut self) {
        let restored = self.leave().and_then(|()| {
            if self.before.is_none() {
                return Ok(());
            }
            self.asyncio.swap(self.event_loop, &self.before).map(drop)
        });
        if let Err(error) = restored {
            error.write_unraisable(self.event_loop.py(), None);
        }
    }
}
