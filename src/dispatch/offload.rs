//! Handlers that block: called on the thread pool, concluded back on the lane.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::{Answer, Dispatcher};
use crate::app::{Arguments, Plan, Request, RequestHead};
use crate::bridge::after_python;
use crate::http::problem;
use crate::python::call::vectorcall;
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
    mailbox: Arc<Mutex<Mailbox>>,
    place: Arc<Place>,
    clock: Clock,
    submitted: u64,
}

#[pymethods]
impl Job {
    fn __call__(&self, py: Python<'_>) {
        let start = self.clock.now();
        self.place.leave();
        let busy = &self.place.meter.busy;
        busy.fetch_add(1, Ordering::Relaxed);
        let outcome = context::run(self.context.bind(py), || {
            let kwnames = self.kwnames.as_ref().map(|names| names.bind(py));
            vectorcall(self.handler.bind(py), &self.arguments, kwnames).map(Bound::unbind)
        });
        busy.fetch_sub(1, Ordering::Relaxed);
        let waited = start.saturating_sub(self.submitted);
        let ran = self.clock.now().saturating_sub(start);
        let waker = {
            let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            mailbox.times = (waited, ran);
            mailbox.outcome = Some(outcome);
            mailbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Takes a job that nobody waits for out of the pool's queue; a running one goes on.
struct CancelOnDrop {
    future: Option<Py<PyAny>>,
    place: Arc<Place>,
}

impl CancelOnDrop {
    /// The job was run.
    fn disarm(mut self) {
        self.future = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
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

impl Dispatcher {
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
                mailbox: mailbox.clone(),
                place: place.clone(),
                clock,
                submitted: clock.now(),
            };
            Ok((self.offloader.submit.call1(py, (Py::new(py, job)?,))?, context))
        };
        let (future, context) = match submit() {
            Ok(submitted) => submitted,
            Err(error) => return Answer::Ready(Some(self.failed(py, plan, &head, error))),
        };
        let this = self.clone();
        let plan = plan.clone();
        let in_hand = self.stamps.in_hand();
        // A blocking call cannot be interrupted: opting out of cancellation changes only whether
        // a job that still waits in the queue is run for a client that left.
        let queued = CancelOnDrop { future: plan.cancel_on_disconnect.then_some(future), place };
        Answer::Later(Box::pin(async move {
            let (outcome, (waited, ran)) = poll_fn(|cx| {
                let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(outcome) = mailbox.outcome.take() {
                    return Poll::Ready((outcome, mailbox.times));
                }
                mailbox.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            queued.disarm();
            let answer = Python::attach(|py| {
                this.stamps.resume(&in_hand);
                this.stamps.offloaded(waited, ran);
                let concluded = context::run(context.bind(py), || {
                    let outcome = outcome.map(|value| value.into_bound(py));
                    Ok(this.concluded(py, &plan, head, request, outcome))
                });
                this.stamps.put_down();
                after_python(py);
                concluded.unwrap_or_else(|error| {
                    error.write_unraisable(py, None);
                    Answer::ready(problem(http::StatusCode::INTERNAL_SERVER_ERROR))
                })
            });
            answer.await
        }))
    }
}
