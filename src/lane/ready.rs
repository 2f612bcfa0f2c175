//! The ready queue: callbacks that wait for the next turn, and the wake-up of that turn.
//!
//! Any thread may push; only the turn takes. `scheduled` says that a turn is on its way or running,
//! so that pushing wakes it once and not for every callback. It is cleared before the turn looks at
//! the queue for the last time: a push that comes after that look finds the flag down and wakes, a
//! push that came before is found by the look. (The queue's lock puts the two in order.)
//!
//! Nothing of Python runs while a lock is held: entries are dropped outside.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::handle::{Handle, RemoteHandle};
use crate::telemetry::LaneMeter;

/// A callback that waits.
pub(super) enum Entry {
    /// A handle of `call_soon`, which is done when it has run.
    Once(Py<Handle>),
    /// The same from another thread.
    Remote(Py<RemoteHandle>),
    /// A timer, or the handle of a watched descriptor.
    Native(Py<Handle>),
    /// asyncio's own: the loop is in debug mode, or inherited code made it.
    Foreign(Py<PyAny>),
}

/// The callbacks of one loop, in order.
#[derive(Default)]
pub(super) struct Ready {
    queue: Mutex<VecDeque<Entry>>,
    /// A turn is on its way or running.
    scheduled: AtomicBool,
    /// The turn's task, while the loop runs.
    waker: Mutex<Option<Waker>>,
    /// The lane's, once the loop ran: told when a turn is called for.
    meter: OnceLock<Arc<LaneMeter>>,
}

impl Ready {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a callback for the next turn and sees to it that there is one.
    pub(super) fn push(&self, entry: Entry) {
        self.queue().push_back(entry);
        self.wake();
    }

    /// Adds callbacks from inside the turn, which will take them.
    pub(super) fn extend(&self, entries: impl Iterator<Item = Entry>) {
        self.queue().extend(entries);
    }

    /// Puts back what the turn did not come to.
    pub(super) fn put_back(&self, mut left: VecDeque<Entry>) {
        let mut queue = self.queue();
        left.append(&mut queue);
        *queue = left;
    }

    /// Swaps the waiting callbacks with `batch`, which is empty.
    pub(super) fn take(&self, batch: &mut VecDeque<Entry>) {
        std::mem::swap(&mut *self.queue(), batch);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    /// Has a turn run; from any thread.
    pub(super) fn wake(&self) {
        if !self.scheduled.load(Ordering::Relaxed) && !self.scheduled.swap(true, Ordering::AcqRel) {
            if let Some(meter) = self.meter.get() {
                meter.calls_turn();
            }
            // Not under the lock: waking another thread is a system call.
            let waker = self.waker().clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Has the lane's meter told of turns.
    pub(super) fn count_for(&self, meter: &Arc<LaneMeter>) {
        // A loop has one lane for life.
        let _ = self.meter.set(meter.clone());
    }

    /// The turn begins; `waker` wakes the next.
    pub(super) fn begin_turn(&self, waker: &Waker) {
        self.scheduled.store(true, Ordering::Relaxed);
        let mut slot = self.waker();
        if !slot.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }

    /// The turn is over: what is pushed from now on wakes the next.
    pub(super) fn end_turn(&self) {
        self.scheduled.store(false, Ordering::Release);
    }

    /// The turn has seen to the next one itself.
    pub(super) fn keep_turning(&self) {
        self.scheduled.store(true, Ordering::Relaxed);
    }

    /// The loop does not run any more.
    pub(super) fn end(&self) {
        let waker = self.waker().take();
        self.scheduled.store(false, Ordering::Release);
        drop(waker);
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        let left = std::mem::take(&mut *self.queue());
        drop(left);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock now is inside one of the methods above and keeps all alive.
        if let Ok(queue) = self.queue.try_lock() {
            for entry in &*queue {
                match entry {
                    Entry::Once(handle) | Entry::Native(handle) => visit.call(handle)?,
                    Entry::Remote(handle) => visit.call(handle)?,
                    Entry::Foreign(handle) => visit.call(handle)?,
                }
            }
        }
        Ok(())
    }
}
