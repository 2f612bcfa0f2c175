//! A Rust future as something Python awaits.
//!
//! # How it is awaited
//!
//! [`RustAwaitable`] is a coroutine to Python: whoever awaits it polls the Rust future, in the
//! awaiting Task, in its context. A future that is ready costs no suspension. One that is not makes
//! the awaitable yield itself, and it then is what a Task waits for: it speaks the protocol of
//! `asyncio.Future` (`_asyncio_future_blocking`, `add_done_callback`, `cancel`, `result`) for the
//! time of one suspension. No Tokio task, no `asyncio.Future`, no channel stands in between.
//!
//! # Who owns what, and on which thread
//!
//! The future sits in the awaitable, bound to the loop it was made on; another thread is refused,
//! and an awaitable that dies elsewhere sends the future home. Its waker ([`Signal`]) may be called
//! from anywhere; it makes the home call [`RustAwaitable::resume`], which steps the Task inside the
//! turn.
//!
//! # Races that end well
//!
//! * Woken while it is polled, before the Task waits: the signal is delivered in a later turn.
//! * Woken and cancelled: the first of the two takes the callback. A Task that is cancelled after
//!   its wake-up was queued is told so (`cancel` gives False) and raises at its next step itself.
//! * Cancelled: `result()` raises, the Task throws `CancelledError` in, and that drops the future.
//! * Woken after the loop was closed: the letter is refused, nothing happens.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::exceptions::asyncio::CancelledError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::home::{Home, Live, after_python};
use super::homebound::Homebound;
use super::signal::Signal;
use crate::python::context;
use crate::python::coroutine::returned;

type BoxedFuture = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>>>>;

/// A Rust future that a coroutine awaits, once.
#[pyclass(frozen, weakref, name = "RustAwaitable", module = "treadle._treadle")]
pub struct RustAwaitable {
    inner: Homebound<Inner>,
}

struct Inner {
    home: Rc<Home>,
    /// What is called on the loop it was made on; kept when the loop stops, as a future does.
    live: Rc<Live>,
    /// `None` while it is polled, and once it is done.
    future: RefCell<Option<BoxedFuture>>,
    signal: RefCell<Option<Arc<Signal>>>,
    wait: RefCell<Wait>,
    /// Whether a Task waits, or may come to wait.
    suspended: Cell<bool>,
}

/// One suspension, as the waiting Task sees it.
#[derive(Default)]
struct Wait {
    blocking: bool,
    /// The future wants to be polled.
    woken: bool,
    /// The message of the cancellation.
    cancelled: Option<Py<PyAny>>,
    callback: Option<(Py<PyAny>, Py<PyAny>)>,
}

/// Makes a Rust future awaitable on the loop that runs on the calling thread.
///
/// The awaitable behaves as a coroutine: it starts when it is awaited, by one coroutine, once; and
/// it may be given to `asyncio.create_task`. The future is polled on this thread only, within the
/// awaiting Task and its context, so it needs neither be `Send` nor take care of `ContextVar`s.
/// Cancelling the Task drops the future. A panic becomes a `RuntimeError`; errors are raised where
/// the awaitable is awaited.
///
/// A Task made of the awaitable itself has no Python frame. CPython 3.14's `asyncio ps` reads one all
/// the same, from memory, and fails for that process: await it in an `async def`, or use
/// [`spawn`](super::spawn).
///
/// On a lane, Tokio's own futures (timers, sockets) find the lane's reactor. On any other event
/// loop the future brings its own.
///
/// # Errors
/// `RuntimeError` when no event loop runs on this thread.
///
/// ```no_run
/// use pyo3::prelude::*;
///
/// #[pyfunction]
/// fn nap(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
///     _treadle::bridge::into_awaitable(py, async move {
///         tokio::time::sleep(std::time::Duration::from_secs_f64(seconds)).await;
///         Python::attach(|py| Ok(py.None()))
///     })
/// }
/// ```
pub fn into_awaitable(
    py: Python<'_>,
    future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    let home = Home::current(py)?;
    let bound = Inner {
        live: home.live()?,
        home: home.clone(),
        future: RefCell::new(Some(Box::pin(future))),
        signal: RefCell::default(),
        wait: RefCell::default(),
        suspended: Cell::new(false),
    };
    let inner = Homebound::new(&home, bound);
    Ok(Bound::new(py, RustAwaitable { inner })?.into_any())
}

/// The error that a panic becomes: what it said, as a `RuntimeError`.
pub(super) fn panicked(payload: &(dyn Any + Send)) -> PyErr {
    let said = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    PyRuntimeError::new_err(format!("a Rust future panicked: {said}"))
}

fn spent() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited Rust future")
}

impl RustAwaitable {
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get_or_refuse("this Rust future")
    }

    /// Polls the future; `None` when the awaiting Task has to wait.
    fn step(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let this = slf.get();
        let inner = this.inner()?;
        if !inner.home.is_current(py) {
            return Err(this.inner.misplaced(py, "this Rust future"));
        }
        let wait = inner.wait.take();
        if let Some(message) = wait.cancelled {
            inner.finish();
            return Err(cancelled(py, &message));
        }
        let mut future = inner.future.borrow_mut().take().ok_or_else(spent)?;
        let signal = inner.signal();
        let waker = Waker::from(signal.clone());
        let mut cx = Context::from_waker(&waker);
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut cx))) {
            Ok(Poll::Pending) => {
                inner.future.replace(Some(future));
                inner.wait.borrow_mut().blocking = true;
                if !inner.suspended.replace(true) {
                    inner.home.keep(&signal, slf.clone().unbind());
                }
                Ok(None)
            }
            Ok(Poll::Ready(outcome)) => {
                inner.finish();
                drop(future);
                outcome.map(Some)
            }
            Err(payload) => {
                inner.finish();
                // What a future that panicked left behind may panic again.
                drop(catch_unwind(AssertUnwindSafe(|| drop(future))));
                Err(panicked(&*payload))
            }
        }
    }

    /// The future was woken: the waiting Task is to step.
    pub(super) fn resume(slf: &Bound<'_, Self>) {
        let Some(inner) = slf.get().inner.get() else { return };
        let callback = {
            let mut wait = inner.wait.borrow_mut();
            wait.woken = true;
            wait.callback.take()
        };
        if let Some((callback, context)) = callback {
            let argument = slf.clone().into_any().unbind();
            inner.note(slf, inner.live.call_now(slf.py(), callback, argument, context));
        }
    }

    /// The loop is closed: the Task that waits is not called any more. The two know each other; the
    /// garbage collector might find them on another thread, which could not drop the future.
    pub(super) fn forget_task(&self) {
        let callback = self.inner.get().and_then(|inner| inner.wait.borrow_mut().callback.take());
        drop(callback);
    }

    fn call_back(slf: &Bound<'_, Self>, inner: &Inner, callback: (Py<PyAny>, Py<PyAny>)) {
        let (callback, context) = callback;
        let argument = slf.clone().into_any().unbind();
        inner.note(slf, inner.live.call_soon(slf.py(), callback, argument, context));
    }
}

impl Inner {
    fn signal(&self) -> Arc<Signal> {
        let mut signal = self.signal.borrow_mut();
        signal.get_or_insert_with(|| Signal::new(self.home.mailbox().clone())).clone()
    }

    /// Reports that the Task could not be woken, unless its loop is closed.
    fn note(&self, slf: &Bound<'_, RustAwaitable>, woken: PyResult<()>) {
        if let Err(error) = woken
            && !self.home.is_closed()
        {
            error.write_unraisable(slf.py(), Some(slf));
        }
    }

    /// Nothing comes any more: forgets who waits.
    fn finish(&self) {
        if self.suspended.replace(false)
            && let Some(signal) = self.signal.borrow().as_ref()
        {
            self.home.forget(signal);
        }
        drop(self.wait.take());
    }

    /// Drops the future, which cancels what it stands for.
    fn drop_future(&self, py: Python<'_>) {
        self.finish();
        let future = self.future.borrow_mut().take();
        if future.is_some() {
            drop(catch_unwind(AssertUnwindSafe(|| drop(future))));
            after_python(py);
        }
    }
}

/// `CancelledError` with the message that `cancel` was given.
fn cancelled(py: Python<'_>, message: &Py<PyAny>) -> PyErr {
    if message.is_none(py) {
        CancelledError::new_err(())
    } else {
        CancelledError::new_err((message.clone_ref(py),))
    }
}

#[pymethods]
impl RustAwaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        match Self::step(slf)? {
            None => Ok(Some(slf.clone().into_any().unbind())),
            Some(value) if value.is_none(slf.py()) => Ok(None),
            Some(value) => Err(returned(value.bind(slf.py()))),
        }
    }

    fn send(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        match Self::step(slf)? {
            None => Ok(slf.clone().into_any().unbind()),
            Some(value) => Err(returned(value.bind(slf.py()))),
        }
    }

    #[pyo3(signature = (error, value=None, traceback=None))]
    fn throw(
        &self,
        py: Python<'_>,
        error: Bound<'_, PyAny>,
        value: Option<Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let _ = traceback;
        self.inner()?.drop_future(py);
        // A class is raised as an instance of it, as `throw` of a coroutine does.
        Err(PyErr::from_value(value.unwrap_or(error)))
    }

    fn close(&self, py: Python<'_>) {
        // A coroutine that is collected on another thread closes what it awaits there; the future
        // is sent home with the awaitable, which goes next.
        if let Some(inner) = self.inner.get() {
            inner.drop_future(py);
        }
    }

    #[getter(_asyncio_future_blocking)]
    fn blocking(&self) -> Option<bool> {
        let inner = self.inner.get()?;
        inner.suspended.get().then(|| inner.wait.borrow().blocking)
    }

    #[setter(_asyncio_future_blocking)]
    fn set_blocking(&self, blocking: bool) -> PyResult<()> {
        self.inner()?.wait.borrow_mut().blocking = blocking;
        Ok(())
    }

    fn get_loop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.inner()?.live.event_loop().clone_ref(py))
    }

    #[pyo3(signature = (callback, *, context=None))]
    fn add_done_callback(
        slf: &Bound<'_, Self>,
        callback: Py<PyAny>,
        context: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let inner = slf.get().inner()?;
        let context = match context {
            Some(context) => context,
            None => context::copy_current(slf.py())?.unbind(),
        };
        let mut wait = inner.wait.borrow_mut();
        if !inner.suspended.get() || wait.callback.is_some() {
            return Err(PyRuntimeError::new_err("this Rust future is being awaited already"));
        }
        if wait.woken || wait.cancelled.is_some() {
            drop(wait);
            RustAwaitable::call_back(slf, inner, (callback, context));
        } else {
            wait.callback = Some((callback, context));
        }
        Ok(())
    }

    fn remove_done_callback(&self, callback: &Bound<'_, PyAny>) -> PyResult<usize> {
        let removed = {
            let mut wait = self.inner()?.wait.borrow_mut();
            match &wait.callback {
                Some((known, _)) if known.bind(callback.py()).is(callback) => wait.callback.take(),
                _ => None,
            }
        };
        Ok(usize::from(removed.is_some()))
    }

    /// Ends the suspension with `CancelledError`; False when it has ended already.
    #[pyo3(signature = (msg=None))]
    fn cancel(slf: &Bound<'_, Self>, msg: Option<Py<PyAny>>) -> PyResult<bool> {
        let inner = slf.get().inner()?;
        let callback = {
            let mut wait = inner.wait.borrow_mut();
            if !inner.suspended.get() || wait.woken || wait.cancelled.is_some() {
                return Ok(false);
            }
            wait.cancelled = Some(msg.unwrap_or_else(|| slf.py().None()));
            wait.callback.take()
        };
        if let Some(callback) = callback {
            Self::call_back(slf, inner, callback);
        }
        Ok(true)
    }

    /// What the Task asks at its wake-up: raises if it was cancelled. The value comes by awaiting.
    fn result(&self, py: Python<'_>) -> PyResult<()> {
        match &self.inner()?.wait.borrow().cancelled {
            Some(message) => Err(cancelled(py, message)),
            None => Ok(()),
        }
    }

    fn exception(&self, py: Python<'_>) -> PyResult<()> {
        self.result(py)
    }

    fn done(&self) -> PyResult<bool> {
        let wait = self.inner()?.wait.borrow();
        Ok(wait.woken || wait.cancelled.is_some())
    }

    fn cancelled(&self) -> PyResult<bool> {
        Ok(self.inner()?.wait.borrow().cancelled.is_some())
    }

    /// For the `repr` of a Task that runs nothing else.
    #[getter]
    fn __name__(&self) -> &'static str {
        "RustAwaitable"
    }

    #[getter]
    fn __qualname__(&self) -> &'static str {
        "RustAwaitable"
    }

    fn __repr__(&self) -> String {
        let state = match self.inner.get() {
            None => "on another thread",
            Some(inner) if inner.suspended.get() => "suspended",
            Some(inner) if inner.future.try_borrow().is_ok_and(|f| f.is_none()) => "done",
            Some(_) => "not awaited",
        };
        format!("<RustAwaitable {state}>")
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // While a Task waits here, its home keeps both alive anyway.
        if let Some(inner) = self.inner.get()
            && let Ok(wait) = inner.wait.try_borrow()
            && let Some((callback, context)) = &wait.callback
        {
            visit.call(callback)?;
            visit.call(context)?;
        }
        Ok(())
    }
}
