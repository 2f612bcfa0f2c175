//! What is done at the end of every turn for the layers above.
//!
//! One hook a loop: the transports send then what the turn wrote. It is set on the loop's thread and
//! called there; a loop that moved to another thread has none until it is set there.

use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use crate::python::lane_bound::LaneBound;

/// Called on the loop's thread, attached, when the callbacks of a turn have run.
pub trait TurnEnd {
    /// The turn is over.
    fn turn_ended(&self, py: Python<'_>);
}

type Hook = Arc<LaneBound<Rc<dyn TurnEnd>>>;

/// The place for the hook of one loop.
#[derive(Default)]
pub(super) struct TurnEndSlot {
    /// Spares loops without a hook the lock.
    is_set: AtomicBool,
    hook: Mutex<Option<Hook>>,
}

impl TurnEndSlot {
    fn hook(&self) -> MutexGuard<'_, Option<Hook>> {
        self.hook.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, hook: Rc<dyn TurnEnd>) {
        let former = self.hook().replace(Arc::new(LaneBound::new(hook)));
        self.is_set.store(true, Ordering::Relaxed);
        drop(former);
    }

    pub(super) fn call(&self, py: Python<'_>) {
        if !self.is_set.load(Ordering::Relaxed) {
            return;
        }
        let hook = self.hook().clone();
        if let Some(hook) = hook
            && let Some(hook) = hook.get()
        {
            hook.turn_ended(py);
        }
    }
}
