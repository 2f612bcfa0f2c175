//! What `call_soon` gives back: a callback that waits for its turn.
//!
//! It behaves as `asyncio.Handle` does. `cancel` is the loop thread's business in asyncio; here a
//! lock makes it safe from any: whoever takes the callback first, the turn or a cancellation, has
//! it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::python::call::call_one;
use crate::python::context;

/// A callback in a loop's ready queue.
#[pyclass(frozen, weakref, module = "treadle._treadle")]
pub struct Handle {
    event_loop: Py<PyAny>,
    context: Py<PyAny>,
    call: Mutex<Call>,
}

enum Call {
    Waiting { callback: Py<PyAny>, args: Py<PyTuple> },
    Done,
    Cancelled,
}

impl Handle {
    pub(super) fn new(
        event_loop: &Bound<'_, PyAny>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Bound<'_, PyAny>,
    ) -> Self {
        Self {
            event_loop: event_loop.clone().unbind(),
            context: context.unbind(),
            call: Mutex::new(Call::Waiting { callback: callback.unbind(), args: args.unbind() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Call> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the callback, unless it was cancelled.
    ///
    /// # Errors
    /// What the callback raises.
    pub(super) fn run(&self, py: Python<'_>) -> PyResult<()> {
        let taken = {
            let mut call = self.lock();
            match &*call {
                Call::Waiting { .. } => std::mem::replace(&mut *call, Call::Done),
                Call::Done | Call::Cancelled => return Ok(()),
            }
        };
        let Call::Waiting { callback, args } = taken else {
            return Ok(());
        };
        let (callback, args) = (callback.bind(py), args.bind(py));
        let outcome = context::run(self.context.bind(py), || match args.len() {
            1 => call_one(callback, &args.get_item(0)?),
            _ => callback.call1(args),
        });
        outcome.map(drop).inspect_err(|_| {
            // For the report, which names the callback.
            *self.lock() =
                Call::Waiting { callback: callback.clone().unbind(), args: args.clone().unbind() };
        })
    }
}

#[pymethods]
impl Handle {
    /// Takes the callback out of its turn; without effect once it ran.
    fn cancel(&self) {
        let taken = std::mem::replace(&mut *self.lock(), Call::Cancelled);
        // Dropped after the lock: a destructor may run Python code that cancels again.
        drop(taken);
    }

    /// Whether `cancel` was called.
    fn cancelled(&self) -> bool {
        matches!(&*self.lock(), Call::Cancelled)
    }

    /// The context the callback runs in.
    fn get_context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    #[getter]
    fn _cancelled(&self) -> bool {
        self.cancelled()
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match &*self.lock() {
            Call::Waiting { callback, .. } => Some(callback.clone_ref(py)),
            _ => None,
        }
    }

    #[getter]
    fn _args(&self, py: Python<'_>) -> Option<Py<PyTuple>> {
        match &*self.lock() {
            Call::Waiting { args, .. } => Some(args.clone_ref(py)),
            _ => None,
        }
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    #[getter]
    fn _source_traceback(&self) -> Option<Py<PyAny>> {
        None
    }

    /// As asyncio runs a handle, for a loop that was put into debug mode meanwhile.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().run(py) {
            Err(error) if !super::turn::ends_loop(py, &error) => {
                let report = intern!(py, "_report_callback_error");
                slf.get().event_loop.call_method1(py, report, (slf, error.into_value(py)))?;
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let described = match slf.get()._callback(slf.py()) {
            Some(callback) => callback.bind(slf.py()).repr()?.to_string(),
            None if slf.get().cancelled() => "cancelled".to_owned(),
            None => "done".to_owned(),
        };
        Ok(format!("<Handle {described}>"))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.context)?;
        // The world stands still; a lock held now belongs to a thread that is inside `cancel` or
        // `run` and keeps what it guards alive.
        if let Ok(call) = self.call.try_lock()
            && let Call::Waiting { callback, args } = &*call
        {
            visit.call(callback)?;
            visit.call(args)?;
        }
        Ok(())
    }
}
