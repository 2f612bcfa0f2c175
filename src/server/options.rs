//! Options and sockets as Python hands them over.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use socket2::{Domain, Socket};

use crate::config::HttpOptions;
use crate::dispatch::OffloadMeter;
use crate::http::{Limits, Listener};
use crate::python::fd::adopt;
use crate::python::socket::os_error;

/// What no limit is, for a duration that must have a value.
const UNLIMITED: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The HTTP options of one process, and the limits that its lanes share.
#[pyclass(frozen, module = "treadle._treadle")]
#[derive(Clone)]
pub struct HttpConfig {
    pub(super) http: HttpOptions,
    pub(super) limits: Arc<Limits>,
    pub(super) offload: Arc<OffloadMeter>,
    pub(super) telemetry: bool,
}

fn seconds(name: &str, value: f64) -> PyResult<Option<Duration>> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if duration.is_zero() => Ok(None),
        Ok(duration) => Ok(Some(duration.min(UNLIMITED))),
        Err(_) => Err(PyValueError::new_err(format!("{name} must be a number of seconds"))),
    }
}

#[pymethods]
impl HttpConfig {
    /// Durations in seconds, sizes in bytes; 0 is no limit.
    #[new]
    #[pyo3(signature = (*, limit_body, limit_connections, limit_concurrency, timeout_header, timeout_keep_alive, timeout_request, timeout_write, access_log, telemetry=true))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python constructor")]
    fn new(
        limit_body: u64,
        limit_connections: usize,
        limit_concurrency: usize,
        timeout_header: f64,
        timeout_keep_alive: f64,
        timeout_request: f64,
        timeout_write: f64,
        access_log: bool,
        telemetry: bool,
    ) -> PyResult<Self> {
        let limit = |value: usize| (value > 0).then_some(value);
        let http = HttpOptions {
            header_timeout: seconds("timeout_header", timeout_header)?.unwrap_or(UNLIMITED),
            keep_alive_timeout: seconds("timeout_keep_alive", timeout_keep_alive)?
                .unwrap_or(UNLIMITED),
            request_timeout: seconds("timeout_request", timeout_request)?,
            write_timeout: seconds("timeout_write", timeout_write)?.unwrap_or(UNLIMITED),
            max_body: if limit_body == 0 { u64::MAX } else { limit_body },
            limit_connections: limit(limit_connections),
            limit_concurrency: limit(limit_concurrency),
            access_log,
            ..HttpOptions::default()
        };
        let limits = Limits::new(&http);
        Ok(Self { http, limits, offload: Arc::default(), telemetry })
    }

    /// Offloaded calls that wait for a thread, and those that run.
    fn offload(&self) -> (u64, u64) {
        self.offload.read()
    }

    /// Connections and requests that the limits have refused.
    fn refused(&self) -> (u64, u64) {
        self.limits.refused()
    }
}

/// The listening socket behind a descriptor that Python detached.
pub(super) fn listener(py: Python<'_>, fd: i32) -> PyResult<Listener> {
    let socket = Socket::from(adopt(fd).map_err(|error| os_error(py, error))?);
    let address = socket.local_addr().map_err(|error| os_error(py, error))?;
    match address.domain() {
        Domain::IPV4 | Domain::IPV6 => Ok(Listener::Tcp(TcpListener::from(socket))),
        Domain::UNIX => Ok(Listener::Unix(UnixListener::from(socket))),
        other => Err(PyOSError::new_err(format!("cannot listen on a socket of family {other:?}"))),
    }
}
