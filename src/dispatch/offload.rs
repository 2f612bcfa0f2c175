//! Handlers that block: called on the thread pool, concluded back on the lane.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use pyo3::exceptions::PyBaseException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{Answer, Dispatcher};
use crate::app::{Arguments, Plan, Request, RequestHead};
use crate::bridge::after_python;
use crate::http::problem;
use crate::python::context;
use crate::telemetry::Clock;

/// The process's thread pool, as a lane sees it.
pub struct Offloader {
    submit: Py<PyAny>,
    meter: Arc<OffloadMeter>,
}

/// What the process's pool has to do; counted by all lanes and all threads of the pool.
#[derive(Debug, Default)]
pub struct OffloadMeter {
    queued: AtomicU64,
    busy: AtomicU64,
}

impl OffloadMeter {
    /// Calls that wait for a thread, and calls that run.
    pub fn read(&self) -> (u64, u64) {
        (self.queued.load(Ordering::Relaxed), self.busy.load(Ordering::Relaxed))
    }
}

impl Offloader {
    /// `submit(job)` queues a callable and gives a `concurrent.futures.Future`.
    pub fn new(submit: Py<PyAny>, meter: Arc<OffloadMeter>) -> Self {
        Self { submit, meter }
    }

    /// Counts the calls of one stream.
    pub(super) fn chunk_calls(&self) -> ChunkCalls {
        ChunkCalls { meter: self.meter.clone(), state: AtomicU8::new(ChunkCalls::NONE) }
    }
}

/// The calls that the iterator of a stream has made on the thread pool, of which there is one at a
/// time. They are Python's own jobs, and counted with the handlers'.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct ChunkCalls {
    meter: Arc<OffloadMeter>,
    state: AtomicU8,
}

impl ChunkCalls {
    const NONE: u8 = 0;
    const QUEUED: u8 = 1;
    const BUSY: u8 = 2;

    fn enter(&self, state: u8) {
        let count = |state| match state {
            Self::QUEUED => Some(&self.meter.queued),
            Self::BUSY => Some(&self.meter.busy),
            _ => None,
        };
        if let Some(entered) = count(state) {
            entered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(left) = count(self.state.swap(state, Ordering::Relaxed)) {
            left.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[pymethods]
impl ChunkCalls {
    /// A call is about to wait for a thread.
    fn wait(&self) {
        self.enter(Self::QUEUED);
    }

    /// A thread begins it.
    fn begin(&self) {
        self.enter(Self::BUSY);
    }

    /// It has ended, or will never begin.
    fn end(&self) {
        self.enter(Self::NONE);
    }
}

impl Drop for ChunkCalls {
    fn drop(&mut self) {
        self.end();
    }
}

/// A call's place in the queue; given up once, by whoever comes first: the thread that makes the
/// call, the client that leaves, or the pool that ends.
struct Place {
    meter: Arc<OffloadMeter>,
    left: AtomicBool,
}

impl Place {
    fn take(meter: &Arc<OffloadMeter>) -> Arc<Self> {
        meter.queued.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { meter: meter.clone(), left: AtomicBool::new(false) })
    }

    fn leave(&self) {
        if !self.left.swap(true, Ordering::Relaxed) {
            self.meter.queued.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Where the pool's thread leaves the outcome, and whom it wakes.
#[derive(Default)]
struct Mailbox {
    outcome: Option<PyResult<Py<PyAny>>>,
    /// How long the job waited for a thread and how long it ran, in ticks.
    times: (u64, u64),
    waker: Option<Waker>,
}

/// One call of a handler, made by a thread of the pool.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Job {
    handler: Py<PyAny>,
    arguments: Vec<Py<PyAny>>,
    kwnames: Option<Py<PyTuple>>,
    context: Py<PyAny>,
    head: Arc<RequestHead>,
    template: Arc<str>,
    /// Until the outcome is there: an exception refers to the frame that made the call, and so to the
    /// job, which does not keep it in turn.
    mailbox: Mutex<Option<Arc<Mutex<Mailbox>>>>,
    place: Arc<Place>,
    clock: Clock,
    submitted: u64,
    started: AtomicU64,
}

#[pymethods]
impl Job {
    #[getter]
    fn handler(&self, py: Python<'_>) -> Py<PyAny> {
        self.handler.clone_ref(py)
    }

    /// Number, method and route of the request, for a log: the path itself may hold a secret.
    #[getter]
    fn request(&self) -> (u64, &str, &str) {
        (self.head.id, self.head.method.as_str(), &self.template)
    }

    /// The call begins: the context to make it in, the handler and its arguments. It is made by
    /// Python code, so that no native frame is in the way of an interpreter that ends the thread in
    /// the middle of it (up to 3.13 they do, by unwinding).
    fn begin<'py>(&self, py: Python<'py>) -> PyResult<Call<'py>> {
        self.started.store(self.clock.now(), Ordering::Relaxed);
        self.place.leave();
        self.place.meter.busy.fetch_add(1, Ordering::Relaxed);
        let names = self.kwnames.as_ref().map(|names| names.bind(py));
        let positional = self.arguments.len().saturating_sub(names.map_or(0, |names| names.len()));
        let (args, values) = self.arguments.split_at(positional);
        let kwargs = PyDict::new(py);
        for (name, value) in names.into_iter().flatten().zip(values) {
            kwargs.set_item(name, value)?;
        }
        let (context, handler) = (self.context.bind(py).clone(), self.handler.bind(py).clone());
        Ok((context, handler, PyTuple::new(py, args)?, kwargs))
    }

    /// The handler returned `value`.
    fn end(&self, value: Py<PyAny>) {
        self.conclude(Ok(value));
    }

    /// The handler raised `error`.
    fn fail(&self, error: Bound<'_, PyBaseException>) {
        self.conclude(Err(PyErr::from_value(error.into_any())));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.handler)?;
        self.arguments.iter().try_for_each(|argument| visit.call(argument))?;
        visit.call(&self.context)
    }
}

/// Context, handler, positional and keyword arguments.
type Call<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyTuple>, Bound<'py, PyDict>);

impl Job {
    fn conclude(&self, outcome: PyResult<Py<PyAny>>) {
        self.place.meter.busy.fetch_sub(1, Ordering::Relaxed);
        let started = self.started.load(Ordering::Relaxed);
        let waited = started.saturating_sub(self.submitted);
        let ran = self.clock.now().saturating_sub(started);
        let mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mailbox) = mailbox else { return };
        let waker = {
            let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            mailbox.times = (waited, ran);
            mailbox.outcome = Some(outcome);
            mailbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A job that may still wait in the pool's queue. A running one goes on: a blocking call cannot be
/// interrupted.
pub struct Queued {
    future: Cell<Option<Py<PyAny>>>,
    place: Arc<Place>,
    /// Whether it is not run for a client that left.
    cancel_on_disconnect: bool,
}

impl Queued {
    /// The job was run.
    fn disarm(&self) {
        drop(self.future.take());
    }

    /// Takes it out of the queue.
    pub(super) fn cancel(&self) {
        if let Some(future) = self.future.take() {
            Python::attach(|py| {
                let cancelled = future.call_method0(py, intern!(py, "cancel"));
                match cancelled.and_then(|cancelled| cancelled.is_truthy(py)) {
                    Ok(true) => self.place.leave(),
                    Ok(false) => {}
                    Err(error) => error.write_unraisable(py, None),
                }
            });
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.cancel_on_disconnect {
            self.cancel();
        }
    }
}

impl Dispatcher {
    #[allow(clippy::async_yields_async, reason = "who polls a step goes on with what it gives")]
    pub(super) fn offload(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        arguments: Arguments,
    ) -> Answer {
        let mailbox = Arc::new(Mutex::new(Mailbox::default()));
        let place = Place::take(&self.offloader.meter);
        let submit = || -> PyResult<(Py<PyAny>, Py<PyAny>)> {
            let context = context::copy_current(py)?.unbind();
            let clock = self.stamps.meter().clock;
            let job = Job {
                handler: plan.handler.clone_ref(py),
                arguments,
                kwnames: plan.kwnames(py).map(|names| names.clone().unbind()),
                context: context.clone_ref(py),
                head: head.clone(),
                template: plan.template.clone(),
                mailbox: Mutex::new(Some(mailbox.clone())),
                place: place.clone(),
                clock,
                submitted: clock.now(),
                started: AtomicU64::new(0),
            };
            Ok((self.offloader.submit.call1(py, (Py::new(py, job)?,))?, context))
        };
        let (future, context) = match submit() {
            Ok(submitted) => submitted,
            Err(error) => return Answer::Ready(Some(self.failed(py, plan, &head.into(), error))),
        };
        let this = self.clone();
        let plan = plan.clone();
        let in_hand = self.stamps.in_hand();
        let queued = Rc::new(Queued {
            future: Cell::new(Some(future)),
            place,
            cancel_on_disconnect: plan.cancel_on_disconnect,
        });
        let job = queued.clone();
        let step = Box::pin(async move {
            let (outcome, (waited, ran)) = poll_fn(|cx| {
                let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(outcome) = mailbox.outcome.take() {
                    return Poll::Ready((outcome, mailbox.times));
                }
                mailbox.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            job.disarm();
            Python::attach(|py| {
                this.stamps.resume(&in_hand);
                this.stamps.offloaded(waited, ran);
                let concluded = context::run(context.bind(py), || {
                    let outcome = outcome.map(|value| value.into_bound(py));
                    Ok(this.concluded(py, &plan, head.into(), request, &outcome))
                });
                this.stamps.put_down();
                after_python(py);
                concluded.unwrap_or_else(|error| {
                    error.write_unraisable(py, None);
                    Answer::ready(problem(http::StatusCode::INTERNAL_SERVER_ERROR))
                })
            })
        });
        Answer::Offloaded(step, queued)
    }
}
