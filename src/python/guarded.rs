//! A value inside a Python object that is locked only when somebody else could reach it.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::PyClass;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;

use super::unique::is_alone;

/// A value behind a lock; who holds the only reference to the Python object that it is part of
/// exchanges it without ([`replace_alone`]).
pub struct Guarded<T> {
    lock: Mutex<()>,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by one thread at a time: under the lock, or by the holder of the
// only reference to what it is part of. It moves between threads, so it must be `Send`.
unsafe impl<T: Send> Sync for Guarded<T> {}

/// The value, while it is locked.
pub struct Guard<'a, T> {
    value: &'a mut T,
    _locked: MutexGuard<'a, ()>,
}

impl<T> Guarded<T> {
    /// Nobody has it yet.
    pub fn new(value: T) -> Self {
        Self { lock: Mutex::new(()), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        self.guard(self.lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the lock, if nobody has it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.lock.try_lock() {
            Ok(locked) => Some(self.guard(locked)),
            Err(TryLockError::Poisoned(poisoned)) => Some(self.guard(poisoned.into_inner())),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn guard<'a>(&'a self, locked: MutexGuard<'a, ()>) -> Guard<'a, T> {
        // SAFETY: the lock is held as long as the reference is there. Who exchanges the value
        // without it has the only reference to the object, and lent that to nobody: there is no `self`.
        Guard { value: unsafe { &mut *self.value.get() }, _locked: locked }
    }

    /// The value of one that nobody else has.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
    }
}

/// Puts `value` into the part of `object` that `part` names and gives what was there, if `object` is
/// the only reference to its object, and the part lies in that; else gives `value` back.
///
/// # Errors
/// `value`.
pub fn replace_alone<C: PyClass<Frozen = True> + Sync, T>(
    py: Python<'_>,
    object: &mut Py<C>,
    part: impl for<'a> FnOnce(&'a C) -> &'a Guarded<T>,
    value: T,
) -> Result<T, T> {
    let whole = object.get();
    let place = part(whole).value.get();
    let start = std::ptr::from_ref(whole).addr();
    let is_inside = (start..start + size_of::<C>()).contains(&place.addr());
    if !is_inside || !is_alone(py, object) {
        return Err(value);
    }
    // SAFETY: `place` is inside the object and lives as long as that. Nobody else has a reference to
    // the object, strong or weak, and this one is not lent to anybody else, so nobody has the lock,
    // can take it or be here. The garbage collector looks at objects only while all threads stand still,
    // and this one does not between the check and the end of the exchange: it stays attached and
    // runs no Python.
    Ok(unsafe { std::ptr::replace(place, value) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[pyclass(frozen)]
    struct Holder {
        own: Guarded<u8>,
    }

    #[test]
    fn only_what_is_the_objects_own_and_nobody_elses_is_exchanged() {
        Python::initialize();
        Python::attach(|py| {
            let mut holder = Py::new(py, Holder { own: Guarded::new(1) }).unwrap();
            assert_eq!(replace_alone(py, &mut holder, |holder| &holder.own, 2), Ok(1));
            let other = holder.clone_ref(py);
            assert_eq!(replace_alone(py, &mut holder, |holder| &holder.own, 3), Err(3));
            drop(other);
            let elsewhere: &'static Guarded<u8> = Box::leak(Box::new(Guarded::new(7)));
            let locked = elsewhere.lock();
            assert_eq!(replace_alone(py, &mut holder, |_| elsewhere, 3), Err(3));
            assert_eq!((*locked, *holder.get().own.lock()), (7, 2));
        });
    }
}
