//! The writes of one turn, sent when it is over.
//!
//! Python code that writes to a connection outside of that connection's own callbacks (a coroutine,
//! a timer, another connection) leaves the transport here, and wakes a Tokio task that thereby
//! stands behind the turn: it sends once for each connection, however often it was written to.
//!
//! A loop has one outbox; only its thread touches it. `flush` is called, too, when the loop stops
//! and before it is closed, so nothing that was written is left behind.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::core::TransportCore;
use crate::bridge::after_python;
use crate::python::lane_bound::LaneBound;

/// Transports of a loop that have something to send.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Outbox {
    inner: LaneBound<Rc<Waiting>>,
}

/// What the outbox and its task share.
#[derive(Default)]
pub(super) struct Waiting {
    transports: RefCell<Vec<Py<TransportCore>>>,
    waker: RefCell<Option<Waker>>,
    /// Whether the task lives. It dies only with the runtime.
    started: Cell<bool>,
}

impl Outbox {
    /// # Errors
    /// On another thread than the loop's.
    pub(super) fn waiting(&self) -> PyResult<Rc<Waiting>> {
        let waiting = self.inner.get();
        waiting.cloned().ok_or_else(|| PyRuntimeError::new_err("this loop is another thread's"))
    }
}

impl Waiting {
    /// Has `transport` send when the turn is over.
    pub(super) fn add(&self, transport: &Bound<'_, TransportCore>) {
        let mut transports = self.transports.borrow_mut();
        transports.push(transport.clone().unbind());
        if transports.len() == 1
            && let Some(waker) = self.waker.borrow().as_ref()
        {
            waker.wake_by_ref();
        }
    }

    /// Starts the task, once; to be called where tasks can be spawned.
    pub(super) fn start(self: &Rc<Self>) {
        if !self.started.replace(true) {
            tokio::task::spawn_local(Sender(self.clone()));
        }
    }

    fn flush(&self, py: Python<'_>) {
        let transports = std::mem::take(&mut *self.transports.borrow_mut());
        for transport in &transports {
            TransportCore::send_gathered(transport.bind(py));
        }
        // The room is kept for the next turn, unless something was added while it was lent.
        let mut emptied = transports;
        emptied.clear();
        let mut slot = self.transports.borrow_mut();
        if slot.is_empty() {
            *slot = emptied;
        }
    }
}

#[pymethods]
impl Outbox {
    #[new]
    fn new() -> Self {
        Self { inner: LaneBound::new(Rc::default()) }
    }

    /// Sends now.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.waiting()?.flush(py);
        Ok(())
    }
}

/// The task that sends at the end of a turn.
struct Sender(Rc<Waiting>);

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.waker.replace(None);
        self.0.started.set(false);
    }
}

impl Future for Sender {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = &self.0;
        {
            let mut waker = waiting.waker.borrow_mut();
            if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        if !waiting.transports.borrow().is_empty() {
            Python::attach(|py| {
                waiting.flush(py);
                after_python(py);
            });
        }
        Poll::Pending
    }
}
