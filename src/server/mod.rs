//! Assembly: options and routes become a lane that serves, listeners feed the lanes.
//!
//! # The stages of a lane's service
//!
//! 1. [`LaneServer::new`], on the lane's thread: the lane's own plans, its connections.
//! 2. Accepting. One lane: [`LaneServer::listen`], on the lane itself. Several: an [`Acceptor`]
//!    thread, which never touches Python, gives each connection to the least loaded lane through
//!    the lane's inbox.
//! 3. The stop, each step awaited by the lane's Python side (`treadle.server`): accepting ends
//!    (what the kernel had queued is still taken), [`LaneServer::drain`] closes idle connections
//!    and announces the end to the others, [`LaneServer::wait_idle`] waits for them,
//!    [`LaneServer::abort`] cancels what is left when the grace period is over.
//!
//! Beside them stand a thread of `treadle.stall`, which waits in [`StallWatch`], and whoever reads a
//! [`Meter`]; neither takes a lane's time.
//!
//! A lane's inbox has one sender, which goes to the acceptor; when the acceptor's thread ends, the
//! inbox ends after its last connection, so none is lost between the two.

mod acceptor;
mod log;
mod options;
mod stats;
mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::bridge::into_awaitable;
use crate::dispatch::{AppFace, Counted, DispatchService, Dispatcher, NoRoute, RouteTable};
use crate::http::{Accepted, HttpLane, StopHandle, StopSignal, accept_loop, stop_signal};
use crate::lane::{Lane, LaneCore};
use crate::python::lane_bound::LaneBound;
use crate::telemetry::{LaneMeter, RouteMeter};

pub use acceptor::Acceptor;
pub use log::install as install_logging;
pub use options::HttpConfig;
pub use stats::{Meter, meters};
pub use watch::StallWatch;

/// How a lane is reached by the acceptor.
pub(crate) struct Link {
    pub(crate) inbox: mpsc::UnboundedSender<Accepted>,
    pub(crate) load: Arc<AtomicUsize>,
}

/// One lane's share of a server.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct LaneServer {
    inner: LaneBound<RefCell<Option<Rc<Inner>>>>,
    link: Mutex<Option<Link>>,
    stop: StopHandle,
    stopped: StopSignal,
    config: HttpConfig,
    meter: Arc<LaneMeter>,
    /// The first is for requests that met no route.
    routes: Arc<[RouteMeter]>,
}

struct Inner {
    core: Rc<LaneCore>,
    http: Rc<HttpLane>,
    service: Rc<DispatchService>,
    accepting: RefCell<Vec<JoinHandle<()>>>,
}

impl LaneServer {
    fn inner(&self) -> PyResult<Rc<Inner>> {
        let inner = self.inner.get().ok_or_else(|| {
            PyRuntimeError::new_err("a lane's server is used on its own lane only")
        })?;
        let inner = inner.borrow().clone();
        inner.ok_or_else(|| PyRuntimeError::new_err("the lane's server has ended"))
    }

    /// The inbox, which can be taken once.
    pub(crate) fn take_link(&self) -> Option<Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[pymethods]
impl LaneServer {
    /// Compiles the lane's copy of the routes; to be called on the lane while its loop runs.
    #[new]
    #[pyo3(signature = (lane, table, config, *, app, face, find_handler, pump, report, http_exception, no_route, invalid, disconnect, submit))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python constructor")]
    fn new(
        py: Python<'_>,
        lane: &Lane,
        table: &RouteTable,
        config: &HttpConfig,
        app: Py<PyAny>,
        face: Py<PyAny>,
        find_handler: Option<Py<PyAny>>,
        pump: Py<PyAny>,
        report: Py<PyAny>,
        http_exception: Py<PyAny>,
        no_route: Option<Py<PyAny>>,
        invalid: Option<Py<PyAny>>,
        disconnect: Py<PyAny>,
        submit: Py<PyAny>,
    ) -> PyResult<Self> {
        let core = lane.core()?;
        let (table, routes) = table.snapshot(py);
        let face = AppFace {
            app,
            lane: face,
            find_handler,
            pump,
            report,
            http_exception,
            no_route: no_route.map(|make| NoRoute::new(py, make)),
            invalid,
            disconnect,
            submit,
        };
        let options = Rc::new(config.http.clone());
        let limit_body = options.max_body;
        let meter = lane.meter().clone();
        if !config.telemetry {
            meter.turn_off();
        }
        let meters: Arc<[RouteMeter]> = (0..=routes.len()).map(|_| RouteMeter::default()).collect();
        let limits = config.limits.clone();
        let http = HttpLane::new(meter.clone(), meters.clone(), options, limits);
        let counted = Counted { routes: meters.clone(), offload: config.offload.clone() };
        let dispatcher =
            Dispatcher::new(py, core.clone(), &routes, &table, face, limit_body, counted)?;
        let service = Rc::new(DispatchService(Rc::new(dispatcher)));
        let (sender, mut inbox) = mpsc::unbounded_channel();
        let link = Link { inbox: sender, load: http.load().clone() };
        let (serving, answering) = (http.clone(), service.clone());
        let receiver = tokio::task::spawn_local(async move {
            while let Some(accepted) = inbox.recv().await {
                serving.serve(accepted, &answering);
            }
        });
        let (stop, stopped) = stop_signal();
        Ok(Self {
            inner: LaneBound::new(RefCell::new(Some(Rc::new(Inner {
                core,
                http,
                service,
                accepting: RefCell::new(vec![receiver]),
            })))),
            link: Mutex::new(Some(link)),
            stop,
            stopped,
            config: config.clone(),
            meter,
            routes: meters,
        })
    }

    /// Accepts on these listening sockets, which it owns from now on, on the lane itself.
    fn listen(&self, py: Python<'_>, fds: Vec<i32>) -> PyResult<()> {
        let inner = self.inner()?;
        for fd in fds {
            let listener = options::listener(py, fd)?;
            let (http, service) = (inner.http.clone(), inner.service.clone());
            let (stop, limits) = (self.stopped.clone(), self.config.limits.clone());
            let task = tokio::task::spawn_local(async move {
                let placed = accept_loop(listener, limits, stop, move |accepted| {
                    http.serve(accepted, &service);
                });
                if let Err(error) = placed.await {
                    tracing::error!(target: "treadle", %error, "cannot accept connections");
                }
            });
            inner.accepting.borrow_mut().push(task);
        }
        Ok(())
    }

    /// Ends accepting on this lane; awaitable that is done when no connection is on its way.
    fn stop_accepting<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        self.stop.stop();
        drop(self.take_link());
        let accepting = inner.accepting.take();
        into_awaitable(py, async move {
            join_all(accepting).await;
            Ok(Python::attach(|py| py.None()))
        })
    }

    /// Closes idle connections and lets the others end with the answer they are at.
    fn drain(&self) -> PyResult<()> {
        self.inner()?.http.drain();
        Ok(())
    }

    /// Awaitable: no connection is open.
    fn wait_idle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.inner()?;
        let empty = inner.http.wait_empty();
        into_awaitable(py, async move {
            empty.await;
            Ok(Python::attach(|py| py.None()))
        })
    }

    /// Cancels the handlers that still run and closes their connections.
    fn abort(&self) -> PyResult<()> {
        self.inner()?.http.abort_all();
        Ok(())
    }

    /// Lets go of app and routes. The lane's thread does so before it ends: afterwards nobody can,
    /// and what is counted may be asked for as long as there is somebody to ask.
    fn release(&self) {
        if let Some(inner) = self.inner.get() {
            drop(inner.take());
        }
    }

    /// Handlers that run in Tasks now.
    #[getter]
    fn running(&self) -> PyResult<usize> {
        Ok(self.inner()?.core.running.get())
    }

    /// What is counted of the lane; any thread may ask.
    #[getter]
    fn meter(&self) -> Meter {
        Meter::of(&self.meter)
    }

    /// What is counted of the routes that had a request: their numbers, from 1 in the order of the
    /// table, 0 for requests that met none, and a dict each; any thread may ask.
    fn route_stats<'py>(&self, py: Python<'py>) -> PyResult<Vec<(usize, Bound<'py, PyDict>)>> {
        stats::routes(py, &self.routes)
    }

    /// Open connections now.
    #[getter]
    fn connections(&self) -> PyResult<usize> {
        Ok(self.inner()?.http.open())
    }
}
