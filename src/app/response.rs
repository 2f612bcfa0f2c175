//! Responses that a handler makes itself.
//!
//! What is wrong with one (a status that cannot be sent, a control character in a header) raises
//! where it is made, so the traceback points at the handler's line.

use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyString};

use super::headers::{Headers, collect, header_value};
use crate::python::thread_end::HangsAtEnd;

static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A final status that can be sent.
///
/// # Errors
/// `ValueError` outside 200 to 999: a 1xx status is not an answer.
pub fn status_code(status: u32) -> PyResult<StatusCode> {
    u16::try_from(status)
        .ok()
        .filter(|status| *status >= 200)
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| {
            PyValueError::new_err(format!("status {status} cannot be sent: use 200 to 999"))
        })
}

/// An HTTP response: content (bytes, str or None), status, headers, media type.
#[pyclass(frozen, subclass, weakref, dict, module = "treadle")]
pub struct Response {
    /// What `status_code` took. Several lanes may send one response while another sets it.
    status: AtomicU16,
    headers: Py<Headers>,
    body: Py<PyBytes>,
}

impl Response {
    /// With headers of its own; `media_type` where the headers name no content type.
    fn build(
        py: Python<'_>,
        body: Py<PyBytes>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
        media_type: Option<&str>,
    ) -> PyResult<Self> {
        let mut map = collect(headers)?;
        if let Some(media_type) = media_type
            && !map.contains_key(CONTENT_TYPE)
        {
            map.insert(CONTENT_TYPE, header_value("content-type", media_type)?);
        }
        Ok(Self {
            status: AtomicU16::new(status_code(status)?.as_u16()),
            headers: Py::new(py, Headers::editable(map))?,
            body,
        })
    }

    /// What is sent: status, headers and body.
    pub fn parts(&self, py: Python<'_>) -> (StatusCode, HeaderMap, Bytes) {
        (
            StatusCode::from_u16(self.status()).unwrap_or_default(),
            self.headers.get().to_map(),
            Bytes::copy_from_slice(self.body.bind(py).as_bytes()),
        )
    }
}

fn content_bytes(
    py: Python<'_>,
    content: Option<&Bound<'_, PyAny>>,
) -> PyResult<(Py<PyBytes>, Option<&'static str>)> {
    let Some(content) = content.filter(|content| !content.is_none()) else {
        return Ok((PyBytes::new(py, b"").unbind(), None));
    };
    if let Ok(text) = content.cast::<PyString>() {
        return Ok((
            PyBytes::new(py, text.to_str()?.as_bytes()).unbind(),
            Some("text/plain; charset=utf-8"),
        ));
    }
    if let Ok(bytes) = content.cast::<PyBytes>() {
        return Ok((bytes.clone().unbind(), None));
    }
    // bytearray, memoryview: copied by bytes() itself, so a later change cannot reach it.
    if content.hasattr(intern!(py, "__buffer__"))? {
        let bytes = py.get_type::<PyBytes>().call1((content,))?.cast_into::<PyBytes>()?;
        return Ok((bytes.unbind(), None));
    }
    Err(PyTypeError::new_err(format!(
        "content must be bytes, str or None, not {}: use JSONResponse for other objects",
        content.get_type().name()?
    )))
}

#[pymethods]
impl Response {
    /// `headers` is a mapping or pairs; `media_type` sets Content-Type unless headers do.
    #[new]
    #[pyo3(signature = (content=None, status=200, headers=None, media_type=None))]
    fn new(
        py: Python<'_>,
        content: Option<&Bound<'_, PyAny>>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
        media_type: Option<&str>,
    ) -> PyResult<Self> {
        let (body, natural) = content_bytes(py, content)?;
        Self::build(py, body, status, headers, media_type.or(natural))
    }

    /// HTTP status, 200 to 999.
    #[getter]
    fn status(&self) -> u16 {
        self.status.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_status(&self, status: u32) -> PyResult<()> {
        self.status.store(status_code(status)?.as_u16(), Ordering::Relaxed);
        Ok(())
    }

    /// Headers, editable. Content-Length is set when it is sent; a handler for HEAD may say what it
    /// would be for GET.
    #[getter]
    fn headers(&self, py: Python<'_>) -> Py<Headers> {
        self.headers.clone_ref(py)
    }

    /// The body as bytes.
    #[getter]
    fn body(&self, py: Python<'_>) -> Py<PyBytes> {
        self.body.clone_ref(py)
    }

    /// Adds a Set-Cookie header. The value is what RFC 6265 lets servers send: ASCII without space,
    /// comma, semicolon, quote and backslash; anything else raises ValueError. `max_age` is in seconds; `samesite` is lax, strict, none or None.
    #[pyo3(signature = (name, value="", *, max_age=None, path=Some("/"), domain=None, secure=false, httponly=false, samesite=Some("lax")), text_signature = "($self, name, value='', *, max_age=None, path='/', domain=None, secure=False, httponly=False, samesite='lax')")]
    #[allow(clippy::too_many_arguments, reason = "the attributes of a cookie")]
    fn set_cookie(
        &self,
        name: &str,
        value: &str,
        max_age: Option<i64>,
        path: Option<&str>,
        domain: Option<&str>,
        secure: bool,
        httponly: bool,
        samesite: Option<&str>,
    ) -> PyResult<()> {
        let token = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte))
        };
        if name.is_empty() || !token(name) {
            return Err(PyValueError::new_err(format!("{name:?} is not a cookie name")));
        }
        let attribute = |text: &str| text.bytes().any(|byte| b";,\"\\ \t".contains(&byte));
        if !value.is_ascii() {
            return Err(PyValueError::new_err(format!(
                "the value of cookie {name:?} has a character beyond ASCII: encode it"
            )));
        }
        if attribute(value) {
            return Err(PyValueError::new_err(format!(
                "the value of cookie {name:?} has a character that must be quoted: encode it"
            )));
        }
        let mut line = format!("{name}={value}");
        for (key, text) in [("Path", path), ("Domain", domain)] {
            if let Some(text) = text {
                if text.contains(';') {
                    return Err(PyValueError::new_err(format!(
                        "{key} of cookie {name:?} has a ';'"
                    )));
                }
                line.push_str(&format!("; {key}={text}"));
            }
        }
        if let Some(seconds) = max_age {
            line.push_str(&format!("; Max-Age={seconds}"));
        }
        if secure {
            line.push_str("; Secure");
        }
        if httponly {
            line.push_str("; HttpOnly");
        }
        match samesite {
            None => {}
            Some("lax") => line.push_str("; SameSite=Lax"),
            Some("strict") => line.push_str("; SameSite=Strict"),
            Some("none") => line.push_str("; SameSite=None"),
            Some(other) => {
                return Err(PyValueError::new_err(format!(
                    "samesite {other:?} is not lax, strict, none or None"
                )));
            }
        }
        self.headers.get().append_value(SET_COOKIE, header_value("set-cookie", &line)?)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!("<{} {}>", slf.get_type().name()?, slf.get().status()))
    }
}

/// Any object that msgspec encodes, as JSON.
#[pyclass(frozen, extends = Response, subclass, module = "treadle")]
pub struct JSONResponse;

#[pymethods]
impl JSONResponse {
    #[new]
    #[pyo3(signature = (content=None, status=200, headers=None))]
    fn new(
        py: Python<'_>,
        content: Option<Bound<'_, PyAny>>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        // Models encode themselves, in Python, and a handler on the thread pool may be the one to ask.
        let _hangs_at_end = HangsAtEnd::enter();
        let encode = ENCODE.import(py, "treadle.encoding", "encode")?;
        let content = content.unwrap_or_else(|| py.None().into_bound(py));
        let body = encode.call1((content,))?.cast_into::<PyBytes>()?.unbind();
        let response = Response::build(py, body, status, headers, Some("application/json"))?;
        Ok(PyClassInitializer::from(response).add_subclass(Self))
    }
}

/// Text sent as HTML.
#[pyclass(frozen, extends = Response, subclass, module = "treadle")]
pub struct HTMLResponse;

#[pymethods]
impl HTMLResponse {
    #[new]
    #[pyo3(signature = (content=None, status=200, headers=None))]
    fn new(
        py: Python<'_>,
        content: Option<&Bound<'_, PyAny>>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let (body, _) = content_bytes(py, content)?;
        let media_type = Some("text/html; charset=utf-8");
        let response = Response::build(py, body, status, headers, media_type)?;
        Ok(PyClassInitializer::from(response).add_subclass(Self))
    }
}

/// Sends the client elsewhere; 307 keeps method and body.
#[pyclass(frozen, extends = Response, subclass, module = "treadle")]
pub struct RedirectResponse;

#[pymethods]
impl RedirectResponse {
    #[new]
    #[pyo3(signature = (url, status=307, headers=None))]
    fn new(
        py: Python<'_>,
        url: &str,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        if !(300..400).contains(&status) {
            return Err(PyValueError::new_err(format!("status {status} is not a redirect")));
        }
        // Control characters are refused; what else no URL can hold is escaped, as UTF-8.
        let escaped = percent_encoding::utf8_percent_encode(url, NOT_IN_URLS).to_string();
        let location: HeaderValue = header_value("location", &escaped)?;
        let body = PyBytes::new(py, b"").unbind();
        let response = Response::build(py, body, status, headers, None)?;
        response.headers.get().insert_value(LOCATION, location)?;
        Ok(PyClassInitializer::from(response).add_subclass(Self))
    }
}

/// Of ASCII, what RFC 3986 has no place for; beyond ASCII, everything is escaped.
const NOT_IN_URLS: &percent_encoding::AsciiSet = &percent_encoding::AsciiSet::EMPTY
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// A body made chunk by chunk from an async or sync iterator of bytes or str.
///
/// The next chunk is asked for when the client has taken the one before. A Content-Length among the
/// headers must be a length, and that of all chunks together.
#[pyclass(frozen, extends = Response, subclass, module = "treadle")]
pub struct StreamingResponse {
    iterator: Py<PyAny>,
}

impl StreamingResponse {
    /// The iterator given by the handler.
    pub fn iterator(&self, py: Python<'_>) -> Py<PyAny> {
        self.iterator.clone_ref(py)
    }
}

#[pymethods]
impl StreamingResponse {
    #[new]
    #[pyo3(signature = (content, status=200, headers=None, media_type=None))]
    fn new(
        py: Python<'_>,
        content: Bound<'_, PyAny>,
        status: u32,
        headers: Option<&Bound<'_, PyAny>>,
        media_type: Option<&str>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let is_iterable = content.hasattr(intern!(py, "__aiter__"))?
            || (content.hasattr(intern!(py, "__iter__"))?
                && !content.is_instance_of::<PyString>()
                && !content.is_instance_of::<PyBytes>());
        if !is_iterable {
            return Err(PyTypeError::new_err(format!(
                "content must be an async or sync iterable of bytes or str, not {}",
                content.get_type().name()?
            )));
        }
        let body = PyBytes::new(py, b"").unbind();
        let response = Response::build(py, body, status, headers, media_type)?;
        Ok(PyClassInitializer::from(response).add_subclass(Self { iterator: content.unbind() }))
    }

    /// A generator may refer to the response that it is the content of.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.iterator)
    }
}
