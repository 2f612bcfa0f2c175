//! What the dispatcher gives the connection: an answer, or a future of one.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::StatusCode;

use super::call::Running;
use super::offload::Queued;
use super::timed::Timed;
use crate::http::{Outgoing, problem};

/// A step on the way to an answer.
pub(super) type Step = Pin<Box<dyn Future<Output = Answer>>>;

/// An answer, or what it waits for.
pub enum Answer {
    /// Known; taken once.
    Ready(Option<Outgoing>),
    /// A handler's Task that suspended.
    Running(Running),
    /// Anything else that takes several steps: the next.
    Later(Step),
    /// A call on the thread pool, and its place in the queue.
    Offloaded(Step, Rc<Queued>),
    /// Any of these, for a limited time.
    Timed(Pin<Box<Timed>>),
}

impl Answer {
    pub(super) fn ready(response: impl Into<Outgoing>) -> Self {
        Self::Ready(Some(response.into()))
    }

    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Ready(_))
    }

    /// Its time is up: what makes it is ended, also where a client's leaving would not end it.
    pub(super) fn expire(&mut self) {
        match self {
            Self::Running(running) => running.expire(),
            Self::Offloaded(_, queued) => queued.cancel(),
            Self::Timed(timed) => timed.as_mut().expire(),
            Self::Ready(_) | Self::Later(_) => {}
        }
    }
}

impl Future for Answer {
    type Output = Outgoing;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let next = match this {
                Self::Ready(response) => {
                    // Polled again after completion only by a broken caller, who gets an answer.
                    let known = response.take();
                    return Poll::Ready(
                        known.unwrap_or_else(|| problem(StatusCode::INTERNAL_SERVER_ERROR).into()),
                    );
                }
                Self::Running(running) => return Pin::new(running).poll(cx),
                Self::Later(step) | Self::Offloaded(step, _) => ready!(step.as_mut().poll(cx)),
                Self::Timed(timed) => ready!(timed.as_mut().poll(cx)),
            };
            *this = next;
        }
    }
}
