//! What becomes of a handler's outcome.

use http::StatusCode;
use pyo3::intern;
use pyo3::prelude::*;
use std::rc::Rc;

use super::call::Call;
use super::kept::Kept;
use super::{Answer, Dispatcher};
use crate::app::{BodyState, Plan, Reply, Request};
use crate::bridge::is_cancelled;
use crate::http::{Outgoing, closing_problem, problem};
use crate::python::call::vectorcall;
use crate::python::coroutine::is_coroutine;

/// What a handler gave.
pub(super) enum Given {
    /// What is to be sent.
    Reply(Reply),
    /// A coroutine that is to be run for the answer: a sync handler returned it.
    Coroutine(Py<PyAny>),
}

/// What is left to do after a handler ended.
pub(super) enum Conclusion {
    /// Send this.
    Reply(Outgoing),
    /// Send the head, then the chunks of the iterator.
    Stream(http::Response<()>, Py<PyAny>),
    /// Run this coroutine for the answer: a sync handler returned it.
    Await(Py<PyAny>),
    /// Run this coroutine of an exception handler for the answer to that exception.
    Rescue(Py<PyAny>, PyErr),
}

/// What is left to do for a reply.
fn conclusion(reply: Reply) -> Conclusion {
    match reply {
        Reply::Plain(plain) => Conclusion::Reply(Outgoing::Plain(plain)),
        Reply::Whole(response) => Conclusion::Reply(response.into()),
        Reply::Stream(response, iterator) => Conclusion::Stream(response, iterator),
    }
}

impl Dispatcher {
    /// What a handler's outcome is: a reply, or what must be run for one.
    pub(super) fn given(
        &self,
        py: Python<'_>,
        plan: &Plan,
        outcome: &PyResult<Bound<'_, PyAny>>,
    ) -> PyResult<Given> {
        self.stamps.ran();
        let result = outcome.as_ref().map_err(|error| error.clone_ref(py))?;
        if is_coroutine(result) {
            return Ok(Given::Coroutine(result.clone().unbind()));
        }
        let reply = self.encoder.reply(result, plan.status).map(Given::Reply);
        self.stamps.serialized();
        reply
    }

    /// Turns an outcome into what is left to do; never fails.
    pub(super) fn conclude(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Kept,
        request: Option<&Py<Request>>,
        outcome: &PyResult<Bound<'_, PyAny>>,
    ) -> Conclusion {
        self.conclude_given(py, plan, head, request, self.given(py, plan, outcome))
    }

    pub(super) fn conclude_given(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Kept,
        request: Option<&Py<Request>>,
        given: PyResult<Given>,
    ) -> Conclusion {
        let error = match given {
            Ok(Given::Coroutine(coroutine)) => return Conclusion::Await(coroutine),
            Ok(Given::Reply(reply)) => return conclusion(reply),
            Err(error) => error,
        };
        match self.handle(py, head, request, &error) {
            Ok(Some(conclusion)) => conclusion,
            Ok(None) => Conclusion::Reply(self.unhandled(py, plan, head, error)),
            Err(second) => Conclusion::Reply(self.second(py, plan, head, second, error)),
        }
    }

    /// What an exception handler came to that was awaited for `first`.
    pub(super) fn conclude_handler(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Kept,
        outcome: PyResult<Bound<'_, PyAny>>,
        first: PyErr,
    ) -> Conclusion {
        match outcome.and_then(|result| self.encoder.reply(&result, None)) {
            Ok(reply) => conclusion(reply),
            Err(second) => Conclusion::Reply(self.second(py, plan, head, second, first)),
        }
    }

    /// The answer when the handler of `first` raised `second`: no handler is asked again.
    fn second(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Kept,
        second: PyErr,
        first: PyErr,
    ) -> Outgoing {
        if second.value(py).as_ptr() != first.value(py).as_ptr()
            && second.value(py).getattr(intern!(py, "__context__")).is_ok_and(|c| c.is_none())
        {
            second.set_context(py, Some(first));
        }
        self.unhandled(py, plan, head, second)
    }

    /// The answer that an exception itself stands for; 500 for any other.
    fn unhandled(&self, py: Python<'_>, plan: &Plan, head: &Kept, error: PyErr) -> Outgoing {
        let value = error.value(py);
        let own = || -> PyResult<Option<Outgoing>> {
            if value.is_instance(self.face.disconnect.bind(py))? {
                // Nobody is left to read an answer, and nothing went wrong here.
                return Ok(Some(closing_problem(StatusCode::BAD_REQUEST).into()));
            }
            if !value.is_instance(self.face.http_exception.bind(py))? {
                return Ok(None);
            }
            let response = value.call_method0(intern!(py, "response"))?;
            let reply = self.encoder.reply(&response, None)?;
            // One that a module makes once and its handlers raise again and again would keep the frames
            // of all those requests: a traceback grows with each raise.
            error.set_traceback(py, None);
            Ok(match reply {
                Reply::Plain(plain) => Some(Outgoing::Plain(plain)),
                Reply::Whole(response) => Some(response.into()),
                Reply::Stream(..) => None,
            })
        };
        match own() {
            Ok(Some(response)) => response,
            Ok(None) => self.failed(py, plan, head, error),
            Err(second) => {
                second.set_context(py, Some(error));
                self.failed(py, plan, head, second)
            }
        }
    }

    /// What the exception's handler, if it has one, makes of it.
    fn handle(
        &self,
        py: Python<'_>,
        head: &Kept,
        request: Option<&Py<Request>>,
        error: &PyErr,
    ) -> PyResult<Option<Conclusion>> {
        let (Some(find), Some(whole)) = (&self.face.find_handler, head.whole()) else {
            return Ok(None);
        };
        let value = error.value(py);
        let handler = find.call1(py, (value,))?;
        if handler.is_none(py) {
            return Ok(None);
        }
        let request = match request {
            Some(request) => request.clone_ref(py),
            None => self.request(py, whole, BodyState::Gone)?,
        };
        let arguments = [request.into_any(), value.clone().into_any().unbind()];
        let result = vectorcall(handler.bind(py), &arguments, None)?;
        if is_coroutine(&result) {
            return Ok(Some(Conclusion::Rescue(result.unbind(), error.clone_ref(py))));
        }
        Ok(Some(conclusion(self.encoder.reply(&result, None)?)))
    }

    /// 500, with the traceback in the log and nothing of it in the answer.
    pub(super) fn failed(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Kept,
        error: PyErr,
    ) -> Outgoing {
        self.report(py, plan, head, error);
        problem(StatusCode::INTERNAL_SERVER_ERROR).into()
    }

    /// Logs an exception that nobody handled.
    pub(super) fn report(&self, py: Python<'_>, plan: &Plan, head: &Kept, error: PyErr) {
        let cancelled = is_cancelled(py, &error);
        let logged = self.face.report.call1(
            py,
            (error.value(py), head.id(), head.method().as_str(), &*plan.template, &plan.origin),
        );
        if let Err(second) = logged {
            second.write_unraisable(py, None);
            if !cancelled {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Concludes outside a Task; starts one for what must be awaited.
    pub(super) fn concluded(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Kept,
        request: Option<Py<Request>>,
        outcome: &PyResult<Bound<'_, PyAny>>,
    ) -> Answer {
        let given = self.given(py, plan, outcome);
        self.settle(py, plan, head, request, given)
    }

    /// Answers with what a handler gave outside a Task; starts one for what must be awaited.
    pub(super) fn settle(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Kept,
        request: Option<Py<Request>>,
        given: PyResult<Given>,
    ) -> Answer {
        match self.conclude_given(py, plan, &head, request.as_ref(), given) {
            Conclusion::Reply(response) => {
                if let Some(request) = &request {
                    request.get().release_body();
                }
                Answer::Ready(Some(response))
            }
            Conclusion::Await(coroutine) => self.start(py, plan, head, request, coroutine),
            Conclusion::Rescue(coroutine, first) => {
                let call = Call::new(self.clone(), plan.clone(), head, request);
                call.rescue(first);
                self.launch(py, call, coroutine)
            }
            Conclusion::Stream(response, iterator) => {
                let call = Call::new(self.clone(), plan.clone(), head, request);
                match call.stream(py, response, &iterator) {
                    Ok(pump) => self.launch(py, call, pump),
                    Err(error) => Answer::Ready(Some(call.fail(py, error))),
                }
            }
        }
    }
}
