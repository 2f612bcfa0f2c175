//! The writes of one turn, sent when it is over.
//!
//! Python code that writes to a connection outside of that connection's own callbacks (a coroutine,
//! a timer, another connection) leaves the transport here, and has the loop take a turn: at its end
//! each connection sends once, however often it was written to.
//!
//! A loop has one outbox a thread; only that thread touches it. `flush` is called, too, when the
//! loop stops and before it is closed, so nothing that was written is left behind.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::core::TransportCore;
use crate::lane::{LoopCore, TurnEnd};
use crate::python::lane_bound::LaneBound;

/// Transports of a loop that have something to send.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Outbox {
    inner: Mutex<Option<Arc<LaneBound<Rc<Waiting>>>>>,
}

/// What an outbox holds on one thread.
#[derive(Default)]
pub(super) struct Waiting {
    transports: RefCell<Vec<Py<TransportCore>>>,
}

impl Outbox {
    fn inner(&self) -> MutexGuard<'_, Option<Arc<LaneBound<Rc<Waiting>>>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this thread has of it.
    fn here(&self) -> Option<Rc<Waiting>> {
        self.inner().as_ref().and_then(|bound| bound.get().cloned())
    }

    /// What this thread has of it, made now if another thread ran the loop before.
    pub(super) fn waiting(&self, event_loop: &LoopCore) -> Rc<Waiting> {
        if let Some(waiting) = self.here() {
            return waiting;
        }
        let waiting = Rc::<Waiting>::default();
        let former = self.inner().replace(Arc::new(LaneBound::new(waiting.clone())));
        drop(former);
        event_loop.at_turn_end(waiting.clone());
        waiting
    }
}

impl TurnEnd for Waiting {
    fn turn_ended(&self, py: Python<'_>) {
        if !self.transports.borrow().is_empty() {
            self.flush(py);
        }
    }
}

impl Waiting {
    /// Has `transport` send when the turn of `event_loop` is over.
    pub(super) fn add(&self, transport: &Bound<'_, TransportCore>, event_loop: &LoopCore) {
        let mut transports = self.transports.borrow_mut();
        transports.push(transport.clone().unbind());
        if transports.len() == 1 {
            event_loop.wake();
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
        Self { inner: Mutex::new(None) }
    }

    /// Sends now what this thread has written.
    fn flush(&self, py: Python<'_>) {
        if let Some(waiting) = self.here() {
            waiting.flush(py);
        }
    }
}
