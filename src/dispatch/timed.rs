//! The time that a route gives its answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use super::Answer;
use crate::http::problem;

pin_project! {
    /// An answer, or 504 when its time is up.
    pub struct Timed {
        answer: Answer,
        #[pin]
        time: Sleep,
    }
}

impl Timed {
    pub(super) fn new(answer: Answer, limit: Duration) -> Self {
        Self { answer, time: sleep(limit) }
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
        this.answer.expire();
        Poll::Ready(Answer::ready(problem(StatusCode::GATEWAY_TIMEOUT)))
    }
}
