//! The thread that accepts for several lanes.
//!
//! It is a bare lane: it never touches Python, so a lane that is busy in a
//! handler does not hold up connections for the others. A connection goes to the lane with the
//! fewest; the load counts it from that moment, so the next choice sees it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use futures_util::future::join_all;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::options::{HttpConfig, listener};
use super::{LaneServer, Link};
use crate::http::{Accepted, StopHandle, accept_loop, stop_signal};
use crate::lane::spawn_bare;
use crate::python::socket::os_error;

/// Accepts on all listeners and places each connection on the least loaded lane.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Acceptor {
    stop: StopHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Acceptor {
    /// Takes over the listening sockets and the inboxes of the lanes, and starts.
    #[new]
    #[allow(clippy::needless_pass_by_value, reason = "extracted from a Python list")]
    fn new(
        py: Python<'_>,
        fds: Vec<i32>,
        lanes: Vec<Py<LaneServer>>,
        config: &HttpConfig,
    ) -> PyResult<Self> {
        let listeners = fds.into_iter().map(|fd| listener(py, fd)).collect::<PyResult<Vec<_>>>()?;
        let links: Vec<Link> =
            lanes.iter().filter_map(|lane| lane.bind(py).get().take_link()).collect();
        if links.is_empty() {
            return Err(PyRuntimeError::new_err("no lane is left to accept for"));
        }
        let (stop, signal) = stop_signal();
        let limits = config.limits.clone();
        let thread = spawn_bare("treadle-accept", move || async move {
            let accepting = listeners.into_iter().map(|listener| {
                accept_loop(listener, limits.clone(), signal.clone(), |accepted| {
                    place(&links, accepted);
                })
            });
            for outcome in join_all(accepting).await {
                if let Err(error) = outcome {
                    tracing::error!(target: "treadle", %error, "cannot accept connections");
                }
            }
        })
        .map_err(|error| os_error(py, error))?;
        Ok(Self { stop, thread: Mutex::new(Some(thread)) })
    }

    /// Ends accepting; does not wait. From any thread.
    fn stop(&self) {
        self.stop.stop();
    }

    /// Waits for the thread to end.
    fn join(&self, py: Python<'_>) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            py.detach(|| {
                if thread.join().is_err() {
                    tracing::error!(target: "treadle", "the accepting thread panicked");
                }
            });
        }
    }
}

fn place(links: &[Link], accepted: Accepted) {
    let Some(link) = links.iter().min_by_key(|link| link.load.load(Ordering::Relaxed)) else {
        return;
    };
    match accepted.place_on(&link.load) {
        // A lane that has ended refuses; the connection is closed by being dropped.
        Ok(accepted) => drop(link.inbox.send(accepted)),
        Err(error) => {
            tracing::warn!(target: "treadle", %error, "a connection could not be placed");
        }
    }
}
