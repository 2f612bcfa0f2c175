//! Handlers that block: called on the thread pool, concluded back on the lane.

use std::future::poll_fn;
use std::rc::Rc;
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

/// The process's thread pool, as a lane sees it.
pub struct Offloader {
    submit: Py<PyAny>,
}

impl Offloader {
    /// `submit(job)` queues a callable and gives a `concurrent.futures.Future`.
    pub fn new(submit: Py<PyAny>) -> Self {
        Self { submit }
    }
}

/// Where the pool's thread leaves the outcome, and whom it wakes.
#[derive(Default)]
struct Mailbox {
    outcome: Option<PyResult<Py<PyAny>>>,
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
}

#[pymethods]
impl Job {
    fn __call__(&self, py: Python<'_>) {
        let outcome = context::run(self.context.bind(py), || {
            let kwnames = self.kwnames.as_ref().map(|names| names.bind(py));
            vectorcall(self.handler.bind(py), &self.arguments, kwnames).map(Bound::unbind)
        });
        let waker = {
            let mut mailbox = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
            mailbox.outcome = Some(outcome);
            mailbox.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Takes a job that nobody waits for out of the pool's queue; a running one goes on.
struct CancelOnDrop(Option<Py<PyAny>>);

impl CancelOnDrop {
    /// The job was run.
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(future) = self.0.take() {
            Python::attach(|py| {
                if let Err(error) = future.call_method0(py, intern!(py, "cancel")) {
                    error.write_unraisable(py, None);
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
        let submit = || -> PyResult<(Py<PyAny>, Py<PyAny>)> {
            let context = context::copy_current(py)?.unbind();
            let job = Job {
                handler: plan.handler.clone_ref(py),
                arguments,
                kwnames: plan.kwnames(py).map(|names| names.clone().unbind()),
                context: context.clone_ref(py),
                mailbox: mailbox.clone(),
            };
            Ok((self.offloader.submit.call1(py, (Py::new(py, job)?,))?, context))
        };
        let (future, context) = match submit() {
            Ok(submitted) => submitted,
            Err(error) => return Answer::Ready(Some(self.failed(py, plan, &head, error))),
        };
        let this = self.clone();
        let plan = plan.clone();
        // A blocking call cannot be interrupted: opting out of cancellation changes only whether
        // a job that still waits in the queue is run for a client that left.
        let queued = CancelOnDrop(plan.cancel_on_disconnect.then_some(future));
        Answer::Later(Box::pin(async move {
            let outcome = poll_fn(|cx| {
                let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(outcome) = mailbox.outcome.take() {
                    return Poll::Ready(outcome);
                }
                mailbox.waker = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
            queued.disarm();
            let answer = Python::attach(|py| {
                let concluded = context::run(context.bind(py), || {
                    let outcome = outcome.map(|value| value.into_bound(py));
                    Ok(this.concluded(py, &plan, head, request, outcome))
                });
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
