//! Taking frames of a request's body without waking its connection for nothing.
//!
//! hyper's channel between a connection and the reader of a body wakes the connection whenever a
//! frame is taken, so that it reads the next; after the last frame as well, when there is nothing
//! to read. With a body in one piece, as nearly all are, that is a second poll of every request: a
//! twelfth of its instructions. So hyper is polled with a waker ([`Quiet`]) that [`poll_frame`] can hold
//! back while it takes a frame, and wakes afterwards unless that was the last.
//!
//! What is held back is per thread and for the time of one call into that channel, so a wake-up of
//! another thread, or of anything else, is never lost.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;

thread_local! {
    static HOLDS_BACK: Cell<bool> = const { Cell::new(false) };
    /// What would have been woken.
    static HELD: Cell<Option<Waker>> = const { Cell::new(None) };
}

/// Wakes the task of a connection.
pub(super) struct Quiet(Waker);

impl Quiet {
    /// A waker of its own kind for what `waker` wakes.
    pub(super) fn of(waker: &Waker) -> Waker {
        Waker::from(Arc::new(Self(waker.clone())))
    }
}

impl Wake for Quiet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A thread whose locals are gone holds nothing back.
        if HOLDS_BACK.try_with(Cell::get).unwrap_or(false) {
            HELD.set(Some(self.0.clone()));
        } else {
            self.0.wake_by_ref();
        }
    }
}

/// The next frame of `body`. Its connection is woken if it has more to read.
pub(super) fn poll_frame(
    body: &mut Incoming,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
    struct HoldingBack;
    impl Drop for HoldingBack {
        fn drop(&mut self) {
            HOLDS_BACK.set(false);
        }
    }
    HOLDS_BACK.set(true);
    let holding_back = HoldingBack;
    let frame = Pin::new(&mut *body).poll_frame(cx);
    drop(holding_back);
    if let Some(waker) = HELD.take()
        && !body.is_end_stream()
    {
        waker.wake();
    }
    frame
}
