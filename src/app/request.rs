//! What a handler sees of a request.
//!
//! The head is immutable and readable from any thread. The body comes in over the lane's socket,
//! so its stream is bound to the lane: `await request.body()` on another loop is an error, not a
//! race. It is read once: `body()` keeps the bytes, `stream()` passes them through.

use std::borrow::Cow;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyString, PyType};

use super::body;
use super::headers::{Headers, latin_1};
use super::query;
use super::reading::{BodyState, BodyStream, bad_request, fail, unreadable};
use crate::bridge::into_awaitable;
use crate::python::lane_bound::LaneBound;

static QUERY_PARAMS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static STATE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static JSON_DECODE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// Everything of a request that came before its body.
pub struct RequestHead {
    /// As sent.
    pub method: Method,
    /// As sent.
    pub uri: Uri,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// As sent; names are lower case.
    pub headers: HeaderMap,
    /// The other end; `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// Parameters of the path, raw, where somebody may ask for them.
    pub path_params: OnceLock<Vec<(String, String)>>,
    /// Unique in the process, for logs.
    pub id: u64,
}

/// What the arguments of a call are made from, wherever it is kept.
#[derive(Clone, Copy)]
pub struct HeadRef<'a> {
    /// As sent.
    pub uri: &'a Uri,
    /// As sent; names are lower case.
    pub headers: &'a HeaderMap,
}

impl<'a> From<&'a RequestHead> for HeadRef<'a> {
    fn from(head: &'a RequestHead) -> Self {
        Self { uri: &head.uri, headers: &head.headers }
    }
}

impl<'a> From<&'a mut Parts> for HeadRef<'a> {
    fn from(parts: &'a mut Parts) -> Self {
        Self { uri: &parts.uri, headers: &parts.headers }
    }
}

impl<'a> HeadRef<'a> {
    /// The value of a cookie, as sent, without the quotes around it if it has any.
    pub fn cookie(self, name: &str) -> Option<Cow<'a, str>> {
        self.cookies().find_map(|(known, value)| (latin_1(known) == name).then(|| latin_1(value)))
    }

    /// Bytes, because what one cookie is made of is no reason not to read the others.
    fn cookies(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.headers
            .get_all(http::header::COOKIE)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b';'))
            .filter_map(|pair| {
                let pair = pair.trim_ascii();
                let equals = pair.iter().position(|&byte| byte == b'=')?;
                Some((&pair[..equals], unquoted(&pair[equals + 1..])))
            })
    }
}

/// RFC 6265, 4.1.1: the quotes are one pair. Any other is part of the value.
fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] => inner,
        _ => value,
    }
}

impl RequestHead {
    /// The path without percent-escapes, for people; invalid UTF-8 is replaced.
    pub fn decoded_path(&self) -> String {
        percent_encoding::percent_decode_str(self.uri.path()).decode_utf8_lossy().into_owned()
    }
}

struct Lane {
    body: Rc<RefCell<BodyState>>,
}

/// One HTTP request: method, path, headers, query, cookies, client, state, path_params, body.
#[pyclass(frozen, weakref, module = "treadle")]
pub struct Request {
    head: Arc<RequestHead>,
    lane: LaneBound<Lane>,
    /// The application.
    #[pyo3(get)]
    app: Py<PyAny>,
    /// The lane that serves the request, with its state.
    #[pyo3(get, name = "lane")]
    lane_face: Py<PyAny>,
    headers: OnceLock<Py<Headers>>,
    query: OnceLock<Py<PyAny>>,
    cookies: OnceLock<Py<PyDict>>,
    state: OnceLock<Py<PyAny>>,
}

/// What is in `slot`, made now if nothing is. Nobody waits there while Python runs: of two threads
/// that make it at once, one throws its own away.
fn kept<T>(slot: &OnceLock<Py<T>>, make: impl FnOnce() -> PyResult<Py<T>>) -> PyResult<&Py<T>> {
    match slot.get() {
        Some(known) => Ok(known),
        None => {
            let made = make()?;
            Ok(slot.get_or_init(|| made))
        }
    }
}

impl Request {
    /// A request on the calling thread's lane.
    #[allow(clippy::too_many_arguments, reason = "one constructor, called in one place")]
    pub fn new(head: Arc<RequestHead>, body: BodyState, app: Py<PyAny>, lane: Py<PyAny>) -> Self {
        let body = Rc::new(RefCell::new(body));
        Self {
            head,
            lane: LaneBound::new(Lane { body }),
            app,
            lane_face: lane,
            headers: OnceLock::new(),
            query: OnceLock::new(),
            cookies: OnceLock::new(),
            state: OnceLock::new(),
        }
    }

    /// Takes the body to read it before the handler runs; [`Self::keep_body`] puts it back.
    pub fn take_body(&self) -> BodyState {
        match self.lane.get() {
            Some(lane) => lane.body.replace(BodyState::Taken),
            None => BodyState::Taken,
        }
    }

    /// The body was read: `body()` gives it without waiting.
    pub fn keep_body(&self, bytes: Bytes) {
        if let Some(lane) = self.lane.get() {
            lane.body.replace(BodyState::Bytes(bytes));
        }
    }

    /// The request was answered: what was not read of its body is given up, or the connection
    /// would wait for its reader.
    pub fn release_body(&self) {
        if let Some(lane) = self.lane.get() {
            let mut body = lane.body.borrow_mut();
            if matches!(*body, BodyState::Unread(_) | BodyState::Streaming(_)) {
                *body = BodyState::Gone;
            }
        }
    }

    /// Whether the Task with the context at that address was told that the client left: by the
    /// exception that its reading of the body raised. The Task is still there.
    pub fn has_told(&self, context: usize) -> bool {
        let told = |lane: &Lane| matches!(*lane.body.borrow(), BodyState::Lost(told) if told == Some(context));
        self.lane.get().is_some_and(told)
    }

    fn lane(&self) -> PyResult<&Lane> {
        self.lane.get().ok_or_else(|| {
            PyRuntimeError::new_err("the body of a request can be read on its own lane only")
        })
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        convert: impl Fn(Python<'_>, &Bytes) -> PyResult<Py<PyAny>> + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let lane = self.lane()?;
        let body = lane.body.clone();
        into_awaitable(py, async move {
            let mut unread = match body.replace(BodyState::Taken) {
                BodyState::Unread(unread) => unread,
                BodyState::Bytes(bytes) => {
                    body.replace(BodyState::Bytes(bytes.clone()));
                    return Python::attach(|py| convert(py, &bytes));
                }
                other => {
                    let gone = matches!(other, BodyState::Gone);
                    body.replace(other);
                    return Err(unreadable(gone));
                }
            };
            let bytes = match unread.read_all().await {
                Ok(bytes) => bytes,
                Err(error) => return Err(fail(&body, error)),
            };
            body.replace(BodyState::Bytes(bytes.clone()));
            Python::attach(|py| convert(py, &bytes))
        })
    }
}

#[pymethods]
impl Request {
    /// `GET`, `POST`, ...
    #[getter]
    fn method(&self) -> &str {
        self.head.method.as_str()
    }

    /// Path without query, percent-escapes decoded.
    #[getter]
    fn path(&self) -> String {
        self.head.decoded_path()
    }

    /// Path as sent, still escaped.
    #[getter]
    fn raw_path(&self) -> &str {
        self.head.uri.path()
    }

    /// Query string as sent, without `?`.
    #[getter]
    fn query_string(&self) -> &str {
        self.head.uri.query().unwrap_or_default()
    }

    /// `1.0` or `1.1`.
    #[getter]
    fn http_version(&self) -> &'static str {
        if self.head.version == Version::HTTP_10 { "1.0" } else { "1.1" }
    }

    /// Number of the request, unique in the process: the one that logs name.
    #[getter]
    fn id(&self) -> u64 {
        self.head.id
    }

    /// Headers, case-insensitive and read-only.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<Headers>> {
        let make = || Py::new(py, Headers::read_only(self.head.headers.clone()));
        Ok(kept(&self.headers, make)?.clone_ref(py))
    }

    /// Query parameters: a mapping of first values, `get_all(name)` for repeated ones.
    #[getter]
    fn query(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let make = || -> PyResult<Py<PyAny>> {
            let pairs: Vec<_> = query::pairs(self.query_string()).collect();
            let class = QUERY_PARAMS.import(py, "treadle.datastructures", "QueryParams")?;
            Ok(class.call1((pairs,))?.unbind())
        };
        Ok(kept(&self.query, make)?.clone_ref(py))
    }

    /// Cookies by name, values as sent but for a pair of quotes around one; text is Latin-1, as in headers.
    #[getter]
    fn cookies(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let make = || -> PyResult<Py<PyDict>> {
            let cookies = PyDict::new(py);
            for (name, value) in HeadRef::from(&*self.head).cookies() {
                let (name, value) = (latin_1(name), latin_1(value));
                if !cookies.contains(&*name)? {
                    cookies.set_item(name, value)?;
                }
            }
            Ok(cookies.unbind())
        };
        Ok(kept(&self.cookies, make)?.clone_ref(py))
    }

    /// Parameters of the path as text, escapes decoded; the handler's own are converted.
    #[getter]
    fn path_params<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let params = PyDict::new(py);
        for (name, raw) in self.head.path_params.get().into_iter().flatten() {
            let text = percent_encoding::percent_decode_str(raw).decode_utf8_lossy();
            params.set_item(name, text)?;
        }
        Ok(params)
    }

    /// `(host, port)` of the other end; None on a Unix socket.
    #[getter]
    fn client(&self) -> Option<(String, u16)> {
        self.head.client.map(|address| (address.ip().to_string(), address.port()))
    }

    /// A namespace for this request alone.
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let make = || -> PyResult<Py<PyAny>> {
            Ok(STATE.import(py, "treadle.datastructures", "State")?.call0()?.unbind())
        };
        Ok(kept(&self.state, make)?.clone_ref(py))
    }

    /// Awaitable: the whole body, at most the body limit (413 beyond).
    fn body<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.read(py, |py, bytes| Ok(PyBytes::new(py, bytes).into_any().unbind()))
    }

    /// Awaitable: the body as text, UTF-8.
    fn text<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.read(py, |py, bytes| match std::str::from_utf8(bytes) {
            Ok(text) => Ok(PyString::new(py, text).into_any().unbind()),
            Err(_) => Err(bad_request(py, "the request body is not UTF-8")),
        })
    }

    /// Awaitable: the body decoded from JSON (400 when it is not).
    fn json<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.read(py, |py, bytes| {
            let decode = JSON_DECODE.import(py, "msgspec.json", "Decoder")?;
            let decoder = decode.call0()?;
            decoder
                .call_method1(pyo3::intern!(py, "decode"), (PyBytes::new(py, bytes),))
                .map(Bound::unbind)
                .map_err(|error| {
                    let reason = body::reason(py, &error);
                    bad_request(py, &format!("the request body is not JSON: {reason}"))
                })
        })
    }

    /// Async iterator over the body's chunks (bytes), as they come; at most the body limit.
    fn stream(&self) -> PyResult<BodyStream> {
        let lane = self.lane()?;
        let taken = lane.body.replace(BodyState::Taken);
        let (next, kept) = match taken {
            BodyState::Unread(unread) | BodyState::Streaming(unread) => {
                (BodyState::Streaming(unread), None)
            }
            // Read before: the stream is of the kept bytes.
            BodyState::Bytes(bytes) => (BodyState::Bytes(bytes.clone()), Some(bytes)),
            other => {
                let gone = matches!(other, BodyState::Gone);
                lane.body.replace(other);
                return Err(unreadable(gone));
            }
        };
        lane.body.replace(next);
        Ok(BodyStream::new(lane.body.clone(), kept))
    }

    /// What a request refers to may refer to it: `request.state` holds whatever the handler likes.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.app)?;
        visit.call(&self.lane_face)?;
        visit.call(self.query.get())?;
        visit.call(self.cookies.get())?;
        visit.call(self.state.get())
    }

    fn __repr__(&self) -> String {
        format!("<Request {} {}>", self.head.method, self.head.uri.path())
    }
}
