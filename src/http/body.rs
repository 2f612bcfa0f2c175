//! Response bodies: nothing, bytes at hand, or a stream with room for one chunk.
//!
//! A stream is a pair: the handler's side holds the [`StreamSender`], the connection the
//! [`StreamBody`]. Both live on one lane, so the slot between them is a `RefCell`, never borrowed
//! across a call into foreign code. A slow client fills the socket, the connection stops taking
//! chunks, `send` stops completing, and the producer stands still: memory stays flat.
//!
//! Ends race well because each side only ever adds to what the other sees: dropping the sender
//! ends the body after the chunk in the slot; [`StreamSender::abort`] breaks it there; dropping
//! the body (the client left, or the response is a HEAD's) shows up as [`Closed`] at the sender.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

/// The body of a response.
#[derive(Debug, Default)]
pub enum Body {
    /// No bytes.
    #[default]
    Empty,
    /// All bytes at once: the response gets a `Content-Length`.
    Full(Bytes),
    /// Bytes to come: chunked, or ended by the close for a client of HTTP/1.0.
    Stream(StreamBody),
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(bytes)
    }
}

impl From<StreamBody> for Body {
    fn from(stream: StreamBody) -> Self {
        Self::Stream(stream)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let slice = take_slice(bytes);
                Poll::Ready((!slice.is_empty()).then(|| Ok(Frame::data(slice))))
            }
            Self::Stream(stream) => {
                stream.poll_chunk(cx).map(|chunk| chunk.map(|c| c.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(stream) => stream.is_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// hyper copies what it sends into its write buffer. Taking a large body in slices keeps that
/// buffer small and the copy within the processor's cache.
const SLICE: usize = 64 * 1024;

/// The next bytes to send of `bytes`, which keeps the rest.
fn take_slice(bytes: &mut Bytes) -> Bytes {
    if bytes.len() > SLICE { bytes.split_to(SLICE) } else { std::mem::take(bytes) }
}

/// The body was broken off by its producer: the client must see an incomplete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted;

impl fmt::Display for Aborted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response body was aborted")
    }
}

impl StdError for Aborted {}

/// Nobody takes the chunks any more: the client left, or wanted no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client has left")
    }
}

impl StdError for Closed {}

/// A body that is produced while it is sent, and the sender that feeds it.
#[must_use]
pub fn channel() -> (StreamSender, StreamBody) {
    let slot = Rc::new(RefCell::new(Slot::default()));
    (StreamSender { slot: Rc::clone(&slot) }, StreamBody { slot })
}

#[derive(Debug, Default)]
struct Slot {
    chunk: Option<Bytes>,
    /// A chunk was taken since the connection last waited.
    flushing: bool,
    state: State,
    /// The connection, waiting for a chunk.
    body: Option<Waker>,
    /// The producer, waiting for room.
    room: Option<Waker>,
    /// Whoever waits for the client to leave.
    closed: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    Ended,
    Aborted,
    Closed,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn park(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Feeds a [`StreamBody`]. Dropping it ends the body as it should end.
#[derive(Debug)]
pub struct StreamSender {
    slot: Rc<RefCell<Slot>>,
}

impl StreamSender {
    /// Waits until there is room for a chunk, then hands `chunk` over. It completes once the
    /// connection has taken the chunk before, so a slow client slows its producer.
    pub async fn send(&mut self, chunk: Bytes) -> Result<(), Closed> {
        poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(chunk)
    }

    /// Ready when [`start_send`](Self::start_send) has room.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let mut slot = self.slot.borrow_mut();
        if slot.state == State::Closed {
            Poll::Ready(Err(Closed))
        } else if slot.chunk.is_none() {
            Poll::Ready(Ok(()))
        } else {
            park(&mut slot.room, cx);
            Poll::Pending
        }
    }

    /// Hands `chunk` over. To be called after [`poll_ready`](Self::poll_ready) said so; a chunk
    /// that is still in the slot is joined with it. An empty chunk is nothing: it must not end the
    /// body, which is what an empty chunk on the wire would do.
    pub fn start_send(&mut self, chunk: Bytes) -> Result<(), Closed> {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            if slot.state == State::Closed {
                return Err(Closed);
            }
            if chunk.is_empty() {
                return Ok(());
            }
            slot.chunk = Some(match slot.chunk.take() {
                None => chunk,
                Some(first) => [first, chunk].concat().into(),
            });
            slot.body.take()
        };
        wake(waker);
        Ok(())
    }

    /// Completes when the connection has dropped the body: the client left, or the body is not
    /// wanted. A body that ended is not dropped before all of it was taken.
    pub fn closed(&self) -> impl Future<Output = ()> + use<> {
        let slot = Rc::clone(&self.slot);
        poll_fn(move |cx| {
            let mut slot = slot.borrow_mut();
            if slot.state == State::Closed {
                Poll::Ready(())
            } else {
                park(&mut slot.closed, cx);
                Poll::Pending
            }
        })
    }

    /// Whether the connection has dropped the body.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.slot.borrow().state == State::Closed
    }

    /// Breaks the body off: the connection is closed without the last chunk, and the client can
    /// tell that the response is incomplete.
    pub fn abort(self) {
        self.finish(State::Aborted);
    }

    fn finish(&self, state: State) {
        let waker = {
            let mut slot = self.slot.borrow_mut();
            if slot.state != State::Open {
                return;
            }
            slot.state = state;
            slot.body.take()
        };
        wake(waker);
    }
}

impl Drop for StreamSender {
    fn drop(&mut self) {
        self.finish(State::Ended);
    }
}

/// The connection's side of a streamed body.
#[derive(Debug)]
pub struct StreamBody {
    slot: Rc<RefCell<Slot>>,
}

impl StreamBody {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Aborted>>> {
        let (slice, waker) = {
            let mut slot = self.slot.borrow_mut();
            let slot = &mut *slot;
            let Some(chunk) = &mut slot.chunk else {
                return match slot.state {
                    // Not in the poll that took a chunk: hyper would drop what it has not
                    // flushed, and the client would not see where the message broke off.
                    State::Aborted if slot.flushing => {
                        slot.flushing = false;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    State::Aborted => Poll::Ready(Some(Err(Aborted))),
                    State::Ended | State::Closed => Poll::Ready(None),
                    State::Open => {
                        park(&mut slot.body, cx);
                        Poll::Pending
                    }
                };
            };
            let slice = take_slice(chunk);
            slot.flushing = true;
            if chunk.is_empty() {
                slot.chunk = None;
                (slice, slot.room.take())
            } else {
                (slice, None)
            }
        };
        wake(waker);
        Poll::Ready(Some(Ok(slice)))
    }

    fn is_ended(&self) -> bool {
        let slot = self.slot.borrow();
        slot.state == State::Ended && slot.chunk.is_none()
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        let (chunk, room, closed) = {
            let mut slot = self.slot.borrow_mut();
            slot.state = State::Closed;
            (slot.chunk.take(), slot.room.take(), slot.closed.take())
        };
        // Outside the borrow: a chunk may own foreign memory.
        drop(chunk);
        wake(room);
        wake(closed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Body as _;

    use super::*;

    fn frame(body: &mut Body) -> Poll<Option<Result<Bytes, Aborted>>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(body)
            .poll_frame(&mut cx)
            .map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().expect("data"))))
    }

    #[test]
    fn a_full_body_knows_its_length_and_is_one_frame() {
        let mut body = Body::from(Bytes::from_static(b"abc"));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(frame(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"abc")))));
        assert!(body.is_end_stream());
        assert_eq!(frame(&mut body), Poll::Ready(None));
    }

    #[test]
    fn a_large_body_is_taken_in_slices() {
        let all = Bytes::from(vec![7; 2 * SLICE + 1]);
        let (mut sender, stream) = channel();
        sender.start_send(all.clone()).expect("open");
        for mut body in [Body::from(all), Body::from(stream)] {
            for length in [SLICE, SLICE, 1] {
                // There is no room until the last of the chunk is taken.
                assert_eq!(sender.send(Bytes::new()).now_or_never(), None);
                let Poll::Ready(Some(Ok(slice))) = frame(&mut body) else { panic!("no slice") };
                assert_eq!(slice.len(), length);
            }
            if matches!(body, Body::Stream(_)) {
                assert_eq!(sender.send(Bytes::new()).now_or_never(), Some(Ok(())));
            }
        }
    }

    #[test]
    fn send_waits_until_the_chunk_before_was_taken() {
        let (mut sender, stream) = channel();
        let mut body = Body::from(stream);
        assert_eq!(sender.send(Bytes::from_static(b"1")).now_or_never(), Some(Ok(())));
        assert_eq!(sender.send(Bytes::from_static(b"2")).now_or_never(), None);
        assert_eq!(frame(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"1")))));
        assert_eq!(sender.send(Bytes::from_static(b"2")).now_or_never(), Some(Ok(())));
    }

    #[test]
    fn dropping_the_sender_ends_the_body_after_its_last_chunk() {
        let (mut sender, stream) = channel();
        let mut body = Body::from(stream);
        sender.start_send(Bytes::from_static(b"last")).expect("open");
        drop(sender);
        assert!(!body.is_end_stream());
        assert_eq!(frame(&mut body), Poll::Ready(Some(Ok(Bytes::from_static(b"last")))));
        assert!(body.is_end_stream());
        assert_eq!(frame(&mut body), Poll::Ready(None));
    }

    #[test]
    fn an_abort_breaks_the_body() {
        let (sender, stream) = channel();
        let mut body = Body::from(stream);
        sender.abort();
        assert!(!body.is_end_stream());
        assert_eq!(frame(&mut body), Poll::Ready(Some(Err(Aborted))));
    }

    #[test]
    fn dropping_the_body_tells_the_sender() {
        let (mut sender, stream) = channel();
        let closed = sender.closed();
        assert!(!sender.is_closed());
        drop(stream);
        assert_eq!(closed.now_or_never(), Some(()));
        assert_eq!(sender.send(Bytes::new()).now_or_never(), Some(Err(Closed)));
    }

    #[test]
    fn an_empty_chunk_does_not_end_the_body() {
        let (mut sender, stream) = channel();
        let mut body = Body::from(stream);
        sender.start_send(Bytes::new()).expect("open");
        assert_eq!(frame(&mut body), Poll::Pending);
    }
}
