//! Typed options of the HTTP layer. No strings past this point.
//!
//! Plain values: built once, before the lanes start, and never changed. Every lane gets its own
//! copy, so that reading one on the hot path touches no memory shared between threads.

use std::time::Duration;

/// What one server process allows its HTTP clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// From the first byte of a request's head to its last, and from the accept of a connection
    /// to its first head. Past it: 408, and the connection is closed.
    pub header_timeout: Duration,
    /// How long a connection may stay idle between two requests before it is closed.
    pub keep_alive_timeout: Duration,
    /// From the end of a request's head until its response starts, the reading of its body
    /// included. Past it the handler is given up: 504, or 408 if it was waiting for the body. Also
    /// how long the client may send nothing of a body that is waited for once the response has
    /// started; past that, the connection is closed. `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// How long a client may take no byte of what is written to it before it is cut off.
    pub write_timeout: Duration,
    /// Idle for this long, a connection gives back its buffers and keeps only its socket.
    pub hibernate_after: Duration,
    /// Bytes of a request's line and headers together. Past it: 431.
    pub max_header_bytes: usize,
    /// Header lines of one request. Past it: 431.
    pub max_headers: usize,
    /// Bytes of a request's body where a route does not say otherwise. Past it: 413.
    pub max_body: u64,
    /// Connections open at once in this process, over all lanes. Past it: 503 and close.
    pub limit_connections: Option<usize>,
    /// Requests in flight at once in this process, over all lanes. Past it: 503.
    pub limit_concurrency: Option<usize>,
    /// Whether each request leaves a line in the access log.
    pub access_log: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            // Above the 60 s that the usual balancers keep a connection: they should be the ones
            // to close, or a request of theirs meets a closing server.
            keep_alive_timeout: Duration::from_secs(75),
            request_timeout: Some(Duration::from_secs(60)),
            write_timeout: Duration::from_secs(60),
            hibernate_after: Duration::from_secs(1),
            max_header_bytes: 64 * 1024,
            max_headers: 100,
            max_body: 16 * 1024 * 1024,
            limit_connections: None,
            limit_concurrency: None,
            access_log: false,
        }
    }
}

impl HttpOptions {
    /// The shortest of the configured times: what the clock that watches over them must resolve.
    pub(crate) fn shortest_timeout(&self) -> Duration {
        let times = [
            self.header_timeout,
            self.keep_alive_timeout,
            self.write_timeout,
            self.hibernate_after,
        ];
        times.into_iter().chain(self.request_timeout).min().unwrap_or(self.header_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_is_on_by_default() {
        let options = HttpOptions::default();
        assert!(options.request_timeout.is_some());
        assert!(options.shortest_timeout() > Duration::ZERO);
    }

    #[test]
    fn the_shortest_timeout_counts_the_optional_one() {
        let options = HttpOptions {
            request_timeout: Some(Duration::from_millis(3)),
            ..HttpOptions::default()
        };
        assert_eq!(options.shortest_timeout(), Duration::from_millis(3));
    }
}
