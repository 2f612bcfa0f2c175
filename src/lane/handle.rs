//! What `call_soon`, `call_later` and `add_reader` give back: a callback that waits.
//!
//! They behave as `asyncio.Handle` and `asyncio.TimerHandle` do. `cancel` is the loop thread's
//! business in asyncio; here it is safe from any: whoever takes the lock first, the turn or a
//! cancellation, decides. Nothing of Python runs while it is held.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::basic::CompareOp;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::loop_core::LoopCore;
use super::turn::ends_loop;
use crate::python::call::{call_no_args, call_one};
use crate::python::context;

/// A callback that the loop will call.
#[pyclass(frozen, subclass, weakref, module = "treadle._treadle")]
pub struct Handle {
    event_loop: Py<LoopCore>,
    context: Py<PyAny>,
    /// Empty once cancelled.
    call: Mutex<Option<Call>>,
}

struct Call {
    callback: Py<PyAny>,
    args: Py<PyTuple>,
}

impl Handle {
    pub(super) fn new(
        event_loop: &Bound<'_, LoopCore>,
        callback: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        context: Bound<'_, PyAny>,
    ) -> Self {
        Self {
            event_loop: event_loop.clone().unbind(),
            context: context.unbind(),
            call: Mutex::new(Some(Call { callback: callback.unbind(), args: args.unbind() })),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyTuple>)> {
        self.lock().as_ref().map(|call| (call.callback.clone_ref(py), call.args.clone_ref(py)))
    }

    /// Runs the callback, unless it was cancelled.
    ///
    /// # Errors
    /// What the callback raises.
    pub(super) fn run(&self, py: Python<'_>) -> PyResult<()> {
        let Some((callback, args)) = self.call(py) else {
            return Ok(());
        };
        let (callback, args) = (callback.bind(py), args.bind(py));
        context::run(self.context.bind(py), || match args.len() {
            0 => call_no_args(callback),
            1 => call_one(callback, &args.get_item(0)?),
            _ => callback.call1(args),
        })
        .map(drop)
    }

    /// Takes the callback away; whether it was there.
    pub(super) fn take(&self) -> bool {
        let taken = self.lock().take();
        // Dropped after the lock: a destructor may run Python code that cancels again.
        taken.is_some()
    }

    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        match self.call(py) {
            None => Ok("cancelled".to_owned()),
            Some(call) => py
                .import("asyncio.format_helpers")?
                .call_method1("_format_callback_source", call)?
                .extract(),
        }
    }
}

#[pymethods]
impl Handle {
    /// Takes the callback out of its turn; without effect once it ran.
    fn cancel(&self) {
        self.take();
    }

    /// Whether `cancel` was called.
    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }

    /// The context the callback runs in.
    fn get_context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    #[getter]
    fn _cancelled(&self) -> bool {
        self.is_cancelled()
    }

    #[getter]
    fn _callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.call(py).map(|(callback, _)| callback)
    }

    #[getter]
    fn _args(&self, py: Python<'_>) -> Option<Py<PyTuple>> {
        self.call(py).map(|(_, args)| args)
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> Py<PyAny> {
        self.context.clone_ref(py)
    }

    #[getter]
    fn _loop(&self, py: Python<'_>) -> Py<LoopCore> {
        self.event_loop.clone_ref(py)
    }

    /// Where the handle was made: known only in debug mode, which has asyncio's own handles.
    #[getter]
    fn _source_traceback(&self) -> Option<Py<PyAny>> {
        None
    }

    /// Runs the callback and reports what it raises, as asyncio does.
    fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().run(py) {
            Err(error) if !ends_loop(py, &error) => {
                let report = intern!(py, "_report_callback_error");
                slf.get().event_loop.call_method1(py, report, (slf, error.into_value(py)))?;
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Handle {}>", self.describe(py)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.event_loop)?;
        visit.call(&self.context)?;
        // The world stands still; a lock held now belongs to a thread that is inside `cancel` or
        // `run` and keeps what it guards alive.
        if let Ok(call) = self.call.try_lock()
            && let Some(call) = &*call
        {
            visit.call(&call.callback)?;
            visit.call(&call.args)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.take();
    }
}

impl Handle {
    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().is_none()
    }
}

/// A callback that the loop will call at its time.
#[pyclass(frozen, extends = Handle, weakref, module = "treadle._treadle")]
pub struct TimerHandle {
    /// Loop time, seconds.
    when: f64,
    /// In the heap; a cancellation is counted there.
    scheduled: AtomicBool,
    cancelled: AtomicBool,
}

impl TimerHandle {
    pub(super) fn new(handle: Handle, when: f64) -> PyClassInitializer<Self> {
        PyClassInitializer::from(handle).add_subclass(Self {
            when,
            scheduled: AtomicBool::new(true),
            cancelled: AtomicBool::new(false),
        })
    }

    /// The heap has let go of it.
    pub(super) fn leave(&self) {
        self.scheduled.store(false, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl TimerHandle {
    /// Takes the timer out; without effect once it ran.
    fn cancel(slf: &Bound<'_, Self>) {
        let base = slf.as_super().get();
        if base.take() {
            let timer = slf.get();
            timer.cancelled.store(true, Ordering::Relaxed);
            if timer.scheduled.swap(false, Ordering::Relaxed) {
                base.event_loop.get().note_cancelled_timer(slf.py());
            }
        }
    }

    /// The loop time the callback is called at, seconds.
    fn when(&self) -> f64 {
        self.when
    }

    #[getter]
    fn _when(&self) -> f64 {
        self.when
    }

    #[getter]
    fn _scheduled(&self) -> bool {
        self.scheduled.load(Ordering::Relaxed)
    }

    fn __hash__(&self) -> u64 {
        self.when.to_bits()
    }

    fn __richcmp__(
        slf: &Bound<'_, Self>,
        other: &Bound<'_, PyAny>,
        operation: CompareOp,
    ) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let Ok(other) = other.cast::<Self>() else {
            return Ok(py.NotImplemented());
        };
        let (a, b) = (slf.get().when, other.get().when);
        let same = || -> PyResult<bool> {
            let (a, b) = (slf.as_super().get(), other.as_super().get());
            match (a.call(py), b.call(py)) {
                (None, None) => Ok(true),
                (Some(a), Some(b)) => Ok(a.0.bind(py).eq(b.0)? && a.1.bind(py).eq(b.1)?),
                _ => Ok(false),
            }
        };
        #[expect(clippy::float_cmp, reason = "as asyncio compares them")]
        let holds = match operation {
            CompareOp::Lt => a < b,
            CompareOp::Gt => a > b,
            CompareOp::Le => a < b || (a == b && same()?),
            CompareOp::Ge => a > b || (a == b && same()?),
            CompareOp::Eq => a == b && same()?,
            CompareOp::Ne => !(a == b && same()?),
        };
        Ok(holds.into_pyobject(py)?.to_owned().into_any().unbind())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let described = slf.as_super().get().describe(slf.py())?;
        Ok(format!("<TimerHandle when={} {described}>", slf.get().when))
    }
}
