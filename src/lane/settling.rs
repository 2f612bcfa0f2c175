//! The callback of `asyncio.sleep`, run without the Python function that it is.
//!
//! `asyncio.futures._set_result_unless_cancelled(future, result)` looks whether the future was
//! cancelled and gives it the result. For a future of asyncio's own C class, which nobody can change,
//! giving it the result looks by itself; only when that is refused does the function have a say. One
//! that a coroutine waits for which the lane steps is settled and the coroutine woken in one.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::loop_core::LoopCore;
use super::ready::Entry;
use super::wakeup::Wakeup;
use crate::bridge::LaneWakeup;
use crate::python::call::call_two;
use crate::python::future_layout::FutureLayout;

struct Known {
    function: Py<PyAny>,
    class: Py<PyType>,
    /// The method of the class, not bound.
    set_result: Py<PyAny>,
    refused: Py<PyAny>,
}

/// `None` where asyncio has none of these.
static KNOWN: PyOnceLock<Option<Known>> = PyOnceLock::new();

impl Known {
    fn find(py: Python<'_>) -> PyResult<Self> {
        let class = py.import("_asyncio")?.getattr("Future")?.cast_into::<PyType>()?;
        let function = py.import("asyncio.futures")?.getattr("_set_result_unless_cancelled")?;
        Ok(Self {
            function: function.unbind(),
            set_result: class.getattr("set_result")?.unbind(),
            class: class.unbind(),
            refused: py.import("asyncio.exceptions")?.getattr("InvalidStateError")?.unbind(),
        })
    }
}

/// `callback(first, second)`, as a callback of `event_loop`.
///
/// # Errors
/// What it raises.
pub(super) fn call<'py>(
    event_loop: &Bound<'py, LoopCore>,
    callback: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callback.py();
    if let Some(known) = KNOWN.get_or_init(py, || Known::find(py).ok())
        && callback.is(&known.function)
        && first.get_type_ptr() == known.class.bind(py).as_type_ptr()
    {
        if wake(event_loop, first, second) {
            return Ok(py.None().into_bound(py));
        }
        match call_two(known.set_result.bind(py), first, second) {
            Err(error) if error.is_instance(py, known.refused.bind(py)) => {}
            outcome => return outcome,
        }
    }
    call_two(callback, first, second)
}

/// Settles a future that nobody waits for but a coroutine that the lane steps.
fn wake<'py>(
    event_loop: &Bound<'py, LoopCore>,
    future: &Bound<'py, PyAny>,
    result: &Bound<'py, PyAny>,
) -> bool {
    let (py, core) = (event_loop.py(), event_loop.get());
    // Otherwise `call_soon` has more to do than to put the call into the queue.
    if !core.is_plain() || !core.has_own_call_soon.load(Ordering::Relaxed) {
        return false;
    }
    let settled = FutureLayout::found(py).and_then(|futures| {
        futures.settle(future, result, event_loop, &py.get_type::<LaneWakeup>())
    });
    let Some((callback, context)) = settled else { return false };
    let (callback, context) = (callback.unbind(), context.unbind());
    let future = future.clone().unbind();
    core.ready.push(Entry::Wakeup(Wakeup { callback, future, context }));
    true
}
