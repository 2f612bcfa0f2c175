//! Detaching from the interpreter exactly while Tokio sleeps.
//!
//! A lane's thread stays attached for as long as it works, so serving a request costs no attach.
//! [`on_park`] and [`on_unpark`] are the runtime's `on_thread_park` / `on_thread_unpark` hooks;
//! between the two Tokio only waits for the operating system and wakes tasks, and a wake-up never
//! touches a Python object. PyO3's own attach count still says "attached" in between, which is
//! why nothing else may run there.
//!
//! The saved thread state lives in a thread-local: only the thread that saved it restores it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;

thread_local! {
    static SAVED: Cell<*mut ffi::PyThreadState> = const { Cell::new(ptr::null_mut()) };
    static LANE: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as one whose parks detach; the mark ends with the guard.
///
/// Hold it while the runtime is driven with the thread attached. A runtime that is polled on a
/// thread without the mark (a unit test in pure Rust) parks without touching the interpreter.
#[must_use]
pub struct ParkDetached<'py>(PhantomData<Python<'py>>);

impl<'py> ParkDetached<'py> {
    /// `_py` proves that the thread is attached; the guard stays on it.
    pub fn enter(_py: Python<'py>) -> Self {
        LANE.set(true);
        Self(PhantomData)
    }
}

impl Drop for ParkDetached<'_> {
    fn drop(&mut self) {
        LANE.set(false);
    }
}

/// Hook for `on_thread_park`: lets other threads use the interpreter.
pub fn on_park() {
    if LANE.get() && SAVED.get().is_null() {
        // SAFETY: `LANE` is set while there is a `ParkDetached`, which holds proof of attachment and
        // stays on its thread; parks strictly nest inside it, so this thread owns the current thread
        // state. It is given back in `on_unpark`, before any other Python use.
        SAVED.set(unsafe { ffi::PyEval_SaveThread() });
    }
}

/// Hook for `on_thread_unpark`: takes the interpreter back.
pub fn on_unpark() {
    let state = SAVED.replace(ptr::null_mut());
    if !state.is_null() {
        // SAFETY: `state` was returned by `PyEval_SaveThread` on this very thread (thread-local)
        // and is restored once, because it was just replaced by null.
        unsafe { ffi::PyEval_RestoreThread(state) }
    }
}

/// Whether the calling thread is a lane's, detached for its sleep: no Python object may be touched
/// or dropped, whatever PyO3's attach count says.
pub fn is_parked() -> bool {
    // A thread whose locals are gone is no lane at work.
    SAVED.try_with(|saved| !saved.get().is_null()).unwrap_or(false)
}
