//! What `call_soon` and `add_reader` give back: a callback that waits.
//!
//! It behaves as `asyncio.Handle` does, and so do those that derive from it: the handle of another
//! thread ([`RemoteHandle`](super::RemoteHandle)), a timer's ([`TimerHandle`](super::TimerHandle)), and
//! that of a descriptor in debug mode ([`TracedHandle`](super::TracedHandle)).
//!
//! `cancel` is the loop thread's business in asyncio; here it is safe from any: whoever takes the
//! lock first, the turn or a cancellation, decides. Nothing of Python runs while it is held. A
//! handle that nobody kept is emptied by the turn without it.

use pyo3::Borrowed;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use super::loop_core::LoopCore;
use super::ready::Ready;
use super::settling;
use super::turn::ends_loop;
use crate::python::call::{call_no_args, call_one};
use crate::python::context;
use crate::python::guarded::{Guard, Guarded, replace_alone};
use crate::telemetry::Steps;

/// A callback that the loop will call.
#[pyclass(frozen, subclass, weakref, module = "treadle._treadle")]
pub struct Handle {
    inner: Guarded<Inner>,
}

struct Inner {
    /// `None` once cancelled.
    call: Option<Call>,
    /// `None` only while the object waits to be used again.
    place: Option<Place>,
}

impl Inner {
    const EMPTY: Self = Self { call: None, place: None };
}

struct Call {
    callback: Py<PyAny>,
    args: Args,
}

impl Call {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { callback: self.callback.clone_ref(py), args: self.args.clone_ref(py) }
    }

    /// Drops the references on a thread that is attached: `Py` would look that up for each.
    fn release(self, py: Python<'_>) {
        drop(self.callback.into_bound(py));
        match self.args {
            Args::None => {}
            Args::One(one) => drop(one.into_bound(py)),
            Args::Two(first, second) => {
                drop(first.into_bound(py));
                drop(second.into_bound(py));
            }
            Args::Many(many) => drop(many.into_bound(py)),
        }
    }
}

/// What a callback is called with.
pub(super) enum Args {
    None,
    One(Py<PyAny>),
    Two(Py<PyAny>, Py<PyAny>),
    Many(Py<PyTuple>),
}

impl Args {
    pub(super) fn of(py: Python<'_>, args: &[Borrowed<'_, '_, PyAny>]) -> PyResult<Self> {
        Ok(match args {
            [] => Self::None,
            [one] => Self::One(Bound::clone(one).unbind()),
            [first, second] => {
                Self::Two(Bound::clone(first).unbind(), Bound::clone(second).unbind())
            }
            many => Self::Many(PyTuple::new(py, many)?.unbind()),
        })
    }

    fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::One(one) => Self::One(one.clone_ref(py)),
            Self::Two(first, second) => Self::Two(first.clone_ref(py), second.clone_ref(py)),
            Self::Many(many) => Self::Many(many.clone_ref(py)),
        }
    }

    pub(super) fn tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        match self {
            Self::None => Ok(PyTuple::empty(py)),
            Self::One(one) => PyTuple::new(py, [one]),
            Self::Two(first, second) => PyTuple::new(py, [first, second]),
            Self::Many(many) => Ok(many.bind(py).clone()),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::None => Ok(()),
            Self::One(one) => visit.call(one),
            Self::Two(first, second) => {
                visit.call(first)?;
                visit.call(second)
            }
            Self::Many(many) => visit.call(many),
        }
    }
}

/// Where a callback runs.
struct Place {
    event_loop: Py<LoopCore>,
    context: Py<PyAny>,
}

impl Place {
    fn clone_ref(&self, py: Python<'_>) -> Self {
        Self { event_loop: self.event_loop.clone_ref(py), context: self.context.clone_ref(py) }
    }

    /// As [`Call::release`].
    fn release(self, py: Python<'_>) {
        drop(self.context.into_bound(py));
        drop(self.event_loop.into_bound(py));
    }
}

impl Handle {
    pub(super) fn new(
        event_loop: &Bound<'_, LoopCore>,
        callback: Bound<'_, PyAny>,
        args: Args,
        context: Bound<'_, PyAny>,
    ) -> Self {
        Self {
            inner: Guarded::new(Inner {
                call: Some(Call { callback: callback.unbind(), args }),
                place: Some(Place {
                    event_loop: event_loop.clone().unbind(),
                    context: context.unbind(),
                }),
            }),
        }
    }

    /// Fills an object that was emptied with what is in this one; false, without any effect, if
    /// somebody else has it as well.
    #[inline]
    pub(super) fn move_into(&mut self, py: Python<'_>, spare: &mut Py<Self>) -> bool {
        let inner = std::mem::replace(self.inner.get_mut(), Inner::EMPTY);
        match replace_alone(py, spare, |spare| &spare.inner, inner) {
            Ok(_empty) => true,
            Err(inner) => {
                *self.inner.get_mut() = inner;
                false
            }
        }
    }

    fn lock(&self) -> Guard<'_, Inner> {
        self.inner.lock()
    }

    pub(super) fn call(&self, py: Python<'_>) -> Option<(Py<PyAny>, Args)> {
        let call = self.lock().call.as_ref().map(|call| call.clone_ref(py));
        call.map(|call| (call.callback, call.args))
    }

    fn place<R>(&self, part: impl FnOnce(&Place) -> R) -> PyResult<R> {
        self.lock().place.as_ref().map(part).ok_or_else(|| {
            // Only the garbage collector's view of the heap leads here.
            PyRuntimeError::new_err("this handle waits to be used again")
        })
    }

    /// Runs the callback, unless it was cancelled.
    ///
    /// # Errors
    /// What the callback raises.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let (call, place) = {
            let inner = self.lock();
            let (Some(call), Some(place)) = (&inner.call, &inner.place) else {
                return Ok(());
            };
            (call.clone_ref(py), place.clone_ref(py))
        };
        let outcome = call_in(py, &place, &call);
        call.release(py);
        place.release(py);
        outcome
    }

    /// Takes the callback away; whether it was there.
    pub(super) fn take(&self, py: Python<'_>) -> bool {
        let taken = self.lock().call.take();
        // Dropped after the lock: a destructor may run Python code that cancels again.
        taken.map(|call| call.release(py)).is_some()
    }

    /// Runs the callback of a handle that came out of the queue, and reports what it raises.
    ///
    /// # Errors
    /// What ends the loop.
    pub(super) fn run_queued(
        py: Python<'_>,
        mut handle: Py<Self>,
        ready: &Ready,
        steps: &Steps,
    ) -> PyResult<()> {
        let Ok(Inner { call, place }) =
            replace_alone(py, &mut handle, |each| &each.inner, Inner::EMPTY)
        else {
            return Self::_run(handle.bind(py));
        };
        // Nobody has it: it is emptied and kept, and what was in it runs.
        ready.keep(handle);
        let (Some(call), Some(place)) = (call, place) else {
            return Ok(());
        };
        let step = steps.enter(place.context.as_ptr().addr());
        let outcome = call_in(py, &place, &call);
        if let Some(step) = step {
            steps.leave(step);
        }
        match outcome {
            Err(error) if !ends_loop(py, &error) => {
                let event_loop = place.event_loop.clone_ref(py);
                let handle =
                    Self { inner: Guarded::new(Inner { call: Some(call), place: Some(place) }) };
                report(event_loop.bind(py), &Bound::new(py, handle)?, error)
            }
            outcome => {
                call.release(py);
                place.release(py);
                outcome
            }
        }
    }

    pub(super) fn describe(&self, py: Python<'_>) -> PyResult<String> {
        match self.call(py) {
            None => Ok("cancelled".to_owned()),
            Some((callback, args)) => py
                .import("asyncio.format_helpers")?
                .call_method1("_format_callback_source", (callback, args.tuple(py)?))?
                .extract(),
        }
    }
}

#[pymethods]
impl Handle {
    /// Takes the callback out of its turn; without effect once it ran.
    fn cancel(&self, py: Python<'_>) {
        self.take(py);
    }

    /// Whether `cancel` was called.
    fn cancelled(&self) -> bool {
        self.is_cancelled()
    }

    /// The context the callback runs in.
    fn get_context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.place(|place| place.context.clone_ref(py))
    }

    /// For `isinstance(handle, asyncio.Handle)`.
    #[getter(__class__)]
    fn class(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        asyncio_class(py, &HANDLE, &["Handle"])
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
    fn _args<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        self.call(py).map(|(_, args)| args.tuple(py)).transpose()
    }

    #[getter]
    fn _context(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.get_context(py)
    }

    #[getter]
    pub(super) fn _loop(&self, py: Python<'_>) -> PyResult<Py<LoopCore>> {
        self.place(|place| place.event_loop.clone_ref(py))
    }

    /// Where the handle was made: known only in debug mode, which has other handles.
    #[getter]
    fn _source_traceback(&self) -> Option<Py<PyAny>> {
        None
    }

    /// Runs the callback and reports what it raises, as asyncio does.
    pub(super) fn _run(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        match slf.get().run(py) {
            Err(error) if !ends_loop(py, &error) => {
                report(slf.get()._loop(py)?.bind(py), slf, error)
            }
            outcome => outcome,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<Handle {}>", self.describe(py)?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The world stands still; a lock held now belongs to a thread that is inside one of the
        // methods above and keeps what it guards alive.
        if let Some(inner) = self.inner.try_lock() {
            if let Some(call) = &inner.call {
                visit.call(&call.callback)?;
                call.args.traverse(&visit)?;
            }
            if let Some(place) = &inner.place {
                visit.call(&place.event_loop)?;
                visit.call(&place.context)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let call = self.lock().call.take();
        drop(call);
    }
}

impl Handle {
    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().call.is_none()
    }
}

static HANDLE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The first of these classes that `asyncio.events` has.
pub(super) fn asyncio_class(
    py: Python<'_>,
    cell: &PyOnceLock<Py<PyAny>>,
    names: &[&str],
) -> PyResult<Py<PyAny>> {
    let class = cell.get_or_try_init(py, || -> PyResult<_> {
        let events = py.import("asyncio.events")?;
        let mut found = events.getattr("Handle")?;
        if let Some(class) = names.iter().find_map(|name| events.getattr(*name).ok()) {
            found = class;
        }
        Ok(found.unbind())
    })?;
    Ok(class.clone_ref(py))
}

/// Calls the callback in its place.
fn call_in(py: Python<'_>, place: &Place, call: &Call) -> PyResult<()> {
    let (callback, event_loop) = (call.callback.bind(py), place.event_loop.bind(py));
    context::run(place.context.bind(py), || match &call.args {
        Args::None => call_no_args(callback),
        Args::One(one) => call_one(callback, one.bind(py)),
        Args::Two(first, second) => {
            settling::call(event_loop, callback, first.bind(py), second.bind(py))
        }
        Args::Many(many) => callback.call1(many.bind(py)),
    })
    .map(drop)
}

/// Tells the loop's exception handler.
pub(super) fn report(
    event_loop: &Bound<'_, LoopCore>,
    handle: &Bound<'_, Handle>,
    error: PyErr,
) -> PyResult<()> {
    let py = event_loop.py();
    let name = intern!(py, "_report_callback_error");
    event_loop.call_method1(name, (handle, error.into_value(py))).map(drop)
}
