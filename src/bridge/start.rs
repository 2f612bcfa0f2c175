//! Starting whatever can be awaited, so that its outcome reaches a [`Completion`].

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;

use super::completion::{Completion, Next};
use super::home::Home;
use super::scope::Scope;
use crate::python::call::call_method;
use crate::python::coroutine::is_coroutine;
use crate::python::lane_bound::LaneBound;

/// Python's part of the bridge: what is best said in Python.
const HELPERS: &std::ffi::CStr = c_str!(
    r#"
async def wait(awaitable):
    return await awaitable

async def pump(iterable, put):
    iterator = aiter(iterable)
    try:
        async for item in iterator:
            await put(item)
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
"#
);

/// A coroutine function of [`HELPERS`].
pub(super) fn helper<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let (file, module) = (c_str!("<treadle bridge>"), c_str!("treadle._bridge"));
    let make = || PyModule::from_code(py, HELPERS, file, module).map(Bound::unbind);
    MODULE.get_or_try_init(py, make)?.bind(py).getattr(name)
}

/// Starts `awaitable` on this thread's loop and gives what cancels it: its Task or future; `None`
/// when it has ended already.
///
/// A coroutine's first step is taken before this returns; `completion` may have been told then.
/// A future or Task is not wrapped in another. Anything else with `__await__` is awaited in a
/// Task.
///
/// # Errors
/// asyncio's `TypeError` for what cannot be awaited; `RuntimeError` for a future of another loop,
/// or when the loop does not run.
pub(super) fn start(
    home: &Home,
    awaitable: &Bound<'_, PyAny>,
    completion: Rc<dyn Completion>,
) -> PyResult<Option<Py<PyAny>>> {
    let py = awaitable.py();
    let coroutine = if is_coroutine(awaitable) {
        awaitable.clone()
    } else if is_future(awaitable)? {
        return follow(home, awaitable, completion).map(Some);
    } else if awaitable.hasattr(pyo3::intern!(py, "__await__"))? {
        helper(py, "wait")?.call1((awaitable,))?
    } else {
        return Err(PyTypeError::new_err(
            "An asyncio.Future, a coroutine or an awaitable is required",
        ));
    };
    let lasting = || completion.clone();
    let tasks = &home.live()?.tasks;
    let waiting = tasks.start(py, coroutine.unbind(), Scope::Copy, &completion, lasting)?;
    Ok(waiting.and_then(|waiting| waiting.into_task(py)))
}

/// As `asyncio.isfuture` has it.
fn is_future(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let name = pyo3::intern!(object.py(), "_asyncio_future_blocking");
    Ok(object.get_type().hasattr(name)? && !object.getattr(name)?.is_none())
}

/// Has `completion` told what becomes of a future.
fn follow(
    home: &Home,
    future: &Bound<'_, PyAny>,
    completion: Rc<dyn Completion>,
) -> PyResult<Py<PyAny>> {
    let py = future.py();
    let live = home.live()?;
    let its_loop = future.call_method0(pyo3::intern!(py, "get_loop"))?;
    if !its_loop.is(live.event_loop()) {
        return Err(PyRuntimeError::new_err(format!(
            "{} belongs to {} and cannot be awaited on {}, whose loop is {}",
            future.repr()?,
            spell(&its_loop)?,
            home.mailbox().name(),
            spell(live.event_loop().bind(py))?,
        )));
    }
    if future.call_method0(pyo3::intern!(py, "done"))?.is_truthy()? {
        report(completion.as_ref(), future);
    } else {
        let report = Report { completion: LaneBound::new(RefCell::new(Some(completion))) };
        future.call_method1(pyo3::intern!(py, "add_done_callback"), (Py::new(py, report)?,))?;
    }
    Ok(future.clone().unbind())
}

/// What a loop says of itself. Ours names its lane; others of a kind look alike.
fn spell(event_loop: &Bound<'_, PyAny>) -> PyResult<String> {
    let said = event_loop.repr()?;
    Ok(if event_loop.hasattr(pyo3::intern!(event_loop.py(), "_lane"))? {
        said.to_string()
    } else {
        format!("{said} at {:p}", event_loop.as_ptr())
    })
}

fn report(completion: &dyn Completion, future: &Bound<'_, PyAny>) {
    // Not PyO3's own call: that would make a panic of a `PanicException`, and nobody would be told.
    let outcome = call_method(future, pyo3::intern!(future.py(), "result"));
    match completion.complete(future.py(), &outcome) {
        // There is no Task of ours that could end with it or go on.
        Next::Done | Next::Await(_) => {}
    }
}

/// The done-callback of a future that is followed.
#[pyclass(frozen, module = "treadle._treadle")]
pub(super) struct Report {
    completion: LaneBound<RefCell<Option<Rc<dyn Completion>>>>,
}

#[pymethods]
impl Report {
    fn __call__(&self, future: &Bound<'_, PyAny>) {
        let completion = self.completion.get().and_then(RefCell::take);
        if let Some(completion) = completion {
            report(completion.as_ref(), future);
        }
    }
}
