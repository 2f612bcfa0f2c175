//! Where the body of a request is while its handler reads it, and the stream of its chunks.
//!
//! The state belongs to the lane's thread: the request, its stream and the connection share it, and
//! whoever reads takes the body out for as long. So a second reader finds `Taken`, which is an error
//! and not a race, and an answer that is sent meanwhile puts `Gone` in its place.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyType};

use crate::bridge::{current_context, into_awaitable};
use crate::http::{BodyError, RequestBody};
use crate::python::lane_bound::LaneBound;

static HTTP_EXCEPTION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DISCONNECTED: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Where a request's body is.
pub enum BodyState {
    /// Still on the connection.
    Unread(RequestBody),
    /// Read, and kept.
    Bytes(Bytes),
    /// Being read.
    Taken,
    /// Handed to a stream, which takes it from here chunk by chunk.
    Streaming(RequestBody),
    /// The request was answered: the connection has gone on to the next.
    Gone,
    /// The client left before all of it had arrived; the Task that was told of it, if one was, by the
    /// address of its context.
    Lost(Option<usize>),
}

/// Why there is no body to read any more.
pub(super) fn unreadable(gone: bool) -> PyErr {
    PyRuntimeError::new_err(if gone {
        "the request was answered: its body is gone"
    } else {
        "the body is being read already, or was not read to its end"
    })
}

/// The exception that tells the Task that reads `body`.
pub(super) fn fail(body: &RefCell<BodyState>, error: BodyError) -> PyErr {
    Python::attach(|py| {
        if error == BodyError::Disconnected {
            body.replace(BodyState::Lost(current_context(py)));
        }
        body_error(py, error)
    })
}

/// A failed body as the exception that gives the right answer when nobody catches it.
fn body_error(py: Python<'_>, error: BodyError) -> PyErr {
    let raise = || -> PyResult<PyErr> {
        let (status, detail) = match error {
            BodyError::TooLarge => (413, "Payload Too Large"),
            BodyError::Malformed => (400, "Bad Request"),
            BodyError::Answered => return Ok(unreadable(true)),
            BodyError::Disconnected => {
                let class = DISCONNECTED.import(py, "treadle.exceptions", "ClientDisconnect")?;
                return Ok(PyErr::from_value(class.call1(("the client left",))?));
            }
        };
        let class = HTTP_EXCEPTION.import(py, "treadle.exceptions", "HTTPException")?;
        // What follows on the connection cannot be told from the rest of this body.
        let headers = PyDict::new(py);
        headers.set_item("connection", "close")?;
        Ok(PyErr::from_value(class.call1((status, detail, headers))?))
    };
    raise().unwrap_or_else(|error| error)
}

/// The answer 400 as an exception.
pub(super) fn bad_request(py: Python<'_>, detail: &str) -> PyErr {
    match HTTP_EXCEPTION.import(py, "treadle.exceptions", "HTTPException") {
        Ok(class) => match class.call1((400, detail)) {
            Ok(error) => PyErr::from_value(error),
            Err(error) => error,
        },
        Err(error) => error,
    }
}

struct StreamLane {
    /// The request's own, so that it is given up with the answer.
    body: Rc<RefCell<BodyState>>,
    /// The whole body, where it was read before.
    kept: Rc<RefCell<Option<Bytes>>>,
}

/// The chunks of a request's body, as they arrive.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct BodyStream {
    lane: LaneBound<StreamLane>,
}

impl BodyStream {
    /// What is left of `body`, on the calling thread's lane; `kept` is all of it, where it was read before.
    pub(super) fn new(body: Rc<RefCell<BodyState>>, kept: Option<Bytes>) -> Self {
        let kept = Rc::new(RefCell::new(kept));
        Self { lane: LaneBound::new(StreamLane { body, kept }) }
    }
}

#[pymethods]
impl BodyStream {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let lane = self.lane.get().ok_or_else(|| {
            PyRuntimeError::new_err("the body of a request can be read on its own lane only")
        })?;
        let (body, kept) = (lane.body.clone(), lane.kept.clone());
        into_awaitable(py, async move {
            let bytes =
                |data: &Bytes| Ok(Python::attach(|py| PyBytes::new(py, data).into_any().unbind()));
            if let Some(whole) = kept.take().filter(|whole| !whole.is_empty()) {
                return bytes(&whole);
            }
            let mut unread = match body.replace(BodyState::Taken) {
                BodyState::Streaming(unread) => unread,
                other => {
                    let gone = matches!(other, BodyState::Gone);
                    let done = matches!(other, BodyState::Bytes(_));
                    body.replace(other);
                    return Err(if done {
                        PyStopAsyncIteration::new_err(())
                    } else {
                        unreadable(gone)
                    });
                }
            };
            match unread.chunk().await {
                None => {
                    body.replace(BodyState::Streaming(unread));
                    Err(PyStopAsyncIteration::new_err(()))
                }
                Some(Err(error)) => Err(fail(&body, error)),
                Some(Ok(data)) => {
                    body.replace(BodyState::Streaming(unread));
                    bytes(&data)
                }
            }
        })
    }
}
