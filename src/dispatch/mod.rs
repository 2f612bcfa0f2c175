//! A request meets a plan.
//!
//! [`Dispatcher`] is the lane's service: it finds the route, makes the arguments and calls the
//! handler in the way its [`Mode`] says.
//!
//! * `Inline`: called here, in a copy of the lane's context; answered in the same poll.
//! * `Task` ([`call`]): a Task takes its first step here. If it ends in that step the answer goes
//!   out in the same poll; otherwise the connection waits for it.
//! * `Offload` ([`offload`]): called on the thread pool, concluded back on the lane.
//!
//! What a handler gave or raised is *concluded* ([`conclude`]): a value becomes a response, an
//! exception goes to its handler or becomes a 500 with a logged traceback, a streaming response
//! goes on as a pump in the same Task ([`stream`]).
//!
//! # Who owns what
//!
//! The connection owns the future that this module returns; dropping it means that the client
//! left or time ran out, and cancels the Task (unless the route opted out). The Task owns the
//! [`call::Call`], which owns the request's data. Nothing here is shared between lanes.

mod call;
mod conclude;
mod offload;
mod stream;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use pyo3::prelude::*;

use crate::app::{
    Arguments, BodyState, Encoder, Input, Mode, Plan, Rejection, Request, RequestHead, Route,
};
use crate::bridge::after_python;
use crate::http::{
    Body, ConnectionInfo, Peer, RequestBody, Service, closing_problem, declares_more_than, problem,
};
use crate::lane::LaneCore;
use crate::python::call::{call_no_args, vectorcall};
use crate::python::context;
use crate::router::{Lookup, PathParams, Table};

use call::Running;
pub use offload::{Job, Offloader};
pub use stream::Sink;

/// What the dispatcher needs of the Python side of the application.
pub struct AppFace {
    /// The `App`.
    pub app: Py<PyAny>,
    /// The lane as handlers see it: `lane.index`, `lane.state`.
    pub lane: Py<PyAny>,
    /// `find(exception) -> handler or None`; `None` when no handler is registered.
    pub find_handler: Option<Py<PyAny>>,
    /// `pump(iterator, sink)`: a coroutine function that sends an iterator's chunks.
    pub pump: Py<PyAny>,
    /// `log(error, request id, method, route, origin)`: reports an unhandled exception.
    pub report: Py<PyAny>,
    /// The class of exceptions that are answers.
    pub http_exception: Py<PyAny>,
    /// The class of "the client left".
    pub disconnect: Py<PyAny>,
    /// `submit(job) -> future` of the thread pool.
    pub submit: Py<PyAny>,
}

/// One lane's service: routes and plans of its own.
pub struct Dispatcher {
    core: Rc<LaneCore>,
    table: Table,
    plans: Vec<Rc<Plan>>,
    encoder: Encoder,
    face: AppFace,
    offloader: Offloader,
    limit_body: u64,
    next_id: Cell<u64>,
}

impl Dispatcher {
    /// Compiles the lane's copy of all routes.
    ///
    /// # Errors
    /// What making body decoders raises.
    pub fn new(
        py: Python<'_>,
        core: Rc<LaneCore>,
        routes: &[Py<Route>],
        table: &Table,
        face: AppFace,
        limit_body: u64,
    ) -> PyResult<Self> {
        Ok(Self {
            plans: routes
                .iter()
                .map(|route| route.get().plan_for_lane(py).map(Rc::new))
                .collect::<PyResult<_>>()?,
            table: table.clone(),
            encoder: Encoder::new(py)?,
            offloader: Offloader::new(face.submit.clone_ref(py)),
            // Lanes number their requests without asking each other.
            next_id: Cell::new((core.index as u64) << 48),
            core,
            face,
            limit_body,
        })
    }

    fn next_id(&self) -> u64 {
        let id = self.next_id.get() + 1;
        self.next_id.set(id);
        id
    }

    /// From the parsed head to an answer, or to what the answer waits for.
    fn begin(
        self: &Rc<Self>,
        py: Python<'_>,
        request: http::Request<Incoming>,
        connection: &Rc<ConnectionInfo>,
    ) -> Answer {
        let (parts, incoming) = request.into_parts();
        let head = Arc::new(RequestHead {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers,
            client: match connection.peer() {
                Peer::Tcp(address) => Some(address),
                Peer::Unix => None,
            },
            path_params: OnceLock::new(),
            id: self.next_id(),
        });
        let (index, params) = match self.table.find(&head.method, head.uri.path()) {
            Lookup::Found { value, params } | Lookup::HeadOfGet { value, params } => {
                (value, params)
            }
            Lookup::NotFound => return Answer::ready(problem(StatusCode::NOT_FOUND)),
            Lookup::OtherMethods(allow) => {
                return Answer::ready(other_method(&head.method, &allow));
            }
        };
        let plan = &self.plans[index];
        let limit = plan.limit_body.unwrap_or(self.limit_body);
        if declares_more_than(&incoming, limit) {
            return Answer::ready(problem(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let answer = if plan.takes_nothing() {
            self.invoke(py, plan, head.clone(), None, Vec::new())
        } else {
            let unread = RequestBody::new(incoming, connection, limit);
            self.prepare(py, plan, &head, &params, unread)
        };
        match plan.timeout {
            Some(limit) if !matches!(answer, Answer::Ready(_)) => {
                // The route's own time replaces the server's, which may be shorter.
                connection.set_request_timeout(None);
                Answer::Later(Box::pin(async move {
                    match tokio::time::timeout(limit, answer).await {
                        Ok(response) => response,
                        Err(_) => problem(StatusCode::GATEWAY_TIMEOUT),
                    }
                }))
            }
            _ => answer,
        }
    }

    /// Makes the arguments, then calls the handler, or reads the body first.
    fn prepare(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: &Arc<RequestHead>,
        params: &PathParams<'_, '_>,
        unread: RequestBody,
    ) -> Answer {
        if !params.is_empty() && (plan.needs_request() || self.face.find_handler.is_some()) {
            let owned = params.iter().map(|(name, raw)| (name.to_owned(), raw.to_owned()));
            // Set here and nowhere else.
            let _ = head.path_params.set(owned.collect());
        }
        let path: Vec<(&str, &str)> = params.iter().collect();
        if !plan.needs_request() {
            return match self.arguments(py, plan, &path, head, None) {
                Err(response) => Answer::Ready(Some(response)),
                Ok(arguments) if plan.needs_body() => {
                    self.read_then_invoke(plan, head.clone(), None, unread, arguments)
                }
                Ok(arguments) => self.invoke(py, plan, head.clone(), None, arguments),
            };
        }
        let request = match self.request(py, head, BodyState::Unread(unread)) {
            Ok(request) => request,
            Err(error) => return Answer::Ready(Some(self.failed(py, plan, head, error))),
        };
        match self.arguments(py, plan, &path, head, Some(&request)) {
            Err(response) => Answer::Ready(Some(response)),
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
    fn request(
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
        &self,
        py: Python<'_>,
        plan: &Plan,
        path: &[(&str, &str)],
        head: &Arc<RequestHead>,
        request: Option<&Py<Request>>,
    ) -> Result<Arguments, Box<http::Response<Body>>> {
        let input = Input { path, head, request, lane: &self.face.lane, app: &self.face.app };
        plan.arguments(py, &input).map_err(|rejection| self.rejected(py, plan, head, rejection))
    }

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
        Answer::Later(Box::pin(async move {
            let bytes = match unread.read_all().await {
                Ok(bytes) => bytes,
                Err(error) => return closing_problem(error.status()),
            };
            drop(unread);
            let answer = Python::attach(|py| {
                if let Some(request) = &request {
                    request.get().keep_body(bytes.clone());
                }
                let answer = match plan.fill_body(py, &mut arguments, &bytes) {
                    Ok(()) => this.invoke(py, &plan, head, request, arguments),
                    Err(rejection) => {
                        Answer::Ready(Some(this.rejected(py, &plan, &head, rejection)))
                    }
                };
                after_python(py);
                answer
            });
            answer.await
        }))
    }

    /// Calls the handler in its mode.
    fn invoke(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        arguments: Arguments,
    ) -> Answer {
        match plan.mode {
            Mode::Inline => self.inline(py, plan, head, request, &arguments),
            Mode::Task => match call_handler(py, plan, &arguments) {
                Ok(coroutine) => self.start(py, plan, head, request, coroutine.unbind()),
                Err(error) => self.concluded(py, plan, head, request, Err(error)),
            },
            Mode::Offload => self.offload(py, plan, head, request, arguments),
        }
    }

    fn inline(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        arguments: &Arguments,
    ) -> Answer {
        let entered = context::copy_current(py).and_then(|copy| {
            context::run(&copy, || {
                let outcome = call_handler(py, plan, arguments);
                Ok(self.concluded(py, plan, head, request, outcome))
            })
        });
        entered.unwrap_or_else(|error| {
            error.write_unraisable(py, None);
            Answer::ready(problem(StatusCode::INTERNAL_SERVER_ERROR))
        })
    }
}

fn call_handler<'py>(
    py: Python<'py>,
    plan: &Plan,
    arguments: &Arguments,
) -> PyResult<Bound<'py, PyAny>> {
    let handler = plan.handler.bind(py);
    if arguments.is_empty() {
        call_no_args(handler)
    } else {
        vectorcall(handler, arguments, plan.kwnames(py))
    }
}

fn other_method(method: &Method, allow: &str) -> http::Response<Body> {
    let mut response = if method == Method::OPTIONS {
        let mut response = http::Response::new(Body::Empty);
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    } else {
        problem(StatusCode::METHOD_NOT_ALLOWED)
    };
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(http::header::ALLOW, allow);
    }
    response
}

/// The service that `http` calls.
pub struct DispatchService(pub Rc<Dispatcher>);

impl Service for DispatchService {
    type Future = Answer;

    fn call(
        &self,
        request: http::Request<Incoming>,
        connection: &Rc<ConnectionInfo>,
    ) -> Self::Future {
        Python::attach(|py| {
            let answer = self.0.begin(py, request, connection);
            after_python(py);
            answer
        })
    }
}

/// An answer, or what it waits for.
pub enum Answer {
    /// Known; taken once.
    Ready(Option<Box<http::Response<Body>>>),
    /// A handler's Task that suspended.
    Running(Running),
    /// Anything that takes several steps.
    Later(Pin<Box<dyn Future<Output = http::Response<Body>>>>),
}

impl Answer {
    fn ready(response: http::Response<Body>) -> Self {
        Self::Ready(Some(Box::new(response)))
    }
}

impl Future for Answer {
    type Output = http::Response<Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            // Polled again after completion only by a broken caller, who gets an answer.
            Self::Ready(response) => {
                Poll::Ready(response.take().map_or_else(
                    || problem(StatusCode::INTERNAL_SERVER_ERROR),
                    |response| *response,
                ))
            }
            Self::Running(running) => Pin::new(running).poll(cx),
            Self::Later(future) => future.as_mut().poll(cx),
        }
    }
}

/// The routes of an application, checked against each other as they are added.
#[pyclass(frozen, module = "treadle._treadle")]
#[derive(Default)]
pub struct RouteTable {
    inner: std::sync::Mutex<(Table, Vec<Py<Route>>)>,
}

#[pymethods]
impl RouteTable {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Adds a route; gives the origin of the one it collides with instead, if there is one.
    fn add(&self, py: Python<'_>, route: Py<Route>) -> Option<String> {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (table, routes) = &mut *inner;
        let mut next = table.clone();
        for method in &route.get().methods {
            if let Err(conflict) = next.insert(method, &route.get().pattern, routes.len()) {
                let known = routes.get(conflict.with).map(|route| route.get().describe(py));
                return Some(known.unwrap_or_else(|| {
                    format!("the routes of {method}: this path cannot stand beside theirs")
                }));
            }
        }
        *table = next;
        routes.push(route);
        None
    }

    /// All routes, in the order they were added.
    fn routes(&self, py: Python<'_>) -> Vec<Py<Route>> {
        self.snapshot(py).1
    }
}

impl RouteTable {
    /// A copy of what is there now.
    pub fn snapshot(&self, py: Python<'_>) -> (Table, Vec<Py<Route>>) {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (inner.0.clone(), inner.1.iter().map(|route| route.clone_ref(py)).collect())
    }
}

/// Shared so that a rejected request costs one place to change.
impl Dispatcher {
    fn rejected(
        &self,
        py: Python<'_>,
        plan: &Plan,
        head: &Arc<RequestHead>,
        rejection: Rejection,
    ) -> Box<http::Response<Body>> {
        let encoded = rejection
            .into_answer(py)
            .and_then(|(status, answer)| Ok((status, self.encoder.encode(answer.as_any())?)));
        match encoded {
            Ok((status, body)) => Box::new(json(status, body)),
            Err(error) => self.failed(py, plan, head, error),
        }
    }
}

fn json(status: u16, body: bytes::Bytes) -> http::Response<Body> {
    let mut response = http::Response::new(Body::Full(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
