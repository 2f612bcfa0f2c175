//! A coroutine as a Rust future, on its own lane.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;

use super::completion::{Completion, Next};
use super::task::{Started, TaskFactory};
use super::turn::after_python;

/// Where a finished coroutine leaves its outcome.
#[derive(Default)]
struct Slot {
    outcome: RefCell<Option<PyResult<Py<PyAny>>>>,
    waker: RefCell<Option<Waker>>,
    /// The future was dropped: nobody waits, the outcome is discarded.
    closed: Cell<bool>,
}

impl Completion for Slot {
    fn complete(&self, _py: Python<'_>, outcome: PyResult<Bound<'_, PyAny>>) -> Next {
        if !self.closed.get() {
            self.outcome.replace(Some(outcome.map(Bound::unbind)));
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

/// The outcome of a coroutine; dropping it cancels the coroutine's Task.
#[must_use = "dropping it cancels the coroutine"]
pub struct CoroutineFuture {
    task: Option<Py<PyAny>>,
    slot: Rc<Slot>,
}

/// Starts `coroutine` in a Task of `factory`'s loop (its first step is taken before this returns)
/// and gives its outcome as a future of the same lane.
///
/// # Errors
/// `RuntimeError` when the loop does not run.
pub fn into_future(
    py: Python<'_>,
    factory: &TaskFactory,
    coroutine: Py<PyAny>,
) -> PyResult<CoroutineFuture> {
    match factory.start(py, coroutine, Slot::default()) {
        Started::Ended(slot) => Ok(CoroutineFuture { task: None, slot: Rc::new(slot) }),
        Started::Suspended(waiting, slot) => {
            Ok(CoroutineFuture { task: Some(waiting.into_task()), slot })
        }
        Started::Failed(_, error) => Err(error),
    }
}

impl Future for CoroutineFuture {
    type Output = PyResult<Py<PyAny>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(outcome) = this.slot.outcome.take() {
            this.task = None;
            return Poll::Ready(outcome);
        }
        this.slot.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for CoroutineFuture {
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
    if let Err(error) = task.call_method0(pyo3::intern!(task.py(), "cancel")) {
        error.write_unraisable(task.py(), Some(task));
    }
}
