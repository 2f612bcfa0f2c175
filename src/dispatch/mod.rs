//! A request meets a plan.
//!
//! [`Dispatcher`] is the lane's service: it finds the route, makes the arguments and calls the
//! handler in the way its [`Mode`] says; [`prepare`] makes the arguments of all but the plainest.
//!
//! * `Inline`: called here, in a copy of the lane's context; answered in the same poll.
//! * `Task`: a Task takes its first step here ([`first`]). If it ends in that step the answer goes
//!   out in the same poll; otherwise the connection waits for it ([`call`]).
//! * `Offload` ([`offload`]): called on the thread pool, concluded back on the lane.
//!
//! What a handler gave or raised is *concluded* ([`conclude`]): a value becomes a response, an
//! exception goes to its handler or becomes a 500 with a logged traceback, a streaming response
//! goes on as a pump in the same Task ([`stream`]).
//!
//! # Who owns what
//!
//! The connection owns the future that this module returns; dropping it means that the client
//! left, and cancels the Task (unless the route opted out). If it is dropped because time ran out
//! ([`timed`], or the connection), it is told before, and the Task is cancelled in any case. The
//! Task owns the [`call::Call`], which owns the request's data. Nothing here is shared between lanes.

mod answer;
mod call;
mod conclude;
mod first;
mod kept;
mod offload;
mod prepare;
mod routes;
mod stamps;
mod stream;
mod timed;
mod unhandled;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};

use http::request::Parts;
use http::{Method, StatusCode};
use hyper::body::Incoming;
use pyo3::prelude::*;

use crate::app::{Arguments, Encoder, Mode, Plan, Reply, Request, RequestHead, Route};
use crate::bridge::after_python;
use crate::http::{
    Called, ConnectionInfo, Peer, RequestBody, Service, SpareHeaders, closing_problem,
    declares_more_than, problem,
};
use crate::lane::LaneCore;
use crate::python::call::{call_no_args, vectorcall};
use crate::python::context;
use crate::router::{Lookup, PathParams, Table, other_slash, plain};
use crate::telemetry::RouteMeter;

pub use answer::Answer;
use conclude::Given;
use first::First;
use kept::Kept;
pub use offload::{ChunkCalls, Job, OffloadMeter, Offloader};
use prepare::keep_params;
pub use routes::RouteTable;
use stamps::Stamps;
pub use stream::Sink;
use timed::Timed;
pub use unhandled::NoRoute;
use unhandled::redirect;

/// What the dispatcher needs of the Python side of the application.
pub struct AppFace {
    /// The `App`.
    pub app: Py<PyAny>,
    /// The lane as handlers see it: `lane.index`, `lane.state`.
    pub lane: Py<PyAny>,
    /// `find(exception) -> handler or None`; `None` when no handler is registered.
    pub find_handler: Option<Py<PyAny>>,
    /// `pump(iterator, sink)`: a coroutine function that sends an iterator's chunks; for a handler of
    /// the thread pool `submit` follows, the request's number, method and route, and [`ChunkCalls`].
    pub pump: Py<PyAny>,
    /// `log(error, request id, method, route, origin)`: reports an unhandled exception.
    pub report: Py<PyAny>,
    /// The class of exceptions that are answers.
    pub http_exception: Py<PyAny>,
    /// What becomes of requests that meet no route, where exception handlers may answer them.
    pub no_route: Option<NoRoute>,
    /// `(status, detail) -> exception or None` for a request that does not fit its handler; `None`
    /// when no handler is registered for any.
    pub invalid: Option<Py<PyAny>>,
    /// The class of "the client left".
    pub disconnect: Py<PyAny>,
    /// `submit(job) -> future` of the thread pool.
    pub submit: Py<PyAny>,
}

/// Where the dispatcher counts, beside the lane's own meter.
pub struct Counted {
    /// The lane's routes; the first is for requests that meet none.
    pub routes: Arc<[RouteMeter]>,
    /// The process's thread pool.
    pub offload: Arc<OffloadMeter>,
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
    /// From heads that handlers kept, for the connections that gave theirs away.
    left_headers: SpareHeaders,
    stamps: Stamps,
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
        counted: Counted,
    ) -> PyResult<Self> {
        let Counted { routes: meters, offload } = counted;
        Ok(Self {
            plans: routes
                .iter()
                .map(|route| route.get().plan_for_lane(py).map(Rc::new))
                .collect::<PyResult<_>>()?,
            table: table.clone(),
            encoder: Encoder::new(py)?,
            offloader: Offloader::new(face.submit.clone_ref(py), offload),
            // Lanes number their requests without asking each other.
            next_id: Cell::new((core.index as u64) << 48),
            stamps: Stamps::new(core.meter.clone(), meters, core.home.steps().clone()),
            left_headers: SpareHeaders::default(),
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
        parts: &mut Parts,
        body: &mut Option<Incoming>,
        connection: &Rc<ConnectionInfo>,
    ) -> Answer {
        if let Some(index) = self.table.find_literal(&parts.method, parts.uri.path()) {
            let params = PathParams::default();
            return self.serve(py, index, parts, &params, body, connection);
        }
        // The parameters are views of a path that must stay while the head moves.
        let uri = parts.uri.clone();
        let path = plain(uri.path());
        match self.table.find(&parts.method, &path) {
            Lookup::Found { value, params } => {
                self.serve(py, value, parts, &params, body, connection)
            }
            Lookup::NotFound if parts.method == Method::OPTIONS && uri.path() == "*" => {
                self.other_method(py, parts, connection, &self.table.all_methods())
            }
            Lookup::Redirect => Answer::ready(redirect(other_slash(uri.path()), uri.query())),
            Lookup::NotFound => self.not_found(py, parts, connection),
            Lookup::OtherMethods(allow) => self.other_method(py, parts, connection, &allow),
        }
    }

    /// Runs a route's plan.
    fn serve(
        self: &Rc<Self>,
        py: Python<'_>,
        index: usize,
        parts: &mut Parts,
        params: &PathParams<'_, '_>,
        body: &mut Option<Incoming>,
        connection: &Rc<ConnectionInfo>,
    ) -> Answer {
        let plan = &self.plans[index];
        self.stamps.meets(index, self.next_id());
        if !plan.cancel_on_disconnect {
            connection.outlive_client();
        }
        if parts.method == Method::HEAD && !plan.is_for_head {
            connection.answer_as_get();
        }
        let limit = plan.limit_body.unwrap_or(self.limit_body);
        if body.as_ref().is_some_and(|body| declares_more_than(body, limit)) {
            return Answer::ready(closing_problem(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let answer = if plan.is_direct() {
            self.direct(py, plan, parts, params, connection)
        } else {
            let head = self.keep_head(parts, connection);
            match body.take_if(|_| !plan.takes_nothing()) {
                None => self.invoke(py, plan, head, None, Vec::new()),
                Some(body) => {
                    let unread = RequestBody::new(body, connection, limit);
                    self.prepare(py, plan, &head, params, unread)
                }
            }
        };
        match plan.timeout {
            Some(limit) if !answer.is_known() => {
                // The route's own time replaces the server's, which may be shorter.
                connection.set_request_timeout(None);
                Answer::Timed(Box::pin(Timed::new(answer, limit, connection)))
            }
            _ => answer,
        }
    }

    /// Calls a handler that sees neither the request nor its body. Nobody can keep the head then, so
    /// it stays with the connection; only what is more than a plain answer takes it.
    fn direct(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        parts: &mut Parts,
        params: &PathParams<'_, '_>,
        connection: &Rc<ConnectionInfo>,
    ) -> Answer {
        let arguments = if plan.takes_nothing() {
            Vec::new()
        } else {
            match plan.arguments(py, &self.input(params, parts.into(), None)) {
                Ok(arguments) => arguments,
                Err(rejection) => {
                    let head = self.keep(plan, parts, params, connection);
                    return self.rejected(py, plan, head, None, rejection);
                }
            }
        };
        if !arguments.is_empty() {
            self.stamps.prepared();
        }
        if plan.mode == Mode::Task {
            return match call_handler(py, plan, &arguments) {
                Ok(coroutine) => {
                    First::new(self, plan, parts, params, connection).run(py, coroutine)
                }
                Err(error) => {
                    let head = self.keep(plan, parts, params, connection);
                    self.concluded(py, plan, head, None, &Err(error))
                }
            };
        }
        self.in_copied_context(py, || {
            let outcome = call_handler(py, plan, &arguments);
            match self.given(py, plan, &outcome) {
                Ok(Given::Reply(Reply::Plain(plain))) => Answer::ready(plain),
                given => {
                    let head = self.keep(plan, parts, params, connection);
                    self.settle(py, plan, head, None, given)
                }
            }
        })
    }

    /// What is to be kept of the request of a handler that does not see it.
    fn keep(
        &self,
        plan: &Plan,
        parts: &mut Parts,
        params: &PathParams<'_, '_>,
        connection: &ConnectionInfo,
    ) -> Kept {
        if self.face.find_handler.is_none() {
            return self.outline(parts);
        }
        let head = self.keep_head(parts, connection);
        keep_params(plan, &head, params);
        Kept::Whole(head)
    }

    fn outline(&self, parts: &Parts) -> Kept {
        Kept::Outline { method: parts.method.clone(), id: self.next_id.get() }
    }

    /// Takes the head away from the connection.
    fn keep_head(&self, parts: &mut Parts, connection: &ConnectionInfo) -> Arc<RequestHead> {
        Arc::new(RequestHead {
            method: std::mem::take(&mut parts.method),
            uri: std::mem::take(&mut parts.uri),
            version: parts.version,
            headers: std::mem::take(&mut parts.headers),
            client: match connection.peer() {
                Peer::Tcp(address) => Some(address),
                Peer::Unix => None,
            },
            path_params: OnceLock::new(),
            id: self.next_id.get(),
        })
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
        if !plan.takes_nothing() {
            self.stamps.prepared();
        }
        match plan.mode {
            Mode::Inline => self.inline(py, plan, head, request, &arguments),
            Mode::Task => match call_handler(py, plan, &arguments) {
                Ok(coroutine) => self.start(py, plan, head.into(), request, coroutine.unbind()),
                Err(error) => self.concluded(py, plan, head.into(), request, &Err(error)),
            },
            Mode::Offload => self.offload(py, plan, head, request, arguments),
        }
    }

    /// Runs `body` in a copy of the lane's context.
    fn in_copied_context(&self, py: Python<'_>, body: impl FnOnce() -> Answer) -> Answer {
        let spare = &self.core.spare_context;
        let entered = spare.take(py).and_then(|copy| {
            let answer = context::run(&copy, || Ok(body()))?;
            spare.put(copy);
            Ok(answer)
        });
        entered.unwrap_or_else(|error| {
            error.write_unraisable(py, None);
            Answer::ready(problem(StatusCode::INTERNAL_SERVER_ERROR))
        })
    }

    fn inline(
        self: &Rc<Self>,
        py: Python<'_>,
        plan: &Rc<Plan>,
        head: Arc<RequestHead>,
        request: Option<Py<Request>>,
        arguments: &Arguments,
    ) -> Answer {
        self.in_copied_context(py, || {
            let outcome = call_handler(py, plan, arguments);
            self.concluded(py, plan, head.into(), request, &outcome)
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

/// The service that `http` calls.
pub struct DispatchService(pub Rc<Dispatcher>);

impl Service for DispatchService {
    type Future = Answer;

    fn expire(future: Pin<&mut Answer>) {
        future.get_mut().expire();
    }

    fn call(
        &self,
        head: &mut Parts,
        body: Incoming,
        connection: &Rc<ConnectionInfo>,
    ) -> Called<Answer> {
        Python::attach(|py| {
            let mut body = Some(body);
            self.0.stamps.take_up(connection.timing());
            let answer = self.0.begin(py, head, &mut body, connection);
            self.0.stamps.put_down();
            if head.headers.capacity() == 0 {
                head.headers = self.0.left_headers.take();
            }
            if let Some(unread) = body {
                connection.leave(unread);
            }
            after_python(py);
            match answer {
                Answer::Ready(Some(response)) => Called::Answered(response),
                answer => Called::Working(answer),
            }
        })
    }
}
