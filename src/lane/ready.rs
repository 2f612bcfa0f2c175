//! The ready queue: callbacks that wait for the next turn, and the wake-up of that turn.
//!
//! # Two queues
//!
//! Nearly all callbacks are pushed by the thread that runs the loop, and only that thread takes
//! them. They lie in a queue of the thread's own ([`HERE`]), which nobody else can reach and nothing
//! guards. What other threads push lies in `others`, behind a lock; so does everything while the loop
//! does not run. Each queue keeps its order; between two threads there is none to keep.
//!
//! # Why no callback is left behind
//!
//! `scheduled` says that a turn is on its way or running, so that pushing wakes it once and not for
//! every callback. Another thread puts its callback down, says so in `has_others`, *then* reads
//! `scheduled`; the turn clears `scheduled`, *then* reads `has_others`. All four are sequentially
//! consistent, so either the pusher finds the flag down and wakes, or the turn finds the callback.
//!
//! Nothing of Python runs while a lock is held or a queue is borrowed: entries are dropped outside.
//!
//! # Handles that are used again
//!
//! Most callers of `call_soon` drop the handle that it gives. One that only the turn refers to is
//! emptied before its callback runs and lies beside the thread's queue until the next `call_soon`
//! there takes it; what is left of them goes when the loop ends.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::handle::Handle;
use super::remote_handle::RemoteHandle;
use super::wakeup::Wakeup;
use crate::bridge::Resumption;
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
    /// A Task whose future is done.
    Wakeup(Wakeup),
    /// A coroutine that gave way.
    Resumed(Resumption),
}

/// The callbacks that a thread has pushed to the loop that it runs.
struct Here {
    /// Which loop that is, by the address of its [`Ready`]; 0 is none.
    of: usize,
    queue: VecDeque<Entry>,
    /// Empty handles to be used again.
    spares: Vec<Py<Handle>>,
}

impl Here {
    const NOWHERE: Self = Self { of: 0, queue: VecDeque::new(), spares: Vec::new() };
}

thread_local! {
    static HERE: RefCell<Here> = const { RefCell::new(Here::NOWHERE) };
}

const MOST_SPARES: usize = 1024;

/// The callbacks of one loop, in order.
#[derive(Default)]
pub(super) struct Ready {
    others: Mutex<VecDeque<Entry>>,
    /// There is something in `others`.
    has_others: AtomicBool,
    /// A turn is on its way or running.
    scheduled: AtomicBool,
    /// The turn's task, while the loop runs.
    waker: Mutex<Option<Waker>>,
    /// The lane's, once the loop ran: told when a turn is called for.
    meter: OnceLock<Arc<LaneMeter>>,
}

impl Ready {
    fn others(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Does something with what this thread has, if it runs the loop.
    #[inline]
    fn at_home<R>(&self, body: impl FnOnce(&mut Here) -> R) -> Option<R> {
        // A thread whose locals are gone runs no loop.
        let done = HERE.try_with(|here| {
            let mut here = here.borrow_mut();
            (here.of == self.address()).then(|| body(&mut here))
        });
        done.ok().flatten()
    }

    /// Does something with this thread's queue, if it is the loop's.
    #[inline]
    fn here<R>(&self, body: impl FnOnce(&mut VecDeque<Entry>) -> R) -> Option<R> {
        self.at_home(|here| body(&mut here.queue))
    }

    /// The calling thread runs the loop, inside whatever other loop it runs, until the guard goes.
    pub(super) fn begin(&self) -> Running<'_> {
        let queue = std::mem::take(&mut *self.others());
        let here = Here { of: self.address(), queue, spares: Vec::new() };
        Running { ready: self, before: HERE.replace(here) }
    }

    /// Adds a callback for the next turn and sees to it that there is one.
    pub(super) fn push(&self, entry: Entry) {
        let mut entry = Some(entry);
        self.here(|queue| {
            if let Some(entry) = entry.take() {
                queue.push_back(entry);
            }
        });
        if let Some(entry) = entry {
            self.others().push_back(entry);
            self.has_others.store(true, Ordering::SeqCst);
        }
        self.wake();
    }

    /// Adds the callback of a `call_soon` and sees to it that there is a turn; gives its object.
    ///
    /// # Errors
    /// `MemoryError`.
    pub(super) fn push_soon<'py>(
        &self,
        py: Python<'py>,
        handle: Handle,
    ) -> PyResult<Bound<'py, Handle>> {
        // A spare that somebody found who looks through all objects is dropped with nothing borrowed.
        let (mut handle, mut found) = (handle, None);
        let used_again = self.at_home(|here| {
            let mut spare = here.spares.pop()?;
            if !handle.move_into(py, &mut spare) {
                found = Some(spare);
                return None;
            }
            here.queue.push_back(Entry::Once(spare.clone_ref(py)));
            Some(spare)
        });
        if let Some(object) = used_again.flatten() {
            self.wake();
            return Ok(object.into_bound(py));
        }
        drop(found);
        let object = Bound::new(py, handle)?;
        self.push(Entry::Once(object.clone().unbind()));
        Ok(object)
    }

    /// Keeps an empty handle that nobody else has, to be used again.
    #[inline]
    pub(super) fn keep(&self, handle: Py<Handle>) {
        let mut handle = Some(handle);
        self.at_home(|here| {
            if here.spares.len() < MOST_SPARES {
                here.spares.extend(handle.take());
            }
        });
    }

    /// Adds callbacks from inside the turn, which will take them.
    pub(super) fn extend(&self, entries: impl Iterator<Item = Entry>) {
        self.here(|queue| queue.extend(entries));
    }

    /// Adds a callback from inside the turn, which will take it.
    pub(super) fn append(&self, entry: Entry) {
        self.here(|queue| queue.push_back(entry));
    }

    /// Puts back what the turn did not come to.
    pub(super) fn put_back(&self, mut left: VecDeque<Entry>) {
        self.here(|queue| {
            left.append(queue);
            std::mem::swap(queue, &mut left);
        });
    }

    /// Fills `batch`, which is empty, with the waiting callbacks.
    pub(super) fn take(&self, batch: &mut VecDeque<Entry>) {
        self.here(|queue| std::mem::swap(queue, batch));
        if self.has_others.load(Ordering::Relaxed) {
            self.has_others.store(false, Ordering::SeqCst);
            batch.append(&mut self.others());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_others.load(Ordering::SeqCst)
            && self.here(|queue| queue.is_empty()) != Some(false)
    }

    /// Has a turn run; from any thread.
    pub(super) fn wake(&self) {
        if !self.scheduled.load(Ordering::SeqCst) && !self.scheduled.swap(true, Ordering::SeqCst) {
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
        self.scheduled.store(false, Ordering::SeqCst);
    }

    /// The turn has seen to the next one itself.
    pub(super) fn keep_turning(&self) {
        self.scheduled.store(true, Ordering::Relaxed);
    }

    /// The loop does not run any more.
    fn end(&self, mut here: Here) {
        if here.of == self.address() {
            let mut others = self.others();
            here.queue.append(&mut others);
            std::mem::swap(&mut *others, &mut here.queue);
        }
        let waker = self.waker().take();
        self.scheduled.store(false, Ordering::SeqCst);
        drop((waker, here));
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        let own = self.here(std::mem::take);
        let others = std::mem::take(&mut *self.others());
        drop((own, others));
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock now is inside one of the methods above and keeps all alive. So does
        // the thread that runs the loop, for the callbacks in a queue that only it can reach.
        if let Ok(queue) = self.others.try_lock() {
            for entry in &*queue {
                match entry {
                    Entry::Once(handle) | Entry::Native(handle) => visit.call(handle)?,
                    Entry::Remote(handle) => visit.call(handle)?,
                    Entry::Foreign(handle) => visit.call(handle)?,
                    Entry::Wakeup(wakeup) => {
                        visit.call(&wakeup.callback)?;
                        visit.call(&wakeup.future)?;
                        visit.call(&wakeup.context)?;
                    }
                    // Its Task is the business of the thread that it belongs to.
                    Entry::Resumed(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A loop that runs on this thread.
#[must_use]
pub(super) struct Running<'a> {
    ready: &'a Ready,
    /// What the thread ran before.
    before: Here,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let here = HERE.replace(std::mem::replace(&mut self.before, Here::NOWHERE));
        self.ready.end(here);
    }
}
