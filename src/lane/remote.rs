//! Reaching a lane from any thread.
//!
//! [`Remote`] is all that other threads share with a lane: the turn's waker, and the work they
//! want done there. An entry is pushed before the wake-up, and the turn takes the entries in the
//! poll that the wake-up causes, so none is left behind. When the loop stops running, entries that
//! were not taken are dropped by the lane's thread; whoever waits for one learns of it by its
//! channel being closed.

use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::sync::oneshot;

use super::LaneCore;
use crate::bridge::{after_python, into_future};

/// Work for a lane, done on its thread inside the turn.
type Errand = Box<dyn FnOnce(Python<'_>, &Rc<LaneCore>) + Send>;

/// The part of a lane that any thread may touch.
#[derive(Default)]
pub(super) struct Remote {
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Set while the loop runs.
    waker: Option<Waker>,
    errands: Vec<Errand>,
}

impl Remote {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn begins: sets whom to wake, takes what is to be done.
    pub(super) fn begin(&self, waker: &Waker) -> Vec<Errand> {
        let mut shared = self.lock();
        match shared.waker.as_ref() {
            Some(known) if known.will_wake(waker) => {}
            _ => shared.waker = Some(waker.clone()),
        }
        std::mem::take(&mut shared.errands)
    }

    /// The loop does not run any more.
    pub(super) fn end(&self) {
        let left = {
            let mut shared = self.lock();
            shared.waker = None;
            std::mem::take(&mut shared.errands)
        };
        drop(left);
    }

    /// Wakes the turn, if the loop runs.
    pub(super) fn wake(&self) {
        let waker = self.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Hands over an errand; false when the loop does not run.
    fn send(&self, errand: Errand) -> bool {
        let waker = {
            let mut shared = self.lock();
            let Some(waker) = shared.waker.clone() else {
                return false;
            };
            shared.errands.push(errand);
            waker
        };
        waker.wake();
        true
    }
}

/// A running lane, from any thread.
#[derive(Clone)]
pub struct LaneHandle {
    pub(super) index: usize,
    pub(super) remote: Arc<Remote>,
}

impl LaneHandle {
    /// Runs the coroutine that `make` gives, called on the lane, and resolves to its outcome.
    ///
    /// One hand-over and one wake-up; the coroutine's first step is taken on the lane. Dropping
    /// the future cancels the coroutine's Task. If the loop stops first, the outcome is a
    /// `RuntimeError`.
    pub fn spawn<F>(&self, make: F) -> impl Future<Output = PyResult<Py<PyAny>>> + Send + use<F>
    where
        F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let (mut sender, receiver) = oneshot::channel();
        let sent = self.remote.send(Box::new(move |py, core| {
            let started = make(py).and_then(|coroutine| into_future(py, &core.tasks, coroutine));
            match started {
                Err(error) => drop(sender.send(Err(error))),
                Ok(future) => {
                    tokio::task::spawn_local(async move {
                        let outcome = tokio::select! {
                            outcome = future => outcome,
                            // The other side was dropped; leaving drops the future: cancelled.
                            () = sender.closed() => return,
                        };
                        if let Err(Ok(late)) = sender.send(outcome) {
                            // Dropped here, attached, and not on a thread that may not be.
                            Python::attach(|_| drop(late));
                        }
                    });
                }
            }
            after_python(py);
        }));
        let index = self.index;
        async move {
            let stopped = || PyRuntimeError::new_err(format!("lane {index} does not run"));
            if !sent {
                return Err(stopped());
            }
            receiver.await.unwrap_or_else(|_| Err(stopped()))
        }
    }
}
