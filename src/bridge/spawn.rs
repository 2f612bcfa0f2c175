//! A Rust future that runs whether or not somebody awaits it.

use std::future::Future;

use pyo3::prelude::*;

use super::awaitable::into_awaitable;
use super::home::{Home, after_python};
use super::start::helper;

/// Starts `future` in a Task of the loop that runs on the calling thread, and gives the Task.
///
/// The Task is the loop's own kind (`loop.create_task`), in a copy of the current context: it may
/// be awaited by several, gathered, cancelled (which drops the future) and named, and an error that
/// nobody fetches is reported. Keep a reference to it, as to any Task.
///
/// # Errors
/// `RuntimeError` when no event loop runs on this thread.
pub fn spawn(
    py: Python<'_>,
    future: impl Future<Output = PyResult<Py<PyAny>>> + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    let home = Home::current(py)?;
    // A Task is expected to run a coroutine of Python's: `asyncio ps` reads its frame in memory.
    let coroutine = helper(py, "wait")?.call1((into_awaitable(py, future)?,))?;
    let task = home
        .live()?
        .event_loop()
        .bind(py)
        .call_method1(pyo3::intern!(py, "create_task"), (coroutine,));
    after_python(py);
    task
}
