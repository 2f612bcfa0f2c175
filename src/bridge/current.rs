//! asyncio's own functions about Tasks: which one is current, and which are registered.
//!
//! What is current belongs to a thread and its running loop; both are used there only. Where it is
//! known how asyncio keeps them ([`AsyncioThread`]), nothing is called.

use std::cell::{Cell, OnceCell};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::python::asyncio_thread::{AsyncioThread, Functions};
use crate::python::call::{call_one, call_two};
use crate::python::task_layout::PlainTask;

/// What `_asyncio` has.
pub(super) struct Asyncio {
    pub(super) class: Py<PyAny>,
    pub(super) running_loop: Py<PyAny>,
    current_task: Py<PyAny>,
    swap_current_task: Py<PyAny>,
    pub(super) unregister: Py<PyAny>,
    register_eager: Py<PyAny>,
    unregister_eager: Py<PyAny>,
    /// `None` since CPython 3.14, where a Task that takes its first step is registered as any other.
    register: Option<Py<PyAny>>,
    /// Once [`Asyncio::find_thread`] found it.
    thread: OnceCell<AsyncioThread>,
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
            thread: OnceCell::new(),
        })
    }

    /// Looks how asyncio keeps what is current and registered on this thread, with a Task for it to
    /// try that was just made and that nobody else knows. No Task is current.
    pub(super) fn find_thread(
        &self,
        event_loop: &Bound<'_, PyAny>,
        task: &PlainTask,
    ) -> PyResult<()> {
        let py = event_loop.py();
        let functions = Functions {
            swap: self.swap_current_task.bind(py),
            current: self.current_task.bind(py),
            all: &py.import("asyncio")?.getattr("all_tasks")?,
            unregister: self.unregister.bind(py),
        };
        if let Some(thread) = AsyncioThread::probe(task, event_loop, &functions)? {
            let _ = self.thread.set(thread);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn knows_thread(&self) -> bool {
        self.thread.get().is_some()
    }

    /// A Task takes its first step.
    pub(super) fn begins(&self, py: Python<'_>, task: &PlainTask) -> PyResult<()> {
        match self.thread.get() {
            Some(thread) => {
                thread.register(py, task);
                Ok(())
            }
            None => call_one(self.register_eager.bind(py), task.bind(py)).map(drop),
        }
    }

    /// A Task that took its first step waits.
    pub(super) fn waits(&self, py: Python<'_>, task: &PlainTask) -> PyResult<()> {
        if let Some(register) = &self.register {
            call_one(register.bind(py), task.bind(py))?;
            call_one(self.unregister_eager.bind(py), task.bind(py))?;
        }
        Ok(())
    }

    /// A Task has ended; whether it was still in its first step.
    pub(super) fn ends(&self, py: Python<'_>, task: &PlainTask, in_first: bool) -> PyResult<()> {
        if let Some(thread) = self.thread.get() {
            thread.unregister(py, task);
            return Ok(());
        }
        let unregister = if in_first { &self.unregister_eager } else { &self.unregister };
        call_one(unregister.bind(py), task.bind(py)).map(drop)
    }

    /// A Task has ended that took its last step itself.
    pub(super) fn ended(&self, py: Python<'_>, task: &PlainTask) -> PyResult<()> {
        // Up to CPython 3.13 a Task stays registered when it is done.
        if self.register.is_some() {
            call_one(self.unregister.bind(py), task.bind(py))?;
        }
        Ok(())
    }

    /// Makes `task` the current one, or none; gives the one before.
    fn swap<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        task: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = event_loop.py();
        if let Some(thread) = self.thread.get() {
            return thread.swap(event_loop, task).ok_or_else(|| {
                PyRuntimeError::new_err("the lane's event loop is not running on this thread")
            });
        }
        let task = task.unwrap_or_else(|| py.None().into_bound(py));
        let before = call_two(self.swap_current_task.bind(py), event_loop, &task)?;
        Ok((!before.is_none()).then_some(before))
    }
}

/// The address of the context of the Task that is current on this thread, as
/// [`Waiting::context`](super::Waiting::context) gives it; `None` outside of Tasks. It asks Python, so it
/// is not for what every request does.
pub fn current_context(py: Python<'_>) -> Option<usize> {
    let context = || -> PyResult<Option<usize>> {
        let task = py.import("asyncio")?.call_method0("current_task")?;
        if task.is_none() {
            return Ok(None);
        }
        // The Task owns its context: the address stays what it is as long as the Task is there.
        Ok(Some(task.call_method0("get_context")?.as_ptr().addr()))
    };
    context().unwrap_or_else(|error| {
        error.write_unraisable(py, None);
        None
    })
}

/// Makes a Task the current one; when dropped, the one before is current again.
pub(super) struct Current<'a, 'py> {
    asyncio: &'a Asyncio,
    event_loop: &'a Bound<'py, PyAny>,
    before: Cell<Option<Bound<'py, PyAny>>>,
    inside: Cell<bool>,
}

impl<'a, 'py> Current<'a, 'py> {
    /// Makes `task` current on the loop that runs on this thread.
    pub(super) fn enter(
        asyncio: &'a Asyncio,
        event_loop: &'a Bound<'py, PyAny>,
        task: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let before = Cell::new(asyncio.swap(event_loop, Some(task.clone()))?);
        Ok(Self { asyncio, event_loop, before, inside: Cell::new(true) })
    }

    /// As if a Task had been entered and left.
    pub(super) fn nobody(
        asyncio: &'a Asyncio,
        event_loop: &'a Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let before = call_one(asyncio.current_task.bind(py), event_loop)?;
        let before = (!before.is_none()).then_some(before);
        // Up to CPython 3.12 it is an error to swap nothing for nothing.
        if before.is_some() {
            asyncio.swap(event_loop, None)?;
        }
        Ok(Self { asyncio, event_loop, before: Cell::new(before), inside: Cell::new(false) })
    }

    /// No Task is current from now on.
    pub(super) fn leave(&self) -> PyResult<()> {
        if self.inside.replace(false) {
            self.asyncio.swap(self.event_loop, None)?;
        }
        Ok(())
    }
}

impl Drop for Current<'_, '_> {
    fn drop(&mut self) {
        let restored = self.leave().and_then(|()| match self.before.take() {
            None => Ok(()),
            before => self.asyncio.swap(self.event_loop, before).map(drop),
        });
        if let Err(error) = restored {
            error.write_unraisable(self.event_loop.py(), None);
        }
    }
}
