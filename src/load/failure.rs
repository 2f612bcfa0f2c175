//! What can go wrong with a request, by kind.

use std::error::Error;
use std::io;

/// Kinds of failure, in the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Nobody listens there.
    Refused,
    /// Another reason for which no connection came about.
    Connect,
    /// The server reset the connection.
    Reset,
    /// The server closed the connection before its answer was whole.
    Closed,
    /// What came back is no HTTP.
    Malformed,
    /// No whole answer in time.
    Timeout,
    /// An answer with a status that was not expected.
    Status,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::Connect,
        Self::Reset,
        Self::Closed,
        Self::Malformed,
        Self::Timeout,
        Self::Status,
    ];

    /// The word that reports have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Status => "status",
        }
    }
}

/// One request's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) text: String,
}

impl Failure {
    /// No connection came about.
    pub(crate) fn connecting(error: &io::Error) -> Self {
        let kind = match error.kind() {
            // The second is a Unix socket whose file is gone.
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => FailureKind::Refused,
            _ => FailureKind::Connect,
        };
        Self { kind, text: format!("no connection: {error}") }
    }

    /// The connection failed under a request.
    pub(crate) fn exchanging(error: &hyper::Error) -> Self {
        let kind = if let Some(io) = io_cause(error) {
            match io.kind() {
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => FailureKind::Reset,
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => FailureKind::Malformed,
                _ => FailureKind::Closed,
            }
        } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            FailureKind::Closed
        } else {
            FailureKind::Malformed
        };
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self { kind, text }
    }
}

fn io_cause(error: &hyper::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}
