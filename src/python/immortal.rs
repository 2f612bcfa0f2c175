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

        let object: *mut ffi::PyObject = object.as_ptr();
        // SAFETY: a live object, as the caller has a reference. The word is only ever accessed
        // atomically. The thread that owns the object may be about to write the count that it read
        // before: then the object stays mortal, and its count is right. Once the mark is seen nobody
        // changes any count, so the object is never freed, which is safe for every object.
        unsafe { (*object).ob_ref_local.store(MARK, Ordering::Relaxed) };
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}
