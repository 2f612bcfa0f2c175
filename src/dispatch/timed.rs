//! The time that a route gives its answer.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::Answer;
use crate::http::{ConnectionInfo, closing_problem, problem};

pin_project! {
    /// An answer, or 504 when its time is up.
    pub struct Timed {
        answer: Answer,
        #[pin]
        time: Sleep,
        connection: Rc<ConnectionInfo>,
    }
}

impl Timed {
    pub(super) fn new(answer: Answer, limit: Duration, connection: &Rc<ConnectionInfo>) -> Self {
        Self { answer, time: sleep(limit), connection: Rc::clone(connection) }
    }

    /// See [`Answer::expire`].
    pub(super) fn expire(self: Pin<&mut Self>) {
        self.project().answer.expire();
    }
}

impl Future for Timed {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = self.project();
        if let Poll::Ready(response) = Pin::new(&mut *this.answer).poll(cx) {
            return Poll::Ready(Answer::ready(response));
        }
        if this.time.poll(cx).is_pending() {
            return Poll::Pending;
        }
        // Looked at first: who gives the answer up gives up its body.
        let is_read = this.connection.awaits_body();
        this.answer.expire();
        let status = StatusCode::GATEWAY_TIMEOUT;
        // Nothing can follow a request that has not arrived as a whole.
        Poll::Ready(Answer::ready(if is_read { closing_problem(status) } else { problem(status) }))
    }
}
