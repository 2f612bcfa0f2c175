//! From a request's head and body to the arguments of its handler.
//!
//! A handler that wants the body is called when all of it has arrived; the connection waits for that.

use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use pyo3::prelude::*;

use super::{Answer, Dispatcher};
use crate::app::{Arguments, BodyState, HeadRef, Input, Plan, Request, RequestHead};
use crate::bridge::after_python;
use crate::http::{RequestBody, closing_problem, problem};
use crate::router::PathParams;

impl Dispatcher {
    /// Makes the arguments, then calls the handler, or reads the body first.
    pub(super) fn prepare(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: &Arc<RequestHead>,
        params: &PathParams<'_, '_>,
        unread: RequestBody,
    ) -> Answer {
        if plan.needs_request() || self.face.find_handler.is_some() {
            keep_params(plan, head, params);
        }
        if !plan.needs_request() {
            return match self.arguments(py, plan, params, head, None) {
                Err(answer) => answer,
                Ok(arguments) if plan.needs_body() => {
                    self.read_then_invoke(plan, head.clone(), None, unread, arguments)
                }
                Ok(arguments) => self.invoke(py, plan, head.clone(), None, arguments),
            };
        }
        let request = match self.request(py, head, BodyState::Unread(unread)) {
            Ok(request) => request,
            Err(error) => return Answer::Ready(Some(self.failed(py, plan, &head.into(), error))),
        };
        match self.arguments(py, plan, params, head, Some(&request)) {
            Err(answer) => answer,
            Ok(arguments) if plan.needs_body() => match request.get().take_body() {
                BodyState::Unread(unread) => {
                    self.read_then_invoke(plan, head.clone(), Some(request), unread, arguments)
                }
                _ => Answer::ready(problem(StatusCode::INTERNAL_SERVER_ERROR)),
            },
            Ok(arguments) => self.invoke(py, plan, head.clone(), Some(request), arguments),
        }
    }

    /// The request as Python sees it.
    pub(super) fn request(
        &self,
        py: Python<'_>,
        head: &Arc<RequestHead>,
        body: BodyState,
    ) -> PyResult<Py<Request>> {
        let request = Request::new(
            head.clone(),
            body,
            self.face.app.clone_ref(py),
            self.face.lane.clone_ref(py),
        );
        Py::new(py, request)
    }

    /// All arguments but the body; the answer when the client got one wrong.
    fn arguments(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        path: &PathParams<'_, '_>,
        head: &Arc<RequestHead>,
        request: Option<&Py<Request>>,
    ) -> Result<Arguments, Answer> {
        plan.arguments(py, &self.input(path, (&**head).into(), request)).map_err(|rejection| {
            let request = request.map(|request| request.clone_ref(py));
            self.rejected(py, plan, head.into(), request, rejection)
        })
    }

    pub(super) fn input<'a>(
        &'a self,
        path: &'a PathParams<'a, 'a>,
        head: HeadRef<'a>,
        request: Option<&'a Py<Request>>,
    ) -> Input<'a> {
        Input { path, head, request, lane: &self.face.lane, app: &self.face.app }
    }

    #[allow(clippy::async_yields_async, reason = "who polls a step goes on with what it gives")]
    fn read_then_invoke(
        self: &Rc<Self>,
        plan: &Rc<Plan>,
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        mut unread: RequestBody,
        mut arguments: Arguments,
    ) -> Answer {
        let this = self.clone();
        let plan = plan.clone();
        let in_hand = self.stamps.in_hand();
        Answer::Later(Box::pin(async move {
            let bytes = match unread.read_all().await {
                Ok(bytes) => bytes,
                Err(error) => return Answer::ready(closing_problem(error.status())),
            };
            drop(unread);
            Python::attach(|py| {
                this.stamps.resume(&in_hand);
                if let Some(request) = &request {
                    request.get().keep_body(bytes.clone());
                }
                let answer = match plan.fill_body(py, &mut arguments, &bytes) {
                    Ok(()) => this.invoke(py, &plan, head, request, arguments),
                    Err(rejection) => this.rejected(py, &plan, head.into(), request, rejection),
                };
                this.stamps.put_down();
                after_python(py);
                answer
            })
        }))
    }
}

/// Keeps the path's parameters for a [`Request`] that may be made.
pub(super) fn keep_params(plan: &Plan, head: &RequestHead, params: &PathParams<'_, '_>) {
    let rest = plan.rest.as_deref().filter(|rest| params.get(rest).is_none());
    if rest.is_some() || !params.is_empty() {
        let all = params.iter().chain(rest.map(|name| (name, "")));
        // Set once a request.
        let _ = head
            .path_params
            .set(all.map(|(name, raw)| (name.to_owned(), raw.to_owned())).collect());
    }
}
