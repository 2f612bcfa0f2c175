//! The native half of a lane's event loop.
//!
//! `treadle.loop.EventLoop` inherits from this class first and from asyncio's selector loop second.
//! What asyncio asks of its loop for every Task and every wake-up is answered here, in native
//! code: whether it runs, whether it debugs, and `call_soon`. Everything else is asyncio's.
//!
//! The flags are written by the loop's own thread and read by any; `call_soon` belongs to the
//! loop's thread, as asyncio has it.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::handle::Handle;
use crate::bridge::intercept;
use crate::python::call::call_one;
use crate::python::context;

/// State that native code reads without asking Python.
#[pyclass(subclass, frozen, weakref, dict, module = "treadle._treadle")]
pub struct LoopCore {
    debug: AtomicBool,
    running: AtomicBool,
    closed: AtomicBool,
    /// `append` of the loop's ready queue.
    append: PyOnceLock<Py<PyAny>>,
}

impl LoopCore {
    /// Whether callbacks are to be run one by one, timed and checked.
    pub(super) fn is_debugging(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl LoopCore {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            debug: AtomicBool::new(false),
            running: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            append: PyOnceLock::new(),
        }
    }

    /// Takes the ready queue's `append`; called once, when the queue exists.
    fn _note_ready(&self, py: Python<'_>, append: Py<PyAny>) {
        // A second call would come from a loop that is initialised twice; the first queue stays.
        let _ = self.append.set(py, append);
    }

    fn _note_debug(&self, enabled: bool) {
        self.debug.store(enabled, Ordering::Relaxed);
    }

    fn _note_running(&self, running: bool) {
        self.running.store(running, Ordering::Relaxed);
    }

    fn _note_closed(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether the loop is in debug mode.
    fn get_debug(&self) -> bool {
        self.is_debugging()
    }

    /// Whether the loop runs now.
    fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    /// Calls `callback(*args)` in the next turn, in `context` or a copy of the current one.
    #[pyo3(signature = (callback, *args, context=None))]
    fn call_soon<'py>(
        slf: &Bound<'py, Self>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
        context: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if intercept(&callback, args.iter_borrowed().next().as_deref()) {
            return Ok(py.None().into_bound(py));
        }
        let core = slf.get();
        let append = core
            .append
            .get(py)
            .filter(|_| !core.closed.load(Ordering::Relaxed) && !core.is_debugging());
        let Some(append) = append else {
            // Closed or debugging: asyncio's own checks and words.
            let keywords = PyDict::new(py);
            keywords.set_item("context", context)?;
            let mut arguments = vec![callback];
            arguments.extend(args.iter());
            let arguments = PyTuple::new(py, arguments)?;
            return slf.call_method("_call_soon_checked", arguments, Some(&keywords));
        };
        if !callback.is_callable() {
            return Err(PyTypeError::new_err(format!(
                "a callable object was expected by call_soon(), got {}",
                callback.repr()?
            )));
        }
        let context = match context {
            Some(context) => context,
            None => context::copy_current(py)?,
        };
        let handle = Handle::new(slf.as_any(), callback, args, context);
        let handle = Bound::new(py, handle)?.into_any();
        call_one(append.bind(py), &handle)?;
        Ok(handle)
    }
}
