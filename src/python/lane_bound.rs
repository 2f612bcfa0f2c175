//! State of one lane inside Python objects that any thread may hold.
//!
//! A Python object can be passed to another thread, and the garbage collector may finalise it on
//! any thread. [`LaneBound`] makes the Rust half of such an object safe: the value is handed out
//! only on the thread that made it. If the last reference dies elsewhere, the value waits in that
//! thread's [`shelter`](super::shelter) until the thread drops it; without one it is leaked.

use std::mem::ManuallyDrop;
use std::ops::Deref;

use super::shelter::send_home;

thread_local! {
    /// Its address identifies the thread for as long as the thread lives.
    static MARK: u8 = const { 0 };
}

/// What tells the calling thread from every other that runs now; never 0.
pub fn this_thread() -> usize {
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// A value that only the creating thread can reach.
///
/// It borrows nothing: what proves that its thread is attached, as a `Bound` does, would be at hand
/// where that is detached.
///
/// ```compile_fail
/// use pyo3::prelude::*;
///
/// fn bind<'py>(object: Bound<'py, PyAny>) {
///     _treadle::python::lane_bound::LaneBound::new(object);
/// }
/// ```
pub struct LaneBound<T: 'static> {
    owner: usize,
    value: ManuallyDrop<T>,
}

// SAFETY: `get` gives out the value only on the owning thread, and `drop` drops it only there. It has
// no lifetime, so it proves nothing that ends before it, such as that the thread is attached.
unsafe impl<T: 'static> Send for LaneBound<T> {}
// SAFETY: as above: a shared reference on another thread reaches nothing of `T`.
unsafe impl<T: 'static> Sync for LaneBound<T> {}

impl<T: 'static> LaneBound<T> {
    /// Binds `value` to the calling thread.
    pub fn new(value: T) -> Self {
        Self { owner: this_thread(), value: ManuallyDrop::new(value) }
    }

    /// The value, on its own thread; `None` on any other.
    ///
    /// A thread that ended may hand its identity to a later one; the value was then made by a
    /// thread that no longer runs, so there is still only one thread that can reach it.
    pub fn get(&self) -> Option<&T> {
        (self.owner == this_thread()).then(|| self.value.deref())
    }
}

impl<T: 'static> Drop for LaneBound<T> {
    fn drop(&mut self) {
        let owner = self.owner;
        if owner == this_thread() {
            // SAFETY: dropped once, here, by the owning thread.
            unsafe { ManuallyDrop::drop(&mut self.value) }
        } else {
            send_home(owner, || {
                // SAFETY: taken once, here, and not used afterwards. It is only moved on this thread:
                // who drops what it is put in drops it on its own, or not at all.
                let value = unsafe { ManuallyDrop::take(&mut self.value) };
                Box::new(Self { owner, value: ManuallyDrop::new(value) })
            });
        }
    }
}
