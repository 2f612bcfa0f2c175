//! The homes of lanes whose thread ends.
//!
//! A lane does not go with its thread: its loop may run on another. But its home does not move, so it
//! is told. Who owns a home is the lane; the thread knows it weakly, and alone reaches it.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use pyo3::prelude::*;

use super::home::Home;

thread_local! {
    static LANES: RefCell<Lanes> = const { RefCell::new(Lanes(Vec::new())) };
}

struct Lanes(Vec<Weak<Home>>);

impl Drop for Lanes {
    fn drop(&mut self) {
        let homes: Vec<_> = self.0.iter().filter_map(Weak::upgrade).collect();
        if homes.is_empty() {
            return;
        }
        // Attached: what is suspended can be dropped on this thread only. An interpreter that is
        // gone has nobody who waits.
        Python::try_attach(|_| homes.iter().for_each(|home| home.thread_ends()));
    }
}

/// Has `home`, which is the calling thread's, told when that ends.
pub(super) fn tell(home: &Rc<Home>) {
    // A thread that is ending has no list any more.
    let _ = LANES.try_with(|lanes| {
        let known = &mut lanes.borrow_mut().0;
        known.retain(|lane| lane.strong_count() > 0);
        known.push(Rc::downgrade(home));
    });
}
