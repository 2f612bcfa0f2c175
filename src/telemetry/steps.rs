//! Which request a suspended Task works for, so that the time of its further steps is counted there.
//!
//! Belongs to a lane's thread. The key is the address of the Task's context: each has one of its own,
//! and its steps are queued with it. Who puts a Task in here keeps it alive, and takes it out before
//! letting go; so no other context has that address meanwhile.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::meter::LaneMeter;
use super::timing::Timing;

struct Suspended {
    timing: Rc<Timing>,
    number: u64,
}

/// The suspended requests of one lane.
#[derive(Default)]
pub struct Steps {
    suspended: RefCell<FxHashMap<usize, Suspended>>,
    meter: RefCell<Option<Arc<LaneMeter>>>,
    /// So that loops without requests pay for a look at one number.
    count: Cell<usize>,
}

/// A step that has begun.
#[derive(Clone, Copy)]
#[must_use]
pub struct Step(usize);

impl Steps {
    fn is_empty(&self) -> bool {
        self.count.get() == 0
    }

    /// The Task with this context suspended; it works for the request in hand of `timing`.
    pub fn suspend(&self, context: usize, timing: &Rc<Timing>, meter: &Arc<LaneMeter>) {
        let suspended = Suspended { timing: Rc::clone(timing), number: timing.number() };
        self.suspended.borrow_mut().insert(context, suspended);
        self.count.set(self.suspended.borrow().len());
        let mut slot = self.meter.borrow_mut();
        if slot.is_none() {
            *slot = Some(Arc::clone(meter));
        }
    }

    /// The Task has ended, or is nobody's.
    pub fn forget(&self, context: usize) {
        self.suspended.borrow_mut().remove(&context);
        self.count.set(self.suspended.borrow().len());
    }

    /// Something runs in this context.
    #[inline]
    pub fn enter(&self, context: usize) -> Option<Step> {
        if self.is_empty() { None } else { self.enter_known(context) }
    }

    fn enter_known(&self, context: usize) -> Option<Step> {
        let suspended = self.suspended.borrow();
        let known = suspended.get(&context)?;
        if let Some(meter) = &*self.meter.borrow()
            && known.timing.number() == known.number
        {
            known.timing.resumed(meter.clock.now());
            meter.attends(known.timing.route(), known.timing.id());
        }
        Some(Step(context))
    }

    /// The step is over.
    pub fn leave(&self, step: Step) {
        let meter = self.meter.borrow();
        let Some(meter) = &*meter else { return };
        meter.attends_nothing();
        if let Some(known) = self.suspended.borrow().get(&step.0)
            && known.timing.number() == known.number
        {
            known.timing.ran(meter.clock.now());
        }
    }
}
