//! The one error type of the core: opaque, a kind and what caused it.
//!
//! Callers ask what went wrong with the `is_*` questions and show the rest to a person. Failures
//! of one request are not errors in this sense: `http::problem` answers those.

use std::error::Error as StdError;
use std::fmt;

type Source = Box<dyn StdError + Send + Sync>;

/// Why the server, or a lane of it, could not do what it was told.
pub struct Error {
    kind: Kind,
    source: Option<Source>,
}

/// The answer of every fallible function of the core that is not about one request.
pub type Result<T> = std::result::Result<T, Error>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Config,
    Bind,
    Io,
    Runtime,
    Stopped,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Config => "invalid option",
            Self::Bind => "cannot listen",
            Self::Io => "input or output failed",
            Self::Runtime => "a lane could not be started",
            Self::Stopped => "the server has stopped",
        }
    }
}

impl Error {
    fn with(kind: Kind, source: impl Into<Source>) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// An option that cannot be obeyed; `reason` names it and says what would be accepted.
    pub fn config(reason: impl Into<Source>) -> Self {
        Self::with(Kind::Config, reason)
    }

    /// An address or path that cannot be listened on.
    pub fn bind(reason: impl Into<Source>) -> Self {
        Self::with(Kind::Bind, reason)
    }

    /// The system refused a read, a write or a descriptor.
    pub fn io(reason: impl Into<Source>) -> Self {
        Self::with(Kind::Io, reason)
    }

    /// A lane, or the runtime under it, could not be started.
    pub fn runtime(reason: impl Into<Source>) -> Self {
        Self::with(Kind::Runtime, reason)
    }

    /// What was asked for needs a server that runs, and it does not any more.
    #[must_use]
    pub fn stopped() -> Self {
        Self { kind: Kind::Stopped, source: None }
    }

    /// Whether an option was at fault.
    #[must_use]
    pub fn is_config(&self) -> bool {
        self.kind == Kind::Config
    }

    /// Whether the address to listen on was at fault.
    #[must_use]
    pub fn is_bind(&self) -> bool {
        self.kind == Kind::Bind
    }

    /// Whether the system refused a read, a write or a descriptor.
    #[must_use]
    pub fn is_io(&self) -> bool {
        self.kind == Kind::Io
    }

    /// Whether a lane could not be started.
    #[must_use]
    pub fn is_runtime(&self) -> bool {
        self.kind == Kind::Runtime
    }

    /// Whether the server had stopped already.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.kind == Kind::Stopped
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.text())?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error").field("kind", &self.kind).field("source", &self.source).finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_kind_and_its_cause() {
        let error = Error::config("lanes: at least 1");
        assert!(error.is_config() && !error.is_bind());
        assert_eq!(error.to_string(), "invalid option: lanes: at least 1");
        assert!(error.source().is_some());
    }

    #[test]
    fn an_io_error_keeps_its_source() {
        let error = Error::from(std::io::Error::from(std::io::ErrorKind::AddrInUse));
        assert!(error.is_io());
        assert!(error.source().is_some_and(|source| source.is::<std::io::Error>()));
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}
