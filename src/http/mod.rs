//! HTTP/1.1 on one lane: sockets in, requests to a [`Service`], responses out. No Python here.
//!
//! Who owns what:
//!
//! - [`accept_loop`] owns a listener. It makes [`Accepted`] connections and knows the limit of
//!   them; where they go is the caller's choice, by the lanes' loads.
//! - [`HttpLane`] owns the connections of one thread, one task each, and all that they share: the
//!   buffers, the clock, the counters, the sweep that enforces every timeout.
//! - A connection's task owns its socket and, while there is something to do, hyper's state
//!   (`connection`); hyper's state owns the service's future. Dropping the task cancels the request.
//! - [`ConnectionInfo`] is what the service may know and keep.
//!
//! Everything of a connection happens on its lane's thread, with `Rc` and `Cell`. Threads share the
//! [`Limits`], the loads, and the signal that stops accepting.
//!
//! What is strict here beyond hyper: see `check` and `chunks`. What is said to a client whose request fails:
//! see `problem`.

mod accept;
mod access;
mod body;
mod check;
mod chunks;
mod clock;
mod connection;
mod exchange;
mod gather;
mod info;
mod io;
mod lane;
mod limits;
mod outgoing;
mod pass;
mod problem;
mod quiet;
mod reckoning;
mod refusals;
mod request_body;
mod sending;
mod spare;
mod stream;
mod sweep;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

pub use accept::{Accepted, StopHandle, StopSignal, accept_loop, stop_signal};
pub use body::{Aborted, Body, Closed, StreamBody, StreamSender, channel};
pub use info::{ConnectionInfo, Phase};
pub use lane::HttpLane;
pub use limits::Limits;
pub use outgoing::{Outgoing, Plain};
pub use problem::{closing_problem, method_not_allowed, problem, problem_with_detail, unavailable};
pub use request_body::{BodyError, RequestBody, declares_more_than, read_all};
pub use spare::SpareHeaders;
pub use stream::{Listener, Peer};

/// What answers requests. The single seam between this layer and those above it.
pub trait Service: 'static {
    /// The response to come. Dropping it means that nobody wants it any more: the client left, the
    /// request took too long ([`Service::expire`] says so before), or the server stops.
    type Future: Future<Output: Into<Outgoing>> + 'static;

    /// The request took too long. The future is not polled any more, and dropped; the client is there.
    fn expire(_future: Pin<&mut Self::Future>) {}

    /// Called when a request's head is parsed, inside the connection's task. A panic, here or in the
    /// future, is a 500.
    ///
    /// It takes out of `head` what it wants to keep, and had better leave the rest: headers are views
    /// of the connection's read buffer, which is used again, and not replaced, once nobody holds
    /// them; and the map of those that are left becomes that of a response.
    fn call(
        &self,
        head: &mut http::request::Parts,
        body: hyper::body::Incoming,
        connection: &Rc<ConnectionInfo>,
    ) -> Called<Self::Future>;
}

/// What a service has for a request when it was called.
#[derive(Debug)]
pub enum Called<F> {
    /// The response: it goes out in the same poll.
    Answered(Outgoing),
    /// What makes it.
    Working(F),
}
