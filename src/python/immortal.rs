//! Objects whose references nobody counts, because all lanes refer to them all the time.
//!
//! Free-threaded CPython counts references to an object of another thread with atomic operations on a
//! word of that object. A class, a function that a module looks up by name: every lane takes and
//! drops a reference at each use, and the cache line goes from core to core. What lives as long as
//! the process needs no count. CPython has a mark for that, which it gives to its own built-in
//! classes; whoever takes a reference looks for the mark first.

use pyo3::prelude::*;

/// Ends the counting of references to `object`, which lives as long as the process from now on.
///
/// Does nothing where the interpreter has a lock: there the count costs next to nothing.
pub fn immortalize(object: &Bound<'_, PyAny>) {
    #[cfg(Py_GIL_DISABLED)]
    {
        use std::sync::atomic::Ordering;

        use pyo3::ffi;

        /// The mark; CPython's `_Py_IMMORTAL_REFCNT_LOCAL`, a part of its binary interface, because
        /// extensions are compiled with it.
        const MARK: u32 = u32::MAX;
        /// References that nobody gives back; the two lowest bits of their word are flags
        /// (`_Py_REF_SHARED_SHIFT`).
        const KEPT: isize = (1 << 20) << 2;

        let object: *mut ffi::PyObject = object.as_ptr();
        // SAFETY: a live object, as the caller has a reference. Both words are only ever accessed
        // atomically. Once the mark is seen nobody changes any count, so the object is never freed,
        // which is safe for every object. The thread that owns the object may be about to write the
        // count that it read before: then the mark is lost and the object mortal, and who took a
        // reference that was not counted may give it back when it is. The kept ones make up for
        // those, however many threads there are.
        unsafe {
            let (local, shared) = (&(*object).ob_ref_local, &(*object).ob_ref_shared);
            if local.load(Ordering::Relaxed) != MARK {
                shared.fetch_add(KEPT, Ordering::Relaxed);
                local.store(MARK, Ordering::Release);
            }
        }
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

#[cfg(all(test, Py_GIL_DISABLED))]
mod tests {
    use std::sync::atomic::Ordering;

    use pyo3::ffi;
    use pyo3::types::PyList;

    use super::*;

    #[test]
    fn an_object_whose_mark_gets_lost_loses_no_reference() {
        Python::initialize();
        Python::attach(|py| {
            let object = PyList::empty(py).into_any();
            // SAFETY: a live object, which nobody else has.
            let local = unsafe { &(*object.as_ptr()).ob_ref_local };
            let counted = local.load(Ordering::Relaxed);
            immortalize(&object);
            let taken = object.clone(); // not counted
            local.store(counted, Ordering::Relaxed); // as the owner does that read it before
            // SAFETY: as above.
            let references = || unsafe { ffi::Py_REFCNT(object.as_ptr()) };
            let before = references();
            assert!(before > 1, "{before} for two");
            drop(taken);
            assert_eq!(references(), before - 1);
        });
    }
}
