//! What becomes of a handler's outcome.

use http::{Method, StatusCode};
use pyo3::intern;
use pyo3::prelude::*;
use std::rc::Rc;
use std::sync::Arc;

use super::call::Call;
use super::{Answer, Dispatcher};
use crate::app::{BodyState, Plan, Reply, Request, RequestHead};
use crate::bridge::is_cancelled;
use crate::http::{Body, channel, problem};
use crate::python::coroutine::is_coroutine;

/// What is left to do after a handler ended.
pub(super) enum Conclusion {
    /// Send this.
    Reply(http::Response<Body>),
    /// Send the head, then the chunks of the iterator.
    Stream(http::Response<()>, Py<PyAny>),
    /// Run this coroutine for the answer: an async exception handler, or what a sync handler
    /// returned.
    Await(Py<PyAny>),
}

/// The head of a stream that is not wanted: HEAD asks for it alone, the iterator stays unstarted.
fn head_of(response: http::Response<()>) -> http::Response<Body> {
    let (_sender, body) = channel();
    response.map(|()| Body::Stream(body))
}

impl Dispatcher {
    /// Turns an outcome into what is left to do; never fails.
    pub(super) fn conclude(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Arc<RequestHead>,
        request: Option<&Py<Request>>,
        outcome: PyResult<Bound<'_, PyAny>>,
    ) -> Conclusion {
        let error = match outcome {
            Ok(result) if is_coroutine(&result) => return Conclusion::Await(result.unbind()),
            Ok(result) => match self.encoder.reply(&result, plan.status) {
                Ok(Reply::Whole(response)) => return Conclusion::Reply(response),
                Ok(Reply::Stream(response, iterator)) => {
                    return if head.method == Method::HEAD {
                        Conclusion::Reply(head_of(response))
                    } else {
                        Conclusion::Stream(response, iterator)
                    };
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        match self.handle(py, head, request, &error) {
            Ok(Some(conclusion)) => conclusion,
            Ok(None) => Conclusion::Reply(self.failed(py, plan, head, error)),
            Err(second) => {
                second.set_context(py, Some(error));
                Conclusion::Reply(self.failed(py, plan, head, second))
            }
        }
    }

    /// The answer of the exception's handler, or of an exception that is itself an answer.
    fn handle(
        &self,
        py: Python<'_>,
        head: &Arc<RequestHead>,
        request: Option<&Py<Request>>,
        error: &PyErr,
    ) -> PyResult<Option<Conclusion>> {
        let value = error.value(py);
        if let Some(find) = &self.face.find_handler {
            let handler = find.call1(py, (value,))?;
            if !handler.is_none(py) {
                let request = match request {
                    Some(request) => request.clone_ref(py),
                    None => self.late_request(py, head)?,
                };
                let result = handler.bind(py).call1((request, value))?;
                if is_coroutine(&result) {
                    return Ok(Some(Conclusion::Await(result.unbind())));
                }
                return Ok(Some(match self.encoder.reply(&result, None)? {
                    Reply::Whole(response) => Conclusion::Reply(response),
                    Reply::Stream(head, iterator) => Conclusion::Stream(head, iterator),
                }));
            }
        }
        if !value.is_instance(self.face.http_exception.bind(py))? {
            return Ok(None);
        }
        let response = value.call_method0(intern!(py, "response"))?;
        Ok(match self.encoder.reply(&response, None)? {
            Reply::Whole(response) => Some(Conclusion::Reply(response)),
            Reply::Stream(..) => None,
        })
    }

    /// A request object for an exception handler of a route that does not ask for one.
    fn late_request(&self, py: Python<'_>, head: &Arc<RequestHead>) -> PyResult<Py<Request>> {
        Py::new(
            py,
            Request::new(
                head.clone(),
                Vec::new(),
                BodyState::Taken,
                self.core.tasks.event_loop().clone_ref(py),
                self.face.app.clone_ref(py),
                self.face.lane.clone_ref(py),
            ),
        )
    }

    /// 500, with the traceback in the log and nothing of it in the answer.
    pub(super) fn failed(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Arc<RequestHead>,
        error: PyErr,
    ) -> http::Response<Body> {
        self.report(py, plan, head, error);
        problem(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Logs an exception that nobody handled.
    pub(super) fn report(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Arc<RequestHead>,
        error: PyErr,
    ) {
        let cancelled = is_cancelled(py, &error);
        let logged = self.face.report.call1(
            py,
            (error.value(py), head.id, head.method.as_str(), &plan.template, &plan.origin),
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
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        outcome: PyResult<Bound<'_, PyAny>>,
    ) -> Answer {
        match self.conclude(py, plan, &head, request.as_ref(), outcome) {
            Conclusion::Reply(response) => Answer::ready(response),
            Conclusion::Await(coroutine) => self.start(py, plan, head, request, coroutine),
            Conclusion::Stream(response, iterator) => {
                let call = Rc::new(Call::new(self.clone(), plan.clone(), head, request));
                match call.stream(py, response, &iterator) {
                    Ok(pump) => self.launch(py, call, pump),
                    Err(error) => Answer::ready(call.fail(py, error)),
                }
            }
        }
    }
}
