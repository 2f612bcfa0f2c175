//! The socket of a connection as hyper sees it, and what the rest of the layer needs to know of it.
//!
//! [`Transport`] owns the socket; hyper holds it through [`Io`], the connection's task beside it.
//! Both run on the lane's thread and never at once, so the `RefCell` is borrowed for one call only.
//!
//! - **Reads** go through the lane's scratch buffer. That costs a copy of a few hundred bytes, needs
//!   no unsafe code, and leaves the bytes of the last read where [`super::check`] can look at them.
//! - **Writes** are gathered and sent by [`super::sending`].

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use http::{HeaderValue, StatusCode};
use hyper::rt::ReadBufCursor;
use tokio::io::ReadBuf;

use super::chunks::{ChunkLines, Scanned};
use super::info::{ConnectionInfo, Phase};
use super::lane::HttpLane;
use super::reckoning::Unsent;
use super::stream::Stream;

/// Which bytes the lane's scratch buffer holds: the last `len` that connection `owner` received,
/// and the address just past the place that they were copied to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    owner: Option<u64>,
    len: usize,
    end: usize,
    /// The owner, by its key: it may have to look at them later.
    wanted_by: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream: Stream,
    /// Bytes that were received before hyper was there to take them.
    prefix: Bytes,
    /// What is to be written, from `written` on.
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    /// The head so far, if it takes more than one read to arrive.
    partial: Vec<u8>,
    /// Where `partial` is the last read itself, kept for the requests in it that have yet to be
    /// parsed: the address just past the place that it was copied to.
    partial_end: Option<usize>,
}

/// A connection's socket.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) info: Rc<ConnectionInfo>,
    pub(super) wire: RefCell<Wire>,
    /// hyper waits for the socket to become readable, so it will see the client leave.
    read_waiting: Cell<bool>,
    /// hyper has been given bytes, or the service a request, in this poll of the connection's task.
    delivered: Cell<bool>,
    /// The client has sent its end.
    read_ended: Cell<bool>,
    /// The socket took no more at the last attempt.
    pub(super) write_blocked: Cell<bool>,
    /// The tick of the last byte that the socket took.
    pub(super) write_progress: Cell<u32>,
    /// The end of the stream has been sent.
    pub(super) shut: Cell<bool>,
    /// In the list of those whose answers wait for the next.
    pub(super) waiting: Cell<bool>,
    /// In the list of those whose answers wait for the end of the pass.
    pub(super) in_pass: Cell<bool>,
    /// What waited did not go out at once: it is not to wait again.
    pub(super) overdue: Cell<bool>,
    /// Where in a chunked body the next byte to be received is, if it is known to be in one.
    chunks: Cell<Option<ChunkLines>>,
    /// Requests whose answers are not all with the system yet.
    pub(super) unsent: RefCell<Vec<Unsent>>,
    waker: RefCell<Option<Waker>>,
}

impl Transport {
    pub(crate) fn new(info: Rc<ConnectionInfo>, stream: Stream, prefix: Bytes) -> Self {
        Self {
            info,
            wire: RefCell::new(Wire {
                stream,
                prefix,
                out: Vec::new(),
                written: 0,
                partial: Vec::new(),
                partial_end: None,
            }),
            read_waiting: Cell::new(false),
            delivered: Cell::new(false),
            read_ended: Cell::new(false),
            write_blocked: Cell::new(false),
            write_progress: Cell::new(0),
            shut: Cell::new(false),
            waiting: Cell::new(false),
            in_pass: Cell::new(false),
            overdue: Cell::new(false),
            chunks: Cell::new(None),
            unsent: RefCell::default(),
            waker: RefCell::new(None),
        }
    }

    /// Called at the start of every poll of the connection's task.
    pub(crate) fn begin_poll(&self, cx: &Context<'_>) {
        self.read_waiting.set(false);
        self.delivered.set(false);
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// The service is given a request that hyper may have had in its buffer.
    pub(crate) fn delivers(&self) {
        self.delivered.set(true);
    }

    /// Has the connection's task polled again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Whether hyper would notice the client leaving.
    pub(crate) fn is_read_waiting(&self) -> bool {
        self.read_waiting.get()
    }

    pub(crate) fn has_read_ended(&self) -> bool {
        self.read_ended.get()
    }

    /// Whether the client is gone although there may be bytes of it that nobody has read.
    pub(crate) fn is_read_closed(&self) -> bool {
        self.wire.borrow().stream.is_read_closed()
    }

    /// Whether bytes have arrived that nobody has read.
    pub(crate) fn has_unread(&self) -> bool {
        self.wire.borrow().stream.has_unread()
    }

    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked.get()
    }

    /// For how many ticks the client has taken none of the bytes that wait for it.
    pub(crate) fn stalled_for(&self) -> Option<u32> {
        let now = self.info.lane.clock.now();
        self.write_blocked.get().then(|| now.wrapping_sub(self.write_progress.get()))
    }

    pub(crate) fn has_prefix(&self) -> bool {
        !self.wire.borrow().prefix.is_empty()
    }

    /// Puts `bytes` back in front of what is still to be read.
    pub(crate) fn unread(&self, bytes: Bytes) {
        let mut wire = self.wire.borrow_mut();
        wire.prefix = if wire.prefix.is_empty() {
            bytes
        } else {
            [bytes, std::mem::take(&mut wire.prefix)].concat().into()
        };
    }

    /// Queues `bytes` behind what is already to be written.
    pub(crate) fn push(&self, bytes: &[u8]) {
        self.wire.borrow_mut().out.extend_from_slice(bytes);
    }

    pub(crate) fn reset_on_close(&self) {
        self.wire.borrow().stream.reset_on_close();
    }

    /// Reads without hyper, into the lane's scratch buffer. Ready with the number of bytes there;
    /// none is the end.
    pub(crate) fn poll_read_scratch(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let lane = &self.info.lane;
        lane.give_up_window(None);
        let mut scratch = lane.scratch.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        ready!(self.wire.borrow_mut().stream.poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        self.note_read(read);
        Poll::Ready(Ok(read))
    }

    fn note_read(&self, read: usize) {
        if read == 0 {
            self.read_ended.set(true);
        }
        self.info.lane.meter().bytes_received.add(read as u64);
    }

    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        cursor: &mut ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if cursor.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let lane = &self.info.lane;
        lane.give_up_window(Some(self.info.id()));
        let mut scratch = lane.scratch.borrow_mut();
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        let room = cursor.remaining().min(scratch.len());
        if wire.partial_end.take().is_some() && self.info.phase() != Phase::Idle {
            // Not for a head: of what was received before, nothing is left to be parsed.
            wire.partial = Vec::new();
        }
        let window = lane.window.get();
        if self.info.phase() == Phase::Head && window.owner == Some(self.info.id()) {
            // hyper reads again, so the head was not complete: keep what there is of it.
            wire.partial.extend_from_slice(&scratch[..window.len]);
            lane.window.set(Window::default());
        }
        let read = if wire.prefix.is_empty() {
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            match wire.stream.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.read_ended.set(true);
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => {
                    self.read_waiting.set(true);
                    return Poll::Pending;
                }
            }
            let read = buffer.filled().len();
            if read == 0 && self.delivered.get() {
                // A client that sends its end along with its request may well want the answer. One
                // that is there at once goes out at the end of this poll; the end is told in the next.
                self.read_waiting.set(true);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if read == 0 && self.info.ignores_end() {
                self.read_waiting.set(true);
                return Poll::Pending;
            }
            self.note_read(read);
            read
        } else {
            let read = room.min(wire.prefix.len());
            wire.prefix.copy_to_slice(&mut scratch[..read]);
            read
        };
        if read == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(lines) = self.chunks.take() {
            match lines.scan(&scratch[..read]) {
                Scanned::GoesOn(lines) => self.chunks.set(Some(lines)),
                Scanned::Ended => {}
                // What hyper's decoder says of what it objects to itself.
                Scanned::Malformed => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
            }
        }
        self.delivered.set(true);
        self.info.note_received();
        if matches!(self.info.phase(), Phase::New | Phase::Idle) {
            if self.info.body_done.get() {
                self.info.enter(Phase::Head);
            } else if wire.partial.capacity() > 0 {
                // What is late of a body that nobody reads is no head, and none began before it.
                wire.partial = Vec::new();
            }
        }
        let start = cursor.initialize_unfilled_to(1).as_ptr().addr();
        cursor.put_slice(&scratch[..read]);
        let owner = Some(self.info.id());
        lane.window.set(Window { owner, len: read, end: start + read, wanted_by: None });
        Poll::Ready(Ok(()))
    }

    /// There may be further requests in hyper's buffer, and it is not their turn yet: what was
    /// received last is to be looked at then.
    pub(crate) fn want_received(&self) {
        let lane = &self.info.lane;
        let window = lane.window.get();
        if window.owner == Some(self.info.id()) {
            lane.window.set(Window { wanted_by: Some(self.info.key.get()), ..window });
        }
    }

    /// Keeps what was received last, if it is in `window`: another connection is about to read.
    /// Where hyper waits for more, it has parsed that already.
    fn keep_received(&self, window: Window) {
        if window.owner == Some(self.info.id()) && !self.read_waiting.get() {
            let mut wire = self.wire.borrow_mut();
            wire.partial = self.info.lane.scratch.borrow()[..window.len].to_vec();
            wire.partial_end = Some(window.end);
        }
    }

    /// What `look` makes of the bytes that were received from `value` on, a header's of the head that
    /// was parsed last. They are at hand unless another connection has read since the first part of
    /// this head arrived behind an earlier request.
    pub(crate) fn look_from<T>(
        &self,
        value: &HeaderValue,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        let lane = &self.info.lane;
        let window = lane.window.get();
        let wire = self.wire.borrow();
        let scratch = lane.scratch.borrow();
        let (partial, last, end) = if window.owner == Some(self.info.id()) {
            (&wire.partial[..], &scratch[..window.len], window.end)
        } else {
            (&[][..], &wire.partial[..], wire.partial_end?)
        };
        // The bytes are contiguous where hyper has them, and the last one's place is known.
        let from_end = end.wrapping_sub(value.as_bytes().as_ptr().addr());
        let look = |bytes: &[u8]| bytes.starts_with(value.as_bytes()).then(|| look(bytes));
        if let Some(start) = last.len().checked_sub(from_end) {
            return look(&last[start..]);
        }
        let start = (partial.len() + last.len()).checked_sub(from_end)?;
        look(&[&partial[start..], last].concat())
    }

    /// What is still to be received goes on with a chunked body, there.
    pub(crate) fn follow_chunks(&self, lines: ChunkLines) {
        self.chunks.set(Some(lines));
    }

    /// Takes the answer with which hyper has refused a head back from what is to be written: its
    /// status and its line with the date, or `None` if it is not there any more. It is the last
    /// that hyper wrote, and has no body.
    pub(crate) fn take_refusal(&self) -> Option<(StatusCode, String)> {
        let mut wire = self.wire.borrow_mut();
        let written = wire.written;
        let start = memchr::memmem::rfind(&wire.out[written..], b"HTTP/1.1 4")?;
        let answer = std::str::from_utf8(&wire.out[written + start..]).ok()?;
        let is_refusal =
            answer.ends_with("\r\n\r\n") && answer.contains("\r\ncontent-length: 0\r\n");
        let status = answer.get(9..12).filter(|_| is_refusal)?.parse().ok()?;
        let date = answer.split_inclusive("\r\n").find(|line| line.starts_with("date: "));
        let date = date.unwrap_or_default().to_owned();
        wire.out.truncate(written + start);
        Some((status, date))
    }

    /// The head is parsed: the bytes it was parsed from are not needed any more, unless there may be
    /// further heads in them.
    pub(crate) fn forget_head(&self) {
        let mut wire = self.wire.borrow_mut();
        if wire.partial.capacity() > 0 && wire.partial_end.is_none() {
            wire.partial = Vec::new();
        }
    }
}

impl HttpLane {
    /// The scratch buffer is about to be read into, for the connection `reader`, which may go on from
    /// the bytes that it has there itself. Those of any other are forgotten, or kept for it.
    pub(super) fn give_up_window(&self, reader: Option<u64>) {
        let window = self.window.get();
        if reader.is_some() && window.owner == reader {
            return;
        }
        self.window.set(Window::default());
        if let Some(key) = window.wanted_by
            && let Some(owner) = self.registry.borrow().get(key)
        {
            owner.keep_received(window);
        }
    }
}

/// hyper's hold on a [`Transport`].
#[derive(Debug)]
pub(crate) struct Io(pub(crate) Rc<Transport>);

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, &mut cursor)
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, bytes)
    }

    /// The connection's task flushes when hyper has nothing more to add.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The connection's task sends the end, with what it may have to add.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
