//! What Python awaits, as a Rust future on any thread: one letter there, one wake-up back.
//!
//! # Who owns what
//!
//! A [`Job`] is shared by the two sides: the [`RemoteFuture`], anywhere, and the loop, whose mailbox
//! keeps the Task beside it. The outcome passes through the job, under its lock; the
//! lock is never held while Python runs.
//!
//! # Races that end well
//!
//! * Dropped before its letter is read: the coroutine is never made.
//! * Dropped while it runs: a letter cancels the Task; when the Task ends first, the letter finds
//!   nothing to cancel.
//! * The loop is closed, on whatever thread, with the letter unread or the Task unfinished: whoever
//!   waits is told. So it is when the thread ends, or the loop runs on another, where what listens
//!   to the Task cannot be reached.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::awaitable::panicked;
use super::completion::{Completion, Next, own};
use super::future::cancel;
use super::home::{Home, after_python};
use super::homebound::misplaced;
use super::mailbox::{Letter, Mailbox};
use super::start::start;
use crate::python::context;

/// A loop, from any thread.
#[derive(Clone)]
pub struct LaneHandle {
    mailbox: Arc<Mailbox>,
}

impl LaneHandle {
    /// The loop behind `mailbox`.
    #[must_use]
    pub fn new(mailbox: Arc<Mailbox>) -> Self {
        Self { mailbox }
    }

    /// The loop that runs on the calling thread: a lane, or any other asyncio loop.
    ///
    /// # Errors
    /// `RuntimeError` when none runs.
    pub fn current(py: Python<'_>) -> PyResult<Self> {
        Ok(Self { mailbox: Home::current(py)?.mailbox().clone() })
    }

    /// The `RuntimeError` for something of this loop that is used on the calling thread.
    #[must_use]
    pub fn misplaced(&self, py: Python<'_>, what: &str) -> PyErr {
        misplaced(&self.mailbox, py, what)
    }

    /// Runs the awaitable that `make` gives, called on the loop's thread, and resolves to its
    /// outcome.
    ///
    /// One hand-over and at most one wake-up; a coroutine's first step is taken on arrival.
    /// Dropping the future cancels it. A loop that does not run yet, or not now, takes it up when
    /// it runs; a loop that is closed before the end makes the outcome a `RuntimeError`, and so does a
    /// panic of `make`.
    pub fn spawn<F>(&self, make: F) -> RemoteFuture
    where
        F: FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let job = Arc::new(Job { mailbox: self.mailbox.clone(), shared: Mutex::default() });
        let waiting = Unstarted(job.clone());
        let errand = move |py: Python<'_>, home: &Home| {
            waiting.0.start(py, home, make);
            drop(waiting);
        };
        // Refused, it is dropped, and `Unstarted` says so.
        drop(self.mailbox.send(Letter::Run(Box::new(errand))));
        RemoteFuture { job }
    }

    /// Awaits `awaitable` on this loop, in a copy of the caller's context; see
    /// [`spawn`](Self::spawn).
    ///
    /// A future or Task must be of this loop.
    pub fn into_future(&self, awaitable: &Bound<'_, PyAny>) -> RemoteFuture {
        let caller = context::copy_current(awaitable.py()).map(Bound::unbind);
        let awaitable = awaitable.clone().unbind();
        let job = Arc::new(Job { mailbox: self.mailbox.clone(), shared: Mutex::default() });
        let waiting = Unstarted(job.clone());
        let errand = move |py: Python<'_>, home: &Home| {
            let started = caller.and_then(|caller| {
                context::run(caller.bind(py), || {
                    waiting.0.start(py, home, move |_| Ok(awaitable));
                    Ok(())
                })
            });
            if let Err(error) = started {
                waiting.0.finish(Err(error));
            }
            drop(waiting);
        };
        drop(self.mailbox.send(Letter::Run(Box::new(errand))));
        RemoteFuture { job }
    }
}

/// A coroutine that a thread waits for, from both sides.
pub(super) struct Job {
    mailbox: Arc<Mailbox>,
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    state: State,
    waker: Option<Waker>,
}

#[derive(Default)]
enum State {
    /// Its letter is on the way.
    #[default]
    Sent,
    /// Its Task lies in this place of its home.
    Running(usize),
    Done(PyResult<Py<PyAny>>),
    /// The future was dropped, or gave the outcome away.
    Closed,
}

impl Job {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On the loop's thread.
    fn start(
        self: &Arc<Self>,
        py: Python<'_>,
        home: &Home,
        make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>,
    ) {
        if matches!(self.lock().state, State::Closed) {
            return;
        }
        // Kept until the outcome is told: the last to go tells of a closed loop.
        let report = Rc::new(Report(self.clone()));
        // A panic ends this work, not the turn that came to it.
        let made = catch_unwind(AssertUnwindSafe(|| make(py)))
            .unwrap_or_else(|payload| Err(panicked(&*payload)));
        let started = made.and_then(|awaitable| start(home, awaitable.bind(py), report.clone()));
        match started {
            Err(error) => self.finish(Err(error)),
            Ok(Some(task)) => self.run(py, &task),
            // It ended in its first step, and told.
            Ok(None) => {}
        }
    }

    /// Keeps the Task, unless it is done by now.
    fn run(self: &Arc<Self>, py: Python<'_>, task: &Py<PyAny>) {
        let mut shared = self.lock();
        match shared.state {
            State::Sent => {
                // Refused, it stays `Sent`, and `Unstarted` says so.
                if let Some(place) = self.mailbox.add_job(self.clone(), task.clone_ref(py)) {
                    shared.state = State::Running(place);
                }
            }
            // Dropped during the first step.
            State::Closed => {
                drop(shared);
                cancel(task.bind(py));
            }
            State::Running(_) | State::Done(_) => {}
        }
    }

    /// The outcome is known; without effect when nobody waits or there is one already.
    fn finish(&self, outcome: PyResult<Py<PyAny>>) {
        let (late, waker) = {
            let mut shared = self.lock();
            match shared.state {
                State::Sent | State::Running(_) => {
                    shared.state = State::Done(outcome);
                    (None, shared.waker.take())
                }
                State::Done(_) | State::Closed => (Some(outcome), None),
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        drop(late);
    }

    /// The loop does not come to its end, `why` says what it did instead: "was closed".
    pub(super) fn abandon(&self, why: &str) {
        self.finish(Err(PyRuntimeError::new_err(format!("{} {why}", self.mailbox.name()))));
    }
}

/// The letter's share of a job; unread and dropped, it tells the other side.
struct Unstarted(Arc<Job>);

impl Drop for Unstarted {
    fn drop(&mut self) {
        if matches!(self.0.lock().state, State::Sent) {
            self.0.abandon("was closed");
        }
    }
}

/// The Task's share of a job; a Task that goes away unfinished tells the other side.
struct Report(Arc<Job>);

impl Completion for Report {
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        let place = match self.0.lock().state {
            State::Running(place) => Some(place),
            _ => None,
        };
        if let Some(place) = place {
            drop(self.0.mailbox.take_job(place, &self.0));
        }
        self.0.finish(own(py, outcome).map(Bound::unbind));
        Next::Done
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.0.abandon("was closed");
    }
}

/// The outcome of what another thread's loop awaits; dropping it cancels that.
#[must_use = "dropping it cancels the coroutine"]
pub struct RemoteFuture {
    job: Arc<Job>,
}

impl Future for RemoteFuture {
    type Output = PyResult<Py<PyAny>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = self.job.lock();
        match std::mem::replace(&mut shared.state, State::Closed) {
            State::Done(outcome) => return Poll::Ready(outcome),
            other => shared.state = other,
        }
        match shared.waker.as_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            None => shared.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for RemoteFuture {
    fn drop(&mut self) {
        let last = {
            let mut shared = self.job.lock();
            shared.waker = None;
            std::mem::replace(&mut shared.state, State::Closed)
        };
        if let State::Running(place) = last {
            let job = self.job.clone();
            let errand = move |py: Python<'_>, _: &Home| {
                if let Some(task) = job.mailbox.take_job(place, &job) {
                    cancel(task.bind(py));
                    after_python(py);
                }
            };
            drop(self.job.mailbox.send(Letter::Run(Box::new(errand))));
        }
    }
}
