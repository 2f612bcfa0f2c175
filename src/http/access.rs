//! The access log: one event for each request, when its response is written or broken.
//!
//! Nothing of this runs while the log is off, which is where the `Option` in the exchange comes
//! from. Where the events end up is the subscriber's business.

use std::time::Instant;

use http::request::Parts;
use http::{Method, StatusCode, Uri};

use super::info::ConnectionInfo;

/// What is logged for a request that got no response: the client had left, or the server gave up.
const NO_RESPONSE: u16 = 499;

/// Logs a request whose head could not be served, so that nothing of it is known.
pub(crate) fn emit_refusal(connection: &ConnectionInfo, status: StatusCode, bytes: usize) {
    tracing::info!(
        target: "treadle.access",
        method = "-",
        path = "-",
        status = status.as_u16(),
        bytes = bytes as u64,
        duration_us = 0_u64,
        lane = connection.lane().id(),
        client = %connection.peer(),
        complete = true,
    );
}

/// One request on its way to the log.
#[derive(Debug)]
pub(crate) struct Access {
    method: Method,
    target: Uri,
    started: Instant,
    status: Option<StatusCode>,
    bytes: u64,
    complete: bool,
}

impl Access {
    pub(crate) fn start(head: &Parts) -> Box<Self> {
        Box::new(Self {
            method: head.method.clone(),
            target: head.uri.clone(),
            started: Instant::now(),
            status: None,
            bytes: 0,
            complete: false,
        })
    }

    pub(crate) fn responds(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(crate) fn sends(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The body is let go. It was all sent if it had come to its end, or was not to be sent.
    pub(crate) fn ends(&mut self, at_end: bool) {
        self.complete = at_end || self.method == Method::HEAD;
    }

    pub(crate) fn emit(&self, connection: &ConnectionInfo) {
        let duration = self.started.elapsed().as_micros();
        tracing::info!(
            target: "treadle.access",
            method = self.method.as_str(),
            path = self.target.path(),
            status = self.status.map_or(NO_RESPONSE, |status| status.as_u16()),
            bytes = self.bytes,
            duration_us = u64::try_from(duration).unwrap_or(u64::MAX),
            lane = connection.lane().id(),
            client = %connection.peer(),
            complete = self.complete,
        );
    }
}
