//! What Python awaits, as a Rust future on the same lane.
//!
//! [`CoroutineFuture`] is `Send` by type, so that it fits wherever a future is asked to be, but its
//! work stays at home: polled on another thread it resolves to a `RuntimeError`, dropped there it
//! is sent home and cancels its Task there. From another thread use
//! [`LaneHandle`](super::LaneHandle).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;

use super::completion::{Completion, Next, own};
use super::home::{Home, after_python};
use super::homebound::Homebound;
use super::start::start;

/// Where a finished coroutine leaves its outcome.
#[derive(Default)]
struct Slot {
    outcome: RefCell<Option<PyResult<Py<PyAny>>>>,
    waker: RefCell<Option<Waker>>,
    /// The future was dropped: nobody waits, the outcome is discarded.
    closed: Cell<bool>,
}

impl Completion for Slot {
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        if !self.closed.get() {
            self.outcome.replace(Some(own(py, outcome).map(Bound::unbind)));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
        Next::Done
    }
}

/// Whether `error` is `asyncio.CancelledError`.
pub fn is_cancelled(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::asyncio::CancelledError>(py)
}

/// The outcome of what Python awaits; dropping it cancels that.
#[must_use = "dropping it cancels the coroutine"]
pub struct CoroutineFuture(State);

enum State {
    /// It could not be started.
    Failed(Option<PyErr>),
    Started(Homebound<Started>),
}

struct Started {
    task: RefCell<Option<Py<PyAny>>>,
    slot: Rc<Slot>,
}

/// Starts an awaitable on this thread's loop and gives its outcome as a future.
///
/// Anything that Python can await will do: a coroutine runs in a Task of its own, which inherits
/// the current context and takes its first step before this returns; an `asyncio.Future` or a Task
/// is followed as it is; any other object with `__await__` is awaited in a Task. Between the two
/// sides is one slot of memory: no channel, no thread-safe call, no system call.
///
/// Dropping the future cancels the Task, or the future that was followed. An exception keeps its
/// traceback. What cannot be started says so in the outcome: `TypeError` for what cannot be
/// awaited, `RuntimeError` without a running loop, or for a future of another one.
///
/// ```no_run
/// use pyo3::prelude::*;
///
/// /// Awaits `first`, then `second`.
/// #[pyfunction]
/// fn one_after_the_other<'py>(
///     first: Bound<'py, PyAny>,
///     second: Py<PyAny>,
/// ) -> PyResult<Bound<'py, PyAny>> {
///     let py = first.py();
///     let first = _treadle::bridge::into_future(&first);
///     _treadle::bridge::into_awaitable(py, async move {
///         first.await?;
///         let second = Python::attach(|py| _treadle::bridge::into_future(second.bind(py)));
///         second.await
///     })
/// }
/// ```
pub fn into_future(awaitable: &Bound<'_, PyAny>) -> CoroutineFuture {
    match Home::current(awaitable.py()) {
        Ok(home) => into_future_at(&home, awaitable),
        Err(error) => CoroutineFuture(State::Failed(Some(error))),
    }
}

/// The same for who knows the thread's home.
pub(super) fn into_future_at(home: &Home, awaitable: &Bound<'_, PyAny>) -> CoroutineFuture {
    let slot = Rc::new(Slot::default());
    match start(home, awaitable, slot.clone()) {
        Ok(task) => {
            let started = Started { task: RefCell::new(task), slot };
            CoroutineFuture(State::Started(Homebound::new(home, started)))
        }
        Err(error) => CoroutineFuture(State::Failed(Some(error))),
    }
}

impl Future for CoroutineFuture {
    type Output = PyResult<Py<PyAny>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            State::Failed(error) => match error.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending, // polled after it was done
            },
            State::Started(started) => match started.get_or_refuse("this future of a coroutine") {
                Ok(started) => started.poll(cx),
                Err(refused) => Poll::Ready(Err(refused)),
            },
        }
    }
}

impl Started {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Some(outcome) = self.slot.outcome.take() {
            drop(self.task.take());
            return Poll::Ready(outcome);
        }
        let mut waker = self.slot.waker.borrow_mut();
        match waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.slot.closed.set(true);
        if self.slot.outcome.borrow().is_some() {
            return;
        }
        if let Some(task) = self.task.take() {
            Python::attach(|py| {
                cancel(task.bind(py));
                after_python(py);
            });
        }
    }
}

/// Asks a Task to end; a failure to do so is reported, not raised: nobody could handle it.
pub fn cancel(task: &Bound<'_, PyAny>) {
    if let Err(error) = task.call_method0(pyo3::intern!(task.py(), "cancel"))
        && !loop_is_closed(task)
    {
        error.write_unraisable(task.py(), Some(task));
    }
}

/// A Task of a closed loop will not run again: there is nothing to cancel.
fn loop_is_closed(task: &Bound<'_, PyAny>) -> bool {
    let closed = || task.call_method0("get_loop")?.call_method0("is_closed")?.is_truthy();
    closed().unwrap_or(false)
}
