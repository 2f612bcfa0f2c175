//! What the dispatcher gives the connection: an answer, or a future of one.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::StatusCode;

use super::call::Running;
use crate::http::{Outgoing, problem};

/// An answer, or what it waits for.
pub enum Answer {
    /// Known; taken once.
    Ready(Option<Outgoing>),
    /// A handler's Task that suspended.
    Running(Running),
    /// Anything that takes several steps.
    Later(Pin<Box<dyn Future<Output = Outgoing>>>),
}

impl Answer {
    pub(super) fn ready(response: impl Into<Outgoing>) -> Self {
        Self::Ready(Some(response.into()))
    }

    pub(super) fn is_known(&self) -> bool {
        matches!(self, Self::Ready(_))
    }
}

impl Future for Answer {
    type Output = Outgoing;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let known = match self.get_mut() {
            Self::Ready(response) => response.take(),
            Self::Running(running) => return Pin::new(running).poll(cx),
            Self::Later(future) => return future.as_mut().poll(cx),
        };
        // Polled again after completion only by a broken caller, who gets an answer.
        Poll::Ready(known.unwrap_or_else(|| problem(StatusCode::INTERNAL_SERVER_ERROR).into()))
    }
}
