//! From what a handler gave back to an HTTP response.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, StatusCode};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

use super::framing;
use super::response::{Response, StreamingResponse, status_code};
use crate::http::{Body, Plain};
use crate::python::json::write_plain;

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
static BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// What is to be sent.
pub enum Reply {
    /// Status, type and content: what a value becomes.
    Plain(Plain),
    /// Everything is known. Boxed, because it is handed on several times before it is sent.
    Whole(Box<http::Response<Body>>),
    /// The head is known; the body comes from this Python iterator.
    Stream(http::Response<()>, Py<PyAny>),
}

/// What small bodies are cut from. A body that waits to be sent keeps all of its piece alive.
const PIECE: usize = 4096;
/// A larger body gets memory of its own.
const LARGEST_CUT: usize = 512;

/// A lane's own JSON encoder.
pub struct Encoder {
    /// msgspec's bound `encode` method.
    encode: Py<PyAny>,
    /// Where plain values are written.
    text: RefCell<Vec<u8>>,
    /// Where small bodies are kept until they are sent, which is mostly before the next is made:
    /// the same memory is used again and again.
    piece: RefCell<BytesMut>,
}

impl Encoder {
    /// A new one.
    ///
    /// # Errors
    /// When msgspec cannot be imported.
    pub fn new(py: Python<'_>) -> PyResult<Self> {
        let make = py.import("treadle.encoding")?.getattr("make_encoder")?;
        Ok(Self {
            encode: make.call0()?.unbind(),
            text: RefCell::default(),
            piece: RefCell::default(),
        })
    }

    /// `value` as JSON text.
    ///
    /// # Errors
    /// `TypeError` for what msgspec cannot encode.
    pub fn encode(&self, value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        let mut text = self.text.borrow_mut();
        text.clear();
        if write_plain(value, &mut text) {
            return Ok(self.keep(&text));
        }
        drop(text);
        let encoded = self.encode.bind(value.py()).call1((value,))?;
        Ok(self.keep(encoded.cast::<PyBytes>()?.as_bytes()))
    }

    /// A copy of `text` to be sent.
    fn keep(&self, text: &[u8]) -> Bytes {
        if text.len() > LARGEST_CUT {
            return Bytes::copy_from_slice(text);
        }
        let mut piece = self.piece.borrow_mut();
        if piece.capacity() < text.len() && !piece.try_reclaim(PIECE) {
            *piece = BytesMut::with_capacity(PIECE);
        }
        piece.extend_from_slice(text);
        piece.split().freeze()
    }

    /// The response for a handler's result; `status` is the route's, for plain results.
    ///
    /// # Errors
    /// `TypeError` for what cannot be encoded, `ValueError` for a route status or a stream's
    /// Content-Length that cannot be sent.
    pub fn reply(&self, result: &Bound<'_, PyAny>, status: Option<u16>) -> PyResult<Reply> {
        let py = result.py();
        if result.is_exact_instance_of::<PyDict>() {
            // What most handlers give: no need to ask what else it might be.
            let status = status_code(u32::from(status.unwrap_or(200)))?;
            return Ok(Reply::Plain(plain(status, Some(&JSON), self.encode_json(result)?)));
        }
        if result.is_none() {
            let status = status_code(u32::from(status.unwrap_or(204)))?;
            return Ok(Reply::Plain(plain(status, None, Bytes::new())));
        }
        if let Ok(response) = result.cast::<Response>() {
            let (status, headers, body) = response.get().parts(py);
            if let Ok(stream) = result.cast::<StreamingResponse>() {
                let mut head = http::Response::new(());
                *head.status_mut() = status;
                *head.headers_mut() = headers;
                framing::strip(head.headers_mut());
                if status == StatusCode::NO_CONTENT {
                    head.headers_mut().remove(CONTENT_LENGTH);
                }
                framing::length(head.headers()).map_err(PyValueError::new_err)?;
                return Ok(Reply::Stream(head, stream.get().iterator(py)));
            }
            return Ok(Reply::Whole(whole(status, headers, body)));
        }
        let status = status_code(u32::from(status.unwrap_or(200)))?;
        let (media_type, body) = if let Ok(text) = result.cast::<PyString>() {
            (&TEXT, Bytes::copy_from_slice(text.to_str()?.as_bytes()))
        } else if let Ok(bytes) = result.cast::<PyBytes>() {
            (&BYTES, Bytes::copy_from_slice(bytes.as_bytes()))
        } else {
            (&JSON, self.encode_json(result)?)
        };
        Ok(Reply::Plain(plain(status, Some(media_type), body)))
    }

    /// A handler's result as JSON; what cannot be encoded is said to be the handler's.
    fn encode_json(&self, result: &Bound<'_, PyAny>) -> PyResult<Bytes> {
        self.encode(result).map_err(|error| {
            let py = result.py();
            if !error.is_instance_of::<PyTypeError>(py) {
                return error;
            }
            let name = result.get_type().name();
            let told = PyTypeError::new_err(format!(
                "the handler returned a {} that cannot be encoded as JSON: {}",
                name.map_or_else(|_| "value".to_owned(), |name| name.to_string()),
                error.value(py)
            ));
            told.set_cause(py, Some(error));
            told
        })
    }
}

fn plain(status: StatusCode, content_type: Option<&'static HeaderValue>, body: Bytes) -> Plain {
    if status == StatusCode::NO_CONTENT {
        return Plain { status, content_type: None, body: Body::Empty };
    }
    Plain { status, content_type, body: full(body) }
}

fn whole(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Box<http::Response<Body>> {
    framing::strip(&mut headers);
    // Where there is a body, a handler's own idea of its length could only be wrong; where there is
    // none, it may be that of the GET whose HEAD this is.
    if body.is_empty()
        && let Ok(Some(length)) = framing::length(&headers)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    } else {
        headers.remove(CONTENT_LENGTH);
    }
    let mut response = Box::new(http::Response::new(full(body)));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn full(body: Bytes) -> Body {
    if body.is_empty() { Body::Empty } else { Body::Full(body) }
}
