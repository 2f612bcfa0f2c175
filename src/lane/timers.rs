//! The timers of a loop, by time ([`Deadlines`]), and within a time by the order of the calls.
//!
//! A cancelled timer stays where it is, without its callback, until it comes up or until cancelled
//! ones are the majority, when all of them are swept out: cancelling costs O(1), a timer O(log n),
//! and a million cancelled timers leave no more behind than a hundred.
//!
//! Any thread may add or cancel (asyncio allows only the loop's own; here it is merely safe); only
//! the turn takes. Nothing of Python runs while the lock is held, dropping included.
//!
//! So a sweep has the timers out of the heap while it asks them. A turn that ends meanwhile on another
//! thread finds none to wait for: who swept elsewhere wakes the loop, once they are back
//! ([`LoopCore::note_cancelled_timer`]). No timer is left behind: the turn lets itself be woken, *then*
//! looks for the nearest; if it misses what comes back, the wake-up comes later still.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;

use super::deadlines::Deadlines;
use super::loop_core::LoopCore;
use super::ready::Entry;
use super::timer_handle::TimerHandle;
use super::{alarm, clock};

/// As many cancelled timers stay in any heap, as in asyncio.
const NOT_WORTH_A_SWEEP: usize = 100;

/// What a timer calls.
pub(super) enum Timed {
    Native(Py<TimerHandle>),
    /// `asyncio.TimerHandle`, made in debug mode.
    Foreign(Py<PyAny>),
}

impl Timed {
    fn is_cancelled(&self, py: Python<'_>) -> bool {
        match self {
            Self::Native(_) => self.may_be_cancelled(),
            Self::Foreign(handle) => handle
                .bind(py)
                .getattr(intern!(py, "_cancelled"))
                .and_then(|cancelled| cancelled.is_truthy())
                .unwrap_or(false),
        }
    }

    /// Says without Python code whether `is_cancelled` is worth asking.
    fn may_be_cancelled(&self) -> bool {
        match self {
            Self::Native(handle) => handle.get().is_cancelled(),
            Self::Foreign(_) => true,
        }
    }

    /// It is not in the heap any more: cancelling it leaves nothing to count.
    fn leave(&self, py: Python<'_>) {
        match self {
            Self::Native(handle) => handle.get().leave(),
            Self::Foreign(handle) => {
                // A handle of asyncio's takes the attribute; nothing depends on it otherwise.
                let _ = handle.bind(py).setattr(intern!(py, "_scheduled"), false);
            }
        }
    }
}

struct Timer {
    /// Loop time, seconds.
    when: f64,
    order: u64,
    timed: Timed,
}

impl Ord for Timer {
    /// The greatest is the first to come up.
    fn cmp(&self, other: &Self) -> Ordering {
        other.when.total_cmp(&self.when).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Timer {}

#[derive(Default)]
struct Heap {
    timers: Deadlines<Timer>,
    cancelled: usize,
    next: u64,
}

/// The timers of one loop.
#[derive(Default)]
pub(super) struct Timers {
    heap: Mutex<Heap>,
    /// One was added whose time had come already.
    has_overdue: AtomicBool,
}

impl Timers {
    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a timer for loop time `when`; true when it is now the first to come up.
    pub(super) fn add(&self, when: f64, timed: Timed) -> bool {
        let mut heap = self.heap();
        let order = heap.next;
        heap.next += 1;
        let is_first = heap.timers.peek().is_none_or(|first| when < first.when);
        heap.timers.push(Timer { when, order, timed });
        is_first
    }

    /// The timer that was just added is due: the turn ends after this round, so that it comes to its
    /// place among the callbacks as in asyncio.
    pub(super) fn note_overdue(&self) {
        self.has_overdue.store(true, Relaxed);
    }

    /// Whether one is due that was added since the turn took them.
    pub(super) fn has_overdue(&self) -> bool {
        self.has_overdue.load(Relaxed)
    }

    /// One of the timers in the heap was cancelled. `are_back` is called if all were out of it meanwhile.
    pub(super) fn note_cancelled(&self, py: Python<'_>, are_back: impl FnOnce()) {
        let swept = {
            let mut heap = self.heap();
            heap.cancelled += 1;
            if heap.cancelled <= NOT_WORTH_A_SWEEP || heap.cancelled * 2 <= heap.timers.len() {
                return;
            }
            heap.cancelled = 0;
            std::mem::take(&mut heap.timers)
        };
        let (dead, alive): (Vec<_>, Vec<_>) =
            swept.into_vec().into_iter().partition(|timer| timer.timed.is_cancelled(py));
        {
            let mut heap = self.heap();
            // What was added meanwhile: by another thread, or by a destructor.
            let added = std::mem::replace(&mut heap.timers, Deadlines::of(alive));
            added.into_vec().into_iter().for_each(|timer| heap.timers.push(timer));
        }
        // Before the dead are dropped: that may run Python code, which takes the time it likes.
        are_back();
        for timer in &dead {
            timer.timed.leave(py);
        }
    }

    /// When the next timer comes up; cancelled ones in front of it are dropped.
    pub(super) fn nearest(&self, py: Python<'_>) -> Option<f64> {
        self.pop_cancelled(py);
        self.heap().timers.peek().map(|timer| timer.when)
    }

    fn pop_cancelled(&self, py: Python<'_>) {
        loop {
            let dead = {
                let mut heap = self.heap();
                if heap.cancelled == 0 {
                    return;
                }
                match heap.timers.peek() {
                    Some(first) if !first.timed.may_be_cancelled() => return,
                    _ => {}
                }
                let Some(first) = heap.timers.pop() else {
                    heap.cancelled = 0;
                    return;
                };
                first
            };
            if !dead.timed.is_cancelled(py) {
                self.heap().timers.push(dead);
                return;
            }
            let mut heap = self.heap();
            heap.cancelled = heap.cancelled.saturating_sub(1);
            drop(heap);
            dead.timed.leave(py);
        }
    }

    /// Hands over the callbacks of the timers that are due, and tells how late each is, in seconds.
    ///
    /// `due` is room to be used again: empty before and after.
    ///
    /// # Errors
    /// What a `time` of the loop's own raises.
    pub(super) fn take_due(
        &self,
        event_loop: &Bound<'_, LoopCore>,
        due: &mut Vec<Timed>,
        late: impl Fn(f64),
        mut hand_over: impl FnMut(Entry),
    ) -> PyResult<()> {
        let py = event_loop.py();
        {
            let mut heap = self.heap();
            if heap.timers.is_empty() {
                return Ok(());
            }
            self.has_overdue.store(false, Relaxed);
            let now = if clock::is_systems(event_loop) {
                alarm::now()
            } else {
                drop(heap);
                let now = clock::due_by(event_loop)?;
                heap = self.heap();
                now
            };
            while heap.timers.peek().is_some_and(|first| is_due(first.when, now)) {
                if let Some(timer) = heap.timers.pop() {
                    late(now - timer.when);
                    due.push(timer.timed);
                }
            }
        }
        for timed in due.drain(..) {
            timed.leave(py);
            if timed.is_cancelled(py) {
                let mut heap = self.heap();
                heap.cancelled = heap.cancelled.saturating_sub(1);
                drop(heap);
                continue;
            }
            hand_over(match timed {
                Timed::Native(handle) => Entry::Native(handle.into_bound(py).into_super().unbind()),
                Timed::Foreign(handle) => Entry::Foreign(handle),
            });
        }
        Ok(())
    }

    /// How many timers the heap holds, cancelled ones included.
    pub(super) fn len(&self) -> usize {
        self.heap().timers.len()
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        let left = std::mem::take(&mut *self.heap());
        drop(left);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock now is inside one of the methods above and keeps all alive.
        if let Ok(heap) = self.heap.try_lock() {
            for timer in heap.timers.iter() {
                match &timer.timed {
                    Timed::Native(handle) => visit.call(handle)?,
                    Timed::Foreign(handle) => visit.call(handle)?,
                }
            }
        }
        Ok(())
    }
}

/// A time that is no number is due: nothing can be waited for.
fn is_due(when: f64, now: f64) -> bool {
    when.is_nan() || when <= now
}
