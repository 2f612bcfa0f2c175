//! How a lane learns that a Task is done: in the moment it is, not a turn later.
//!
//! asyncio hands the callbacks of a Task that is done to `loop.call_soon`. A [`Listener`] among
//! them is recognised there ([`intercept`]) and told at once: the Task has its outcome, its context
//! is entered, and it still is the current one. What the listener does is the lane's own business
//! (an answer is made, a connection is woken), so nobody can tell the difference from a callback
//! that ran first in the next turn, but for the time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;

use super::completion::{Completion, Next};
use super::future::is_cancelled;
use super::task::Tasks;
use crate::python::lane_bound::LaneBound;

thread_local! {
    /// Set while a Task is made whose first step is not the loop's to take.
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static CAUGHT: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
    /// The last `SystemExit` or `KeyboardInterrupt` that a listener was told.
    static ANSWERED: RefCell<Option<Py<PyAny>>> = const { RefCell::new(None) };
}

/// Tells a [`Completion`] what became of a Task.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Listener {
    state: LaneBound<State>,
}

/// Whom to tell, and who can say what a Task came to; `None` once that was done.
///
/// An idle Task keeps its listener, and is kept by its [`Tasks`]: so a listener that is done does
/// not keep them.
type State = RefCell<Option<(Rc<Tasks>, Rc<dyn Completion>)>>;

impl Listener {
    pub(super) fn new(tasks: Rc<Tasks>, completion: Rc<dyn Completion>) -> Self {
        Self { state: LaneBound::new(RefCell::new(Some((tasks, completion)))) }
    }

    /// Whether it told somebody, and so tells nobody now.
    pub(super) fn is_told(&self) -> bool {
        self.state.get().is_some_and(|state| state.borrow().is_none())
    }

    /// Has it tell `completion` next.
    pub(super) fn listen(&self, tasks: Rc<Tasks>, completion: Rc<dyn Completion>) {
        if let Some(state) = self.state.get() {
            state.replace(Some((tasks, completion)));
        }
    }

    /// Tells the outcome of `task`, once; whether that was all.
    fn tell(&self, task: &Bound<'_, PyAny>) -> bool {
        let py = task.py();
        let Some((tasks, completion)) = self.state.get().and_then(RefCell::take) else {
            return true;
        };
        let outcome = tasks.outcome(task);
        let all = match &outcome {
            Ok(_) => true,
            Err(error) => {
                if ends_programs(py, error) {
                    ANSWERED.replace(Some(error.value(py).clone().into_any().unbind()));
                }
                is_cancelled(py, error)
            }
        };
        if let Next::Await(coroutine) = completion.complete(py, &outcome) {
            tasks.go_on(task, coroutine, &completion);
        }
        all
    }
}

#[pymethods]
impl Listener {
    /// Runs in the loop's next turn where it was not told at once; and after an exception, which
    /// the Task would otherwise report as never retrieved: it says so only after its callbacks
    /// were scheduled.
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        self.tell(task);
        task.setattr(intern!(task.py(), "_log_traceback"), false)
    }
}

fn ends_programs(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

/// Whether `error` came out of a Task whose listener was told of it: answered, not the loop's end.
///
/// asyncio lets a `SystemExit` of a Task's coroutine pass through the loop as well.
pub fn was_answered(error: &PyErr, py: Python<'_>) -> bool {
    ends_programs(py, error) && ANSWERED.take().is_some_and(|answered| answered.is(error.value(py)))
}

/// What a lane's loop asks first in `call_soon(callback, argument)`: whether the call is taken
/// care of.
pub fn intercept(callback: &Bound<'_, PyAny>, argument: Option<&Bound<'_, PyAny>>) -> bool {
    if ARMED.get() {
        ARMED.set(false);
        CAUGHT.replace(Some(callback.clone().unbind()));
        return true;
    }
    // Asked first: nearly always it is not one, and a cast that fails makes an error.
    if callback.is_exact_instance_of::<Listener>()
        && let (Ok(listener), Some(task)) = (callback.cast_exact::<Listener>(), argument)
    {
        return listener.get().tell(task);
    }
    false
}

/// The callback that `body` hands to `call_soon` of this thread's loop, kept from running.
///
/// # Errors
/// What `body` raises.
pub(super) fn catch<'py, R>(
    py: Python<'py>,
    body: impl FnOnce() -> PyResult<R>,
) -> PyResult<(R, Option<Bound<'py, PyAny>>)> {
    struct Disarm;
    impl Drop for Disarm {
        fn drop(&mut self) {
            ARMED.set(false);
            drop(CAUGHT.take());
        }
    }
    ARMED.set(true);
    let _disarm = Disarm;
    let made = body()?;
    Ok((made, CAUGHT.take().map(|caught| caught.into_bound(py))))
}
