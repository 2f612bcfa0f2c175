//! Answers that no handler makes: no route, other methods, other slashes, values that do not fit.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use pyo3::intern;
use pyo3::prelude::*;

use super::kept::Kept;
use super::{Answer, Dispatcher};
use crate::app::{Plan, Rejection, Request};
use crate::http::{Body, ConnectionInfo, problem};

/// How exception handlers get to answer requests that meet no route.
pub struct NoRoute {
    /// `(status, allowed methods or None) -> exception, or None where no handler takes it`.
    make: Py<PyAny>,
    /// Stands in for the plan that such a request does not have.
    plan: Rc<Plan>,
}

impl NoRoute {
    /// `make(status, allow)` gives the exception, or `None` where no handler takes it.
    pub fn new(py: Python<'_>, make: Py<PyAny>) -> Self {
        Self { make, plan: Rc::new(Plan::without_route(py)) }
    }
}

impl Dispatcher {
    /// No route has this path.
    pub(super) fn not_found(
        self: &Rc<Self>,
        py: Python<'_>,
        parts: &mut Parts,
        connection: &ConnectionInfo,
    ) -> Answer {
        let status = StatusCode::NOT_FOUND;
        match self.rescued(py, parts, connection, status, None) {
            Some(answer) => answer,
            None => Answer::ready(problem(status)),
        }
    }

    /// 204 for OPTIONS and 405 for any other, with the methods that the path does answer.
    pub(super) fn other_method(
        self: &Rc<Self>,
        py: Python<'_>,
        parts: &mut Parts,
        connection: &ConnectionInfo,
        allow: &str,
    ) -> Answer {
        let mut response = if parts.method == Method::OPTIONS {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        } else {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            if let Some(answer) = self.rescued(py, parts, connection, status, Some(allow)) {
                return answer;
            }
            problem(status)
        };
        if let Ok(allow) = HeaderValue::from_str(allow) {
            response.headers_mut().insert(ALLOW, allow);
        }
        Answer::ready(response)
    }

    /// What an exception handler makes of a request that meets no route, if there is one for it.
    fn rescued(
        self: &Rc<Self>,
        py: Python<'_>,
        parts: &mut Parts,
        connection: &ConnectionInfo,
        status: StatusCode,
        allow: Option<&str>,
    ) -> Option<Answer> {
        let NoRoute { make, plan } = self.face.no_route.as_ref()?;
        let error = match make.bind(py).call1((status.as_u16(), allow)) {
            Ok(made) if made.is_none() => return None,
            made => made.map_or_else(|error| error, PyErr::from_value),
        };
        self.next_id();
        let head = self.keep_head(parts, connection).into();
        Some(self.in_copied_context(py, || self.concluded(py, plan, head, None, &Err(error))))
    }

    /// The answer to a request that does not fit its handler, or that of the handler for those. What
    /// code of the application raised as it made the arguments is answered as if the handler had.
    pub(super) fn rejected(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Kept,
        request: Option<Py<Request>>,
        rejection: Rejection,
    ) -> Answer {
        let (status, answer) = match rejection.into_answer(py) {
            Ok(answer) => answer,
            Err(error) => {
                return self.in_copied_context(py, || {
                    self.concluded(py, plan, head, request, &Err(error))
                });
            }
        };
        if let Some(invalid) = &self.face.invalid {
            let made = answer
                .get_item(intern!(py, "detail"))
                .and_then(|detail| invalid.bind(py).call1((status, detail)));
            if !made.as_ref().is_ok_and(|made| made.is_none()) {
                let error = made.map_or_else(|error| error, PyErr::from_value);
                return self.in_copied_context(py, || {
                    self.concluded(py, plan, head, request, &Err(error))
                });
            }
        }
        Answer::Ready(Some(match self.encoder.encode(answer.as_any()) {
            Ok(body) => json(status, body).into(),
            Err(error) => self.failed(py, plan, &head, error),
        }))
    }
}

/// 307, which keeps the method, to a path of this server.
pub(super) fn redirect(mut path: String, query: Option<&str>) -> Response<Body> {
    if let Some(query) = query {
        path.push('?');
        path.push_str(query);
    }
    let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(path)) else {
        return problem(StatusCode::NOT_FOUND);
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// A JSON body that is encoded already.
fn json(status: u16, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::Full(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
