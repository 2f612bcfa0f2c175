//! What `call_later` and `call_at` give back.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::basic::CompareOp;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::handle::{Handle, asyncio_class};
use crate::python::method::BareMethod;

static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

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

/// `TimerHandle.cancel`, which `asyncio.sleep` calls at each end.
pub(super) struct Cancel;

impl BareMethod for Cancel {
    type Class = TimerHandle;
    const NAME: &'static CStr = c"cancel";
    const DOC: &'static CStr =
        c"cancel($self)\n--\n\nTakes the timer out; without effect once it ran.";

    fn call<'py>(slf: &Bound<'py, TimerHandle>) -> PyResult<Bound<'py, PyAny>> {
        let (py, timer, base) = (slf.py(), slf.get(), slf.as_super().get());
        if base.take(py) {
            timer.cancelled.store(true, Ordering::Relaxed);
            if timer.scheduled.swap(false, Ordering::Relaxed) {
                base._loop(py)?.get().note_cancelled_timer(py);
            }
        }
        Ok(py.None().into_bound(py))
    }
}

#[pymethods]
impl TimerHandle {
    /// For `isinstance(handle, asyncio.TimerHandle)`.
    #[getter(__class__)]
    fn class(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        asyncio_class(py, &CLASS, &["TimerHandle"])
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
                (Some(a), Some(b)) => {
                    Ok(a.0.bind(py).eq(b.0)? && a.1.tuple(py)?.eq(b.1.tuple(py)?)?)
                }
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
        let when = slf.get().when;
        if slf.get().is_cancelled() {
            return Ok(format!("<TimerHandle cancelled when={when}>"));
        }
        let described = slf.as_super().get().describe(slf.py())?;
        Ok(format!("<TimerHandle when={when} {described}>"))
    }
}
