//! A handler that runs in a Task.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Method, StatusCode};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::conclude::{Conclusion, Given};
use super::kept::Kept;
use super::stamps::InHand;
use super::stream::{Outlet, Sink};
use super::{Answer, Dispatcher};
use crate::app::{Mode, Plan, Request};
use crate::bridge::{Completion, Next, Scope, Waiting, after_python, is_cancelled, own};
use crate::http::{Body, Outgoing, channel, closing_problem, problem};

/// What the Task is running.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The handler, or an exception handler in its place: the answer is not known yet.
    Answering,
    /// The pump of a streaming response: the head is out, or nobody wants it.
    Streaming,
}

/// One request on its way through a Task.
///
/// The Task's [`Completion`] and the connection's [`Running`] share it; both live on the lane.
pub(super) struct Call {
    dispatcher: Rc<Dispatcher>,
    plan: Rc<Plan>,
    head: Kept,
    request: Option<Py<Request>>,
    stage: Cell<Stage>,
    response: RefCell<Option<Outgoing>>,
    waker: RefCell<Option<Waker>>,
    /// The connection does not wait any more.
    abandoned: Cell<bool>,
    rare: OnceCell<Box<Rare>>,
    ended: Cell<bool>,
    in_hand: Option<InHand>,
    suspended: Cell<bool>,
    /// The address of the Task's context, once it takes steps itself.
    context: Cell<Option<usize>>,
}

/// What few calls have.
#[derive(Default)]
struct Rare {
    /// Keeps an abandoned Task alive that was not cancelled.
    kept: RefCell<Option<Py<PyAny>>>,
    /// The Task that goes on after the handler's ended; the connection fetches it.
    moved: RefCell<Option<Waiting>>,
    outlet: RefCell<Option<Outlet>>,
    /// The answer to a HEAD, which goes out once the iterator that it does not want is closed.
    held: RefCell<Option<Outgoing>>,
    /// The exception whose handler the Task runs now.
    rescued: RefCell<Option<PyErr>>,
}

impl Call {
    pub(super) fn new(
        dispatcher: Rc<Dispatcher>,
        plan: Rc<Plan>,
        head: Kept,
        request: Option<Py<Request>>,
    ) -> Self {
        let core = &dispatcher.core;
        core.running.set(core.running.get() + 1);
        let in_hand = dispatcher.stamps.in_hand();
        Self {
            dispatcher,
            plan,
            head,
            request,
            stage: Cell::new(Stage::Answering),
            response: RefCell::new(None),
            waker: RefCell::new(None),
            abandoned: Cell::new(false),
            rare: OnceCell::new(),
            ended: Cell::new(false),
            in_hand,
            suspended: Cell::new(false),
            context: Cell::new(None),
        }
    }

    /// Where to put what few calls have.
    fn rare(&self) -> &Rare {
        self.rare.get_or_init(Box::default)
    }

    /// Takes something that few calls have, if this one has it.
    fn take_rare<T>(&self, place: impl FnOnce(&Rare) -> &RefCell<Option<T>>) -> Option<T> {
        self.rare.get().and_then(|rare| place(rare).take())
    }

    /// Whether the answer waits for an iterator to be closed.
    fn is_held(&self) -> bool {
        self.rare.get().is_some_and(|rare| rare.held.borrow().is_some())
    }

    fn answer(&self, response: Outgoing) {
        if self.abandoned.get() {
            return;
        }
        self.response.replace(Some(response));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The next coroutine of the Task is an exception handler, called for `first`.
    pub(super) fn rescue(&self, first: PyErr) {
        self.rare().rescued.replace(Some(first));
    }

    /// Answers with the head of a stream; gives the coroutine that sends its chunks, or closes their
    /// iterator where only the head is asked for.
    pub(super) fn stream(
        &self,
        py: Python<'_>,
        head: http::Response<()>,
        iterator: &Py<PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let (sender, body) = channel();
        if self.head.method() == Method::HEAD {
            let coroutine = self.close(py, iterator)?;
            self.rare().held.replace(Some(head.map(|()| Body::Stream(body)).into()));
            return Ok(coroutine);
        }
        let outlet = Outlet::new(sender, declared(&head));
        let sink = Py::new(py, Sink::new(outlet.clone()))?;
        let pump = self.pump(py, iterator, sink.into_any())?;
        self.rare().outlet.replace(Some(outlet));
        self.stage.set(Stage::Streaming);
        let (parts, ()) = head.into_parts();
        self.answer(http::Response::from_parts(parts, Body::Stream(body)).into());
        Ok(pump)
    }

    /// Nobody takes the stream: gives the coroutine that closes its iterator.
    fn close(&self, py: Python<'_>, iterator: &Py<PyAny>) -> PyResult<Py<PyAny>> {
        let coroutine = self.pump(py, iterator, py.None())?;
        self.stage.set(Stage::Streaming);
        Ok(coroutine)
    }

    /// The coroutine that sends the iterator's chunks to `sink`.
    fn pump(&self, py: Python<'_>, iterator: &Py<PyAny>, sink: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let pump = &self.dispatcher.face.pump;
        if self.plan.mode == Mode::Offload {
            // Where the handler blocks, so does what it yields from.
            let request = (self.head.id(), self.head.method().as_str(), &*self.plan.template);
            let calls = self.dispatcher.offloader.chunk_calls();
            pump.call1(py, (iterator, sink, &self.dispatcher.face.submit, request, calls))
        } else {
            pump.call1(py, (iterator, sink))
        }
    }

    /// 500 for what went wrong, logged.
    pub(super) fn fail(&self, py: Python<'_>, error: PyErr) -> Outgoing {
        self.dispatcher.failed(py, &self.plan, &self.head, error)
    }

    /// The pump ended.
    fn end_stream(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        if let Some(response) = self.take_rare(|rare| &rare.held) {
            if let Err(error) = outcome
                && !self.abandoned.get()
            {
                self.dispatcher.report(py, &self.plan, &self.head, error.clone_ref(py));
            }
            self.answer(response);
            return Next::Done;
        }
        let outlet = self.take_rare(|rare| &rare.outlet);
        let Err(error) = own(py, outcome) else {
            if let Some(outlet) = outlet {
                match outlet.missing() {
                    0 => outlet.finish(),
                    missing => {
                        outlet.abort();
                        let error = PyRuntimeError::new_err(format!(
                            "the chunks of the response are {missing} bytes shorter than its \
                             Content-Length"
                        ));
                        self.dispatcher.report(py, &self.plan, &self.head, error);
                    }
                }
            }
            return Next::Done;
        };
        let client_left = outlet.as_ref().is_none_or(Outlet::is_closed);
        if let Some(outlet) = outlet {
            outlet.abort();
        }
        // Of what is cancelled here, the client has left, also where the server stops. Any other
        // cancellation has escaped from another Task.
        if !client_left {
            if self.response.borrow().is_some() {
                // Not even the head went out: this can still be said as it should be.
                self.dispatcher.report(py, &self.plan, &self.head, error);
                let response = closing_problem(StatusCode::INTERNAL_SERVER_ERROR).into();
                self.response.replace(Some(response));
            } else {
                self.dispatcher.report(py, &self.plan, &self.head, error);
            }
        }
        Next::Done
    }
}

/// How long the body is, as the head says.
fn declared(head: &http::Response<()>) -> Option<u64> {
    head.headers().get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Completion for Call {
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        let is_first_step = !self.suspended.get();
        if !is_first_step {
            self.dispatcher.stamps.resume(&self.in_hand);
        }
        let next = self.advance(py, outcome);
        if !matches!(next, Next::Await(_)) {
            self.end();
        }
        if !is_first_step {
            self.dispatcher.stamps.forget();
        }
        next
    }

    fn steps(&self) {
        self.dispatcher.stamps.steps(&self.in_hand);
    }

    fn stepped(&self) {
        self.dispatcher.stamps.stepped(&self.in_hand, self.ended.get());
    }

    fn left_to_task(&self, context: usize) {
        self.context.set(Some(context));
        self.dispatcher.stamps.follow(&self.in_hand, context);
    }

    fn goes_on(&self, py: Python<'_>, waiting: Waiting) {
        if self.abandoned.get() {
            self.rare().kept.replace(waiting.into_task(py));
            return;
        }
        self.rare().moved.replace(Some(waiting));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Call {
    /// What an outcome leads to.
    fn advance(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        if self.stage.get() == Stage::Streaming {
            return self.end_stream(py, outcome);
        }
        if let Err(error) = outcome
            && is_cancelled(py, error)
        {
            self.dispatcher.stamps.cancelled();
            if !self.abandoned.get() {
                // Nobody asked for it: the handler let another Task's cancellation escape, or the
                // server stops.
                let response = self.fail(py, error.clone_ref(py));
                self.answer(response);
            }
            return Next::Done;
        }
        let conclusion = match self.take_rare(|rare| &rare.rescued) {
            Some(first) => self.dispatcher.conclude_handler(
                py,
                &self.plan,
                &self.head,
                own(py, outcome),
                first,
            ),
            None => {
                let request = self.request.as_ref();
                self.dispatcher.conclude(py, &self.plan, &self.head, request, outcome)
            }
        };
        self.follow(py, conclusion)
    }

    /// What a handler gave in its Task's first step leads to.
    pub(super) fn take(&self, py: Python<'_>, given: PyResult<Given>) -> Next {
        let request = self.request.as_ref();
        let conclusion = self.dispatcher.conclude_given(py, &self.plan, &self.head, request, given);
        let next = self.follow(py, conclusion);
        if !matches!(next, Next::Await(_)) {
            self.end();
        }
        next
    }

    fn follow(&self, py: Python<'_>, conclusion: Conclusion) -> Next {
        match conclusion {
            Conclusion::Reply(response) => {
                self.answer(response);
                Next::Done
            }
            Conclusion::Await(coroutine) => Next::Await(coroutine),
            Conclusion::Rescue(coroutine, first) => {
                self.rescue(first);
                Next::Await(coroutine)
            }
            Conclusion::Stream(head, iterator) => {
                let coroutine = if self.abandoned.get() {
                    self.close(py, &iterator)
                } else {
                    self.stream(py, head, &iterator)
                };
                match coroutine {
                    Ok(coroutine) => Next::Await(coroutine),
                    Err(error) => {
                        let response = self.fail(py, error);
                        self.answer(response);
                        Next::Done
                    }
                }
            }
        }
    }
}

impl Call {
    /// The Task is at its end: it counts as running no more, and nothing keeps it alive.
    fn end(&self) {
        if !self.ended.replace(true) {
            if let Some(context) = self.context.get() {
                self.dispatcher.stamps.ended(context);
            }
            let running = &self.dispatcher.core.running;
            running.set(running.get().saturating_sub(1));
        }
        if let Some(request) = &self.request {
            request.get().release_body();
        }
        drop(self.take_rare(|rare| &rare.kept));
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end();
        if let Some(headers) = self.head.take_headers() {
            self.dispatcher.left_headers.put(headers);
        }
    }
}

impl Dispatcher {
    /// Runs a handler's coroutine in a Task.
    pub(super) fn start(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Kept,
        request: Option<Py<Request>>,
        coroutine: Py<PyAny>,
    ) -> Answer {
        let call = Call::new(self.clone(), plan.clone(), head, request);
        self.launch(py, call, coroutine)
    }

    /// Runs `coroutine` as the Task of `call`.
    pub(super) fn launch(&self, py: Python<'_>, call: Call, coroutine: Py<PyAny>) -> Answer {
        let call = Rc::new(call);
        let lasting = || call.clone() as Rc<dyn Completion>;
        match self.core.tasks.start(py, coroutine, Scope::Copy, &*call, lasting) {
            Ok(None) => call.ended(),
            Ok(Some(waiting)) => call.wait(waiting),
            Err(error) => Answer::Ready(Some(call.fail(py, error))),
        }
    }
}

impl Call {
    /// The answer of a Task that ended in its first step.
    pub(super) fn ended(self: Rc<Self>) -> Answer {
        Answer::Ready(self.response.take())
    }

    /// The answer of a Task that suspended.
    pub(super) fn wait(self: Rc<Self>, waiting: Waiting) -> Answer {
        self.suspended.set(true);
        self.dispatcher.stamps.suspended();
        if !waiting.is_in_lane() {
            self.left_to_task(waiting.context());
        }
        match self.response.take() {
            Some(response) => {
                self.tie(waiting);
                Answer::Ready(Some(response))
            }
            None => Answer::Running(Running { call: self, task: Some(waiting) }),
        }
    }

    /// Ties a streaming Task to its outlet: the client's leaving cancels it. Any other has ended.
    fn tie(&self, waiting: Waiting) {
        let outlet = self.rare.get().and_then(|rare| rare.outlet.borrow().clone());
        Python::attach(|py| match outlet {
            Some(outlet) => {
                let context = waiting.context();
                if let Some(task) = waiting.into_task(py) {
                    let request = self.request.as_ref().map(|request| request.clone_ref(py));
                    let cancel_on_disconnect = self.plan.cancel_on_disconnect;
                    outlet.tie(task, move || cancel_on_disconnect && !has_told(&request, context));
                }
            }
            None => {
                let core = &self.dispatcher.core;
                if let Some(context) = core.tasks.reuse(py, waiting) {
                    core.spare_context.put(context);
                }
            }
        });
    }
}

/// Whether the Task with the context at that address has heard from the request's body that the
/// client left. It may be cleaning up for that reason: to cancel it now would break into that.
fn has_told(request: &Option<Py<Request>>, context: usize) -> bool {
    request.as_ref().is_some_and(|request| request.get().has_told(context))
}

/// A suspended handler; dropping it means that nobody waits for the answer.
pub struct Running {
    call: Rc<Call>,
    task: Option<Waiting>,
}

impl Future for Running {
    type Output = Outgoing;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(next) = this.call.take_rare(|rare| &rare.moved) {
            this.task = Some(next);
        }
        match this.call.response.take() {
            Some(response) => {
                if let Some(task) = this.task.take() {
                    this.call.tie(task);
                } else {
                    // Polled after it was done; only a broken caller does that.
                    return Poll::Ready(problem(StatusCode::INTERNAL_SERVER_ERROR).into());
                }
                Poll::Ready(response)
            }
            None => {
                this.call.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Running {
    /// Time is up: the Task is cancelled, whatever the route says of clients that leave.
    pub(super) fn expire(&mut self) {
        if let Some(task) = self.give_up() {
            Python::attach(|py| {
                task.cancel(py);
                after_python(py);
            });
        }
    }

    /// Nobody waits for the answer any more; gives the Task that makes it.
    fn give_up(&mut self) -> Option<Waiting> {
        let task = self.call.take_rare(|rare| &rare.moved).or_else(|| self.task.take())?;
        self.task = None;
        self.call.abandoned.set(true);
        // The answer may be there already. If it is a stream, its pump is to see that nobody takes it.
        drop(self.call.response.take());
        Some(task)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(task) = self.give_up() else {
            return;
        };
        // One that closes an iterator is cleaning up already.
        let is_told = self.call.is_held() || has_told(&self.call.request, task.context());
        Python::attach(|py| {
            if self.call.plan.cancel_on_disconnect && !is_told {
                task.cancel(py);
                after_python(py);
            } else {
                self.call.rare().kept.replace(task.into_task(py));
            }
        });
    }
}
