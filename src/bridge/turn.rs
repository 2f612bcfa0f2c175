//! The lane's turn, seen from below: how Rust code that ran Python makes the loop look.
//!
//! Python code called from a Tokio task may leave callbacks in the loop's ready queue or set
//! timers. [`after_python`] notices and wakes the task that runs the loop's turn. The state is the
//! thread's own: one loop runs on a thread at a time, entered by [`Turn::enter`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use pyo3::prelude::*;

use super::home::Home;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Turn>>> = const { RefCell::new(None) };
}

/// What the turn of the running loop looks at.
pub struct Turn {
    /// `loop._ready`, the same deque for the loop's life.
    ready: Py<PyAny>,
    /// `loop._scheduled`, which asyncio replaces when it sweeps cancelled timers.
    scheduled: RefCell<Py<PyAny>>,
    /// Length of `scheduled` when the turn last looked.
    seen_timers: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

/// Makes a turn current until dropped.
#[must_use]
pub struct Entered(Option<Rc<Turn>>);

impl Turn {
    /// The turn of a loop with these queues.
    pub fn new(ready: Py<PyAny>, scheduled: Py<PyAny>) -> Self {
        Self {
            ready,
            scheduled: RefCell::new(scheduled),
            seen_timers: Cell::new(0),
            waker: RefCell::new(None),
        }
    }

    /// Makes this the current thread's turn.
    pub fn enter(self: &Rc<Self>) -> Entered {
        Entered(CURRENT.replace(Some(self.clone())))
    }

    /// The ready queue.
    pub fn ready<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.ready.bind(py).clone()
    }

    /// The timer heap.
    pub fn scheduled<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.scheduled.borrow().bind(py).clone()
    }

    /// Takes note of the timer heap, which asyncio may have replaced.
    pub fn saw_timers(&self, scheduled: Bound<'_, PyAny>, len: usize) {
        self.scheduled.replace(scheduled.unbind());
        self.seen_timers.set(len);
    }

    /// Sets whom to wake.
    pub fn set_waker(&self, waker: &Waker) {
        let mut slot = self.waker.borrow_mut();
        match slot.as_ref() {
            Some(known) if known.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    }

    /// Wakes the turn.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn has_work(&self, py: Python<'_>) -> bool {
        let len = |object: &Py<PyAny>| object.bind(py).len().unwrap_or(0);
        len(&self.ready) > 0 || len(&self.scheduled.borrow()) != self.seen_timers.get()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.replace(self.0.take());
    }
}

/// To be called after a Tokio task ran Python code: wakes the turn if that left it work, or if
/// another thread did meanwhile.
pub fn after_python(py: Python<'_>) {
    CURRENT.with_borrow(|current| {
        if let Some(turn) = current
            && turn.has_work(py)
        {
            turn.wake();
        }
    });
    Home::look();
}
