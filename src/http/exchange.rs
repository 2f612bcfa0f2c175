//! One request and its response, between hyper and the [`Service`].
//!
//! [`Exchange`] is the request's existence: made when its head is parsed, moved from the future
//! that makes the response into the response's body, and dropped when hyper has taken the last of
//! it, or when anything on the way is given up. What must happen exactly once at the end of a
//! request happens in its `Drop`.
//!
//! A connection has one exchange at a time: hyper parses the next head after the response before
//! it is complete.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;

use super::access::Access;
use super::body::{Aborted, Body};
use super::check;
use super::info::{ConnectionInfo, MOST_DRAINED, Phase};
use super::io::Transport;
use super::limits::Taken;
use super::outgoing::{Outgoing, Plain};
use super::problem;
use super::request_body::declares_more_than;
use super::{Called, Service};

/// The service as hyper calls it.
#[derive(Debug)]
pub(crate) struct Adapter<S> {
    pub(crate) service: Rc<S>,
    pub(crate) transport: Rc<Transport>,
}

impl<S: Service> hyper::service::Service<Request<Incoming>> for Adapter<S> {
    type Response = Response<ExchangeBody>;
    type Error = Infallible;
    type Future = Respond<S>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let info = &self.transport.info;
        let (mut head, body) = request.into_parts();
        let mut exchange = Exchange::begin(info, &head, &body);
        let refusal = check::refusal(&head, &self.transport);
        self.transport.forget_head();
        self.transport.delivers();
        if let Some(status) = refusal {
            return Respond::ready(problem::closing_problem(status), exchange);
        }
        if !exchange.admit() {
            info.leave(body);
            return Respond::ready(problem::unavailable(), exchange);
        }
        let called = catch_unwind(AssertUnwindSafe(|| self.service.call(&mut head, body, info)));
        let spare = &info.lane.spare_headers;
        match called {
            Ok(Called::Answered(Outgoing::Plain(plain))) => {
                let headers = spare.renew(std::mem::take(&mut head.headers));
                Respond::Ready { response: Some(exchange.respond_plain(plain, headers)) }
            }
            Ok(Called::Answered(Outgoing::Built(response))) => {
                spare.put(std::mem::take(&mut head.headers));
                Respond::Ready { response: Some(exchange.respond_built(*response)) }
            }
            Ok(Called::Working(future)) => {
                spare.put(std::mem::take(&mut head.headers));
                Respond::Running { future, exchange: Some(exchange) }
            }
            Err(panic) => Respond::ready(panicked(&*panic), exchange),
        }
    }
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");

pin_project! {
    /// The response to come. hyper polls it in the connection's task.
    #[project = RespondProjection]
    pub(crate) enum Respond<S: Service> {
        /// It is here already; taken once.
        Ready { response: Option<Response<ExchangeBody>> },
        /// The service works on it.
        Running { #[pin] future: S::Future, exchange: Option<Exchange> },
    }
}

impl<S: Service> Respond<S> {
    fn ready(response: Response<Body>, exchange: Exchange) -> Self {
        Self::Ready { response: Some(exchange.respond_built(response)) }
    }
}

impl<S: Service> Future for Respond<S> {
    type Output = Result<Response<ExchangeBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match self.project() {
            RespondProjection::Ready { response } => response.take(),
            RespondProjection::Running { future, exchange } => {
                let late = exchange.as_ref().and_then(Exchange::lateness);
                let response = match late {
                    Some(status) => expired::<S>(future, status).into(),
                    None => match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
                        Ok(Poll::Pending) => return Poll::Pending,
                        Ok(Poll::Ready(response)) => response.into(),
                        Err(panic) => panicked(&*panic).into(),
                    },
                };
                exchange.take().map(|exchange| exchange.respond(response))
            }
        };
        // Polled again after it was ready, which hyper does not do, there is none.
        response.map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
    }
}

/// The answer for a request that took too long; its service is told.
#[cold]
fn expired<S: Service>(future: Pin<&mut S::Future>, status: StatusCode) -> Response<Body> {
    match catch_unwind(AssertUnwindSafe(|| S::expire(future))) {
        Ok(()) => problem::closing_problem(status),
        Err(panic) => panicked(&*panic),
    }
}

/// The answer for a service that panicked: one failed request. What the service left behind is not
/// trusted with another one, so the connection goes too.
#[cold]
fn panicked(panic: &(dyn Any + Send)) -> Response<Body> {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(target: "treadle", panic = message, "panic while a request was handled");
    problem::closing_problem(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Exchange {
    info: Rc<ConnectionInfo>,
    /// Whether the limit of requests in flight counts this one.
    is_counted: bool,
    /// What the client is answered with, once that is known.
    status: Option<StatusCode>,
    access: Option<Box<Access>>,
}

impl Exchange {
    fn begin(info: &Rc<ConnectionInfo>, head: &Parts, body: &Incoming) -> Self {
        let lane = &info.lane;
        info.enter(Phase::Handling);
        info.begin_request();
        info.expired.set(false);
        info.note_awaiting(false);
        info.answered.set(false);
        info.is_unseen.set(false);
        info.patience.set(lane.patience());
        info.body_done.set(body.is_end_stream());
        info.is_http10.set(head.version == Version::HTTP_10);
        info.is_own_head.set(head.method == Method::HEAD);
        info.loses_step.set(
            !info.body_done.get()
                && (head.headers.contains_key(TRANSFER_ENCODING)
                    || head.headers.contains_key(EXPECT)
                    || declares_more_than(body, MOST_DRAINED)),
        );
        let meter = lane.meter();
        meter.requests.add(1);
        meter.in_flight.add(1);
        if meter.is_on() {
            let now = meter.clock.now();
            // The lane could not have seen it before it looked, nor before the last answer.
            let possible = meter.looked.get().max(info.written.get());
            info.timing().begin(now, now.saturating_sub(possible));
        }
        let access = lane.options().access_log.then(|| Access::start(head));
        Self { info: Rc::clone(info), is_counted: false, status: None, access }
    }

    fn admit(&mut self) -> bool {
        match self.info.lane.limits().take_request() {
            Taken::Unlimited => true,
            Taken::Held => {
                self.is_counted = true;
                true
            }
            Taken::Refused => false,
        }
    }

    /// The status to answer with if the request has used up its time.
    fn lateness(&self) -> Option<StatusCode> {
        self.info.expired.replace(false).then(|| {
            if self.info.awaits_body() {
                StatusCode::REQUEST_TIMEOUT
            } else {
                StatusCode::GATEWAY_TIMEOUT
            }
        })
    }

    fn respond(self, response: Outgoing) -> Response<ExchangeBody> {
        match response {
            Outgoing::Plain(plain) => {
                let headers = self.info.lane.spare_headers.take();
                self.respond_plain(plain, headers)
            }
            Outgoing::Built(response) => self.respond_built(*response),
        }
    }

    /// `headers` is empty.
    fn respond_plain(mut self, plain: Plain, mut headers: HeaderMap) -> Response<ExchangeBody> {
        let Plain { status, content_type, mut body } = plain;
        if status == StatusCode::RESET_CONTENT {
            body = Body::Empty;
        }
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.clone());
        }
        if self.info.loses_step.get() {
            headers.insert(CONNECTION, CLOSE);
        }
        if matches!(body, Body::Empty) && self.empty_is_zero(status) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        self.begin_response(status);
        let version = self.version(&headers);
        let mut response = Response::new(ExchangeBody { body, exchange: self });
        *response.version_mut() = version;
        *response.status_mut() = status;
        // The map that it is made with is empty and owns nothing: there is nothing to drop.
        std::mem::forget(std::mem::replace(response.headers_mut(), headers));
        response
    }

    fn respond_built(mut self, mut response: Response<Body>) -> Response<ExchangeBody> {
        if response.status().is_informational() {
            tracing::error!(
                target: "treadle",
                status = response.status().as_u16(),
                "a handler answered with a 1xx status, which is not a response",
            );
            response = problem::problem(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if response.status() == StatusCode::RESET_CONTENT {
            *response.body_mut() = Body::Empty;
        }
        let headers = response.headers_mut();
        if !self.info.body_done.get() && says_close(headers) {
            // Nothing follows, so nobody need wait for the rest of the body.
            self.info.give_up_body();
        }
        if self.info.loses_step.get() {
            headers.insert(CONNECTION, CLOSE);
        }
        match response.body() {
            // Such a client knows the end of a stream by the end of the connection alone.
            Body::Stream(_) if self.info.is_http10.get() => {
                response.headers_mut().insert(CONNECTION, CLOSE);
            }
            Body::Empty if self.empty_is_zero(response.status()) => {
                response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Body::Empty if !has_length(response.status()) => {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            _ => {}
        }
        self.begin_response(response.status());
        *response.version_mut() = self.version(response.headers());
        response.map(|body| ExchangeBody { body, exchange: self })
    }

    /// The version to answer in. As one of 1.1, hyper would add that the connection is kept to the
    /// word that it is not, for a client of 1.0 that asked to keep it.
    fn version(&self, headers: &HeaderMap) -> Version {
        if self.info.is_http10.get() && says_close(headers) {
            Version::HTTP_10
        } else {
            Version::HTTP_11
        }
    }

    /// Whether an empty body has a length, and that is 0: not where its handler answers a HEAD,
    /// which may tell the length that GET would send (RFC 9110, 8.6), or else nobody knows it.
    fn empty_is_zero(&self, status: StatusCode) -> bool {
        let is_unknown = self.info.is_own_head.get() && status != StatusCode::RESET_CONTENT;
        has_length(status) && !is_unknown
    }

    fn begin_response(&mut self, status: StatusCode) {
        self.info.enter(Phase::Responding);
        self.status = Some(status);
        if let Some(access) = &mut self.access {
            access.responds(status);
        }
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Whether the length of an empty body is to be said; hyper says it itself to GET, but not to HEAD.
fn has_length(status: StatusCode) -> bool {
    !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if matches!(self.info.phase(), Phase::Handling | Phase::Responding) {
            self.info.enter(Phase::Idle);
        }
        self.info.end_request();
        let lane = &self.info.lane;
        lane.meter().in_flight.sub(1);
        if lane.meter().is_on() {
            let status = self.status.map(|status| status.as_u16());
            lane.reckoning.end(self.info.timing(), status);
        }
        if self.is_counted {
            lane.limits().release_request();
        }
        if let Some(access) = &self.access {
            access.emit(&self.info);
        }
    }
}

/// A response's body, and with it the exchange that it ends.
#[derive(Debug)]
pub(crate) struct ExchangeBody {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for ExchangeBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let (Some(access), Poll::Ready(Some(Ok(frame)))) = (&mut self.exchange.access, &frame) {
            access.sends(frame.data_ref().map_or(0, Bytes::len));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ExchangeBody {
    fn drop(&mut self) {
        if let Some(access) = &mut self.exchange.access {
            access.ends(self.body.is_end_stream());
        }
    }
}
