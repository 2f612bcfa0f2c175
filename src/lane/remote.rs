//! Waking a lane's turn from any thread.

use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The turn's waker while the loop runs.
#[derive(Default)]
pub(super) struct Remote {
    waker: Mutex<Option<Waker>>,
}

impl Remote {
    /// Sets whom to wake; cheap when it is the same as before.
    pub(super) fn set(&self, waker: &Waker) {
        let mut slot = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(known) if known.will_wake(waker) => {}
            _ => *slot = Some(waker.clone()),
        }
    }

    /// The loop does not run any more.
    pub(super) fn clear(&self) {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Wakes the turn, if the loop runs.
    pub(super) fn wake(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
