//! Reading the body of a request.
//!
//! [`RequestBody`] wraps what hyper hands out, for two reasons. It keeps the limit: a body is cut
//! off as soon as it is known to be too large, before any of it is read if it says so itself. And it
//! tells the connection what only the reader knows: that it waits for the client (so that lateness
//! is the client's: 408), and that the last byte has been read (so that an idle connection may give
//! its buffers back).
//!
//! A reader may outlive the answer, in a Task of its own. The connection does not wait for it: the
//! end of the exchange wakes it, it takes what has arrived, and where it would wait for more it gives
//! the body back and fails.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::info::ConnectionInfo;
use super::quiet::poll_frame;

/// Why a request's body could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than the limit.
    TooLarge,
    /// Its chunks are not framed as chunks are.
    Malformed,
    /// The client left before all of it had arrived.
    Disconnected,
    /// The request was answered before all of it had arrived.
    Answered,
}

impl BodyError {
    /// The status that answers it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Malformed | Self::Disconnected => StatusCode::BAD_REQUEST,
            // Nobody is there to be told.
            Self::Answered => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is too large",
            Self::Malformed => "the request body is malformed",
            Self::Disconnected => "the client left before the end of the request body",
            Self::Answered => "the request was answered before the end of its body",
        })
    }
}

impl StdError for BodyError {}

impl From<&hyper::Error> for BodyError {
    fn from(error: &hyper::Error) -> Self {
        // What the chunk decoder objects to comes as an io error with one of these kinds.
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
        match cause.map(io::Error::kind) {
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Self::Malformed,
            _ => Self::Disconnected,
        }
    }
}

/// Whether `body` says of itself that it is larger than `limit`: to be refused before it is read.
#[must_use]
pub fn declares_more_than(body: &Incoming, limit: u64) -> bool {
    body.size_hint().lower() > limit
}

/// A request's body, read within a limit.
#[derive(Debug)]
pub struct RequestBody {
    /// There until the drop.
    body: Option<Incoming>,
    connection: Rc<ConnectionInfo>,
    /// Which of the connection's requests this is the body of: a reader that outlives its request
    /// has no say in the next one.
    request: u64,
    left: u64,
    has_trailers: bool,
}

impl RequestBody {
    /// `body`, of which at most `limit` bytes will be read.
    #[must_use]
    pub fn new(body: Incoming, connection: &Rc<ConnectionInfo>, limit: u64) -> Self {
        let request = connection.requests();
        Self {
            body: Some(body),
            connection: Rc::clone(connection),
            request,
            left: limit,
            has_trailers: false,
        }
    }

    /// The number of bytes still to come, if the client has said it.
    #[must_use]
    pub fn declared(&self) -> Option<u64> {
        self.body.as_ref()?.size_hint().exact()
    }

    /// Whether there is nothing more to read. False does not promise that there is.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// The next bytes, or `None` after the last.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// The next bytes, or `None` after the last.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        if declares_more_than(body, self.left) {
            return Poll::Ready(Some(Err(BodyError::TooLarge)));
        }
        loop {
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            let frame = match poll_frame(body, cx) {
                Poll::Pending if self.is_answered() => {
                    self.note_waiting(false);
                    self.give_back();
                    return Poll::Ready(Some(Err(BodyError::Answered)));
                }
                Poll::Pending => {
                    self.note_waiting(true);
                    self.connection.await_body(cx.waker());
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            };
            self.note_waiting(false);
            return Poll::Ready(match frame {
                None => {
                    self.note_done(true);
                    self.note_step(self.has_trailers);
                    None
                }
                Some(Err(error)) => Some(Err(BodyError::from(&error))),
                Some(Ok(frame)) => {
                    // Trailers are read and ignored; a trailer part without a field is none.
                    let chunk = match frame.into_data() {
                        Ok(chunk) => chunk,
                        Err(frame) if frame.trailers_ref().is_some_and(HeaderMap::is_empty) => {
                            return Poll::Ready(Some(Err(BodyError::Malformed)));
                        }
                        Err(_) => {
                            self.has_trailers = true;
                            continue;
                        }
                    };
                    if self.is_end() {
                        self.note_done(true);
                        self.note_step(false);
                    } else {
                        self.note_done(false);
                    }
                    match self.left.checked_sub(chunk.len() as u64) {
                        None => Some(Err(BodyError::TooLarge)),
                        Some(left) => {
                            self.left = left;
                            Some(Ok(chunk))
                        }
                    }
                }
            });
        }
    }

    /// Whether the answer has gone out: the connection goes on without the rest of the body.
    fn is_answered(&self) -> bool {
        self.connection.requests() != self.request || self.connection.answered.get()
    }

    fn give_back(&mut self) {
        if let Some(body) = self.body.take()
            && self.connection.requests() == self.request
        {
            self.connection.leave(body);
        }
    }

    fn note_waiting(&self, waits: bool) {
        if self.connection.requests() == self.request {
            self.connection.note_awaiting(waits);
        }
    }

    fn note_done(&self, done: bool) {
        if self.connection.requests() == self.request {
            self.connection.body_done.set(done);
        }
    }

    fn note_step(&self, lost: bool) {
        if self.connection.requests() == self.request {
            self.connection.loses_step.set(lost || self.connection.is_unseen.get());
        }
    }

    /// All of it. A body that arrives in one piece is not copied.
    pub async fn read_all(&mut self) -> Result<Bytes, BodyError> {
        let Some(first) = self.chunk().await.transpose()? else { return Ok(Bytes::new()) };
        if self.is_end() {
            return Ok(first);
        }
        let Some(second) = self.chunk().await.transpose()? else { return Ok(first) };
        // What the client declares is not allocated before it arrives.
        let mut all = BytesMut::with_capacity(2 * (first.len() + second.len()));
        all.extend_from_slice(&first);
        all.extend_from_slice(&second);
        while let Some(chunk) = self.chunk().await.transpose()? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.connection.requests() != self.request {
            return;
        }
        // Whatever the service waits for next, it is not this body.
        let was_awaited = self.connection.note_awaiting(false);
        // Given up because the client was slow: it is not waited for any more.
        if let Some(body) = self.body.take_if(|_| !was_awaited) {
            self.connection.leave(body);
        }
    }
}

/// All of `body`, if it is at most `limit` bytes.
pub async fn read_all(
    body: Incoming,
    connection: &Rc<ConnectionInfo>,
    limit: u64,
) -> Result<Bytes, BodyError> {
    RequestBody::new(body, connection, limit).read_all().await
}
