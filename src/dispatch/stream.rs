//! Streaming responses: the pump's end of a response body.
//!
//! The pump is a Python coroutine in the handler's own Task that awaits [`Sink::send`] for each
//! chunk. `send` completes when the connection took the chunk before, so a slow client slows the
//! generator down and at most one chunk waits. When the client leaves, the body is dropped; that
//! cancels the Task (or, where the route opted out, makes the next `send` raise). A `send` that waits
//! at that moment raises as well: the pump is told once, in the one way or the other, so that nothing
//! breaks into what the generator awaits as it cleans up.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::Bytes;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString, PyType};
use tokio::task::AbortHandle;

use crate::bridge::{after_python, cancel, into_awaitable};
use crate::http::StreamSender;
use crate::python::lane_bound::LaneBound;

static DISCONNECTED: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// The sending end of a response body, shared by the pump and its Task's completion.
#[derive(Clone)]
pub(super) struct Outlet(Rc<State>);

struct State {
    /// `None` once the body ended or was broken off.
    sender: RefCell<Option<StreamSender>>,
    /// The connection dropped the body, and the pump was told: by `send`, or by cancelling it.
    closed: Cell<bool>,
    /// What the head says and the chunks have not brought yet, in bytes.
    owed: Cell<Option<u64>>,
    watcher: RefCell<Option<AbortHandle>>,
}

impl Outlet {
    /// For a body whose head says that it has `declared` bytes, if it does.
    pub(super) fn new(sender: StreamSender, declared: Option<u64>) -> Self {
        Self(Rc::new(State {
            sender: RefCell::new(Some(sender)),
            closed: Cell::new(false),
            owed: Cell::new(declared),
            watcher: RefCell::new(None),
        }))
    }

    /// Whether the connection dropped the body.
    pub(super) fn is_closed(&self) -> bool {
        self.0.closed.get() || self.0.sender.borrow().as_ref().is_some_and(StreamSender::is_closed)
    }

    /// Bytes that the head promised and no chunk brought.
    pub(super) fn missing(&self) -> u64 {
        self.0.owed.get().unwrap_or(0)
    }

    /// Counts a chunk; false when the message would become longer than its head says.
    fn fits(&self, size: usize) -> bool {
        let Some(owed) = self.0.owed.get() else {
            return true;
        };
        let left = owed.checked_sub(size as u64);
        self.0.owed.set(Some(left.unwrap_or(owed)));
        left.is_some()
    }

    /// Breaks the message off, so that the client sees that it is not whole.
    pub(super) fn abort(&self) {
        if let Some(sender) = self.0.sender.take() {
            sender.abort();
        }
    }

    /// Cancels `task` when the client leaves, unless `send` has told it so or `cancels` is false
    /// then; keeps it alive until it ends or the client leaves.
    pub(super) fn tie(&self, task: Py<PyAny>, cancels: impl FnOnce() -> bool + 'static) {
        let Some(closed) = self.0.sender.borrow().as_ref().map(StreamSender::closed) else {
            return;
        };
        let state = Rc::downgrade(&self.0);
        let watcher = tokio::task::spawn_local(async move {
            closed.await;
            // Without a state, the pump has ended.
            let is_told = state.upgrade().is_none_or(|state| state.closed.replace(true));
            Python::attach(|py| {
                if !is_told && cancels() {
                    cancel(task.bind(py));
                    after_python(py);
                }
                drop(task);
            });
        });
        self.0.watcher.replace(Some(watcher.abort_handle()));
    }

    /// The iterator is at its end: so is the message.
    pub(super) fn finish(&self) {
        drop(self.0.sender.take());
    }

    /// Waits for room and passes `chunk` on; false when the client has left.
    async fn send(&self, chunk: Bytes) -> bool {
        let mut chunk = Some(chunk);
        poll_fn(|cx| {
            let mut sender = self.0.sender.borrow_mut();
            let Some(sender) = sender.as_mut() else {
                return Poll::Ready(false);
            };
            let ready = ready!(sender.poll_ready(cx));
            let sent =
                ready.is_ok() && chunk.take().is_none_or(|chunk| sender.start_send(chunk).is_ok());
            self.0.closed.set(!sent);
            Poll::Ready(sent)
        })
        .await
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(watcher) = self.watcher.take() {
            watcher.abort();
        }
        // Neither finished nor broken off: the Task was destroyed. The message is not whole.
        if let Some(sender) = self.sender.take() {
            sender.abort();
        }
    }
}

/// What the pump sends chunks to.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Sink {
    lane: LaneBound<Outlet>,
}

impl Sink {
    pub(super) fn new(outlet: Outlet) -> Self {
        Self { lane: LaneBound::new(outlet) }
    }
}

#[pymethods]
impl Sink {
    /// Awaitable: passes a chunk on when the client has taken the one before.
    fn send<'py>(&self, py: Python<'py>, chunk: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let Some(outlet) = self.lane.get() else {
            return Err(PyRuntimeError::new_err("a response is sent on its own lane only"));
        };
        let bytes = if let Ok(bytes) = chunk.cast::<PyBytes>() {
            Bytes::copy_from_slice(bytes.as_bytes())
        } else if let Ok(text) = chunk.cast::<PyString>() {
            Bytes::copy_from_slice(text.to_str()?.as_bytes())
        } else {
            return Err(PyTypeError::new_err(format!(
                "a streaming response must yield bytes or str, not {}",
                chunk.get_type().name()?
            )));
        };
        if !outlet.fits(bytes.len()) {
            return Err(PyRuntimeError::new_err(
                "the chunks of the response are longer than its Content-Length",
            ));
        }
        let outlet = outlet.clone();
        into_awaitable(py, async move {
            if outlet.send(bytes).await {
                Ok(Python::attach(|py| py.None()))
            } else {
                Err(Python::attach(disconnected))
            }
        })
    }
}

fn disconnected(py: Python<'_>) -> PyErr {
    let class = DISCONNECTED.import(py, "treadle.exceptions", "ClientDisconnect");
    match class.and_then(|class| class.call1(("the client left",))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
