//! What a connection's socket is given to send.
//!
//! Small writes are gathered in `out` and sent when the task has nothing more to do, so a batch of
//! pipelined requests is answered with one system call, and nothing of it waits for a request that is
//! slower; or a moment later: with the next answers of the connection ([`super::gather`]), with those
//! of other connections ([`super::pass`]). (hyper's own `pipeline_flush` withholds finished responses,
//! and all of a streamed one, for as long as a further request is buffered.) Large writes go straight
//! out. A full socket stops hyper at once: beyond `out`, nothing is buffered here. Vectored writes are
//! not offered: hyper's bookkeeping for them costs each small response more than the copy, and bodies
//! come in slices ([`super::body`]), so that what is copied is small and still cached.
//!
//! `out` is borrowed from the lane while it has bytes in it: a connection with nothing to write owns
//! no write buffer.

use std::io;
use std::task::{Context, Poll, ready};

use super::info::Phase;
use super::io::{Transport, Wire};

/// What is written beyond this goes to the socket directly, uncopied.
const GATHER: usize = 16 * 1024;

impl Transport {
    /// Whether what was gathered may wait for the answer to a further request: there is one, and
    /// all that is to be sent before it is answers that are complete.
    pub(crate) fn may_wait(&self) -> bool {
        self.info.phase() == Phase::Handling
            && self.info.body_done.get()
            && !self.write_blocked.get()
            && !self.overdue.get()
            && !self.wire.borrow().out.is_empty()
    }

    /// Notes that it waits; false if it did before.
    pub(crate) fn begins_waiting(&self) -> bool {
        !self.waiting.replace(true)
    }

    /// Notes that it waits no more; whether it did.
    pub(crate) fn ends_waiting(&self) -> bool {
        self.waiting.replace(false)
    }

    /// Whether what was gathered may wait for the answers of other connections: all of it is answers
    /// that are complete, and nothing more comes before the client has sent more.
    pub(crate) fn may_join_pass(&self) -> bool {
        self.info.phase() == Phase::Idle
            && !self.write_blocked.get()
            && !self.overdue.get()
            && !self.wire.borrow().out.is_empty()
    }

    /// Notes that it waits for the end of the pass; false if it did before.
    pub(crate) fn joins_pass(&self) -> bool {
        !self.in_pass.replace(true)
    }

    /// Notes that it waits for no end of a pass any more; whether it did.
    pub(crate) fn leaves_pass(&self) -> bool {
        self.in_pass.replace(false)
    }

    /// Sends what has waited, without waiting for the socket: what that does not take is left to
    /// the connection's task.
    pub(crate) fn send_gathered(&self) {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        if wire.out.is_empty() || self.write_blocked.get() {
            return;
        }
        if let Ok(written) = wire.stream.try_write(&wire.out[wire.written..])
            && written > 0
        {
            wire.written += written;
            let _ = self.note_write(Poll::Ready(Ok(written)));
        }
        if wire.written == wire.out.len() {
            self.reset_out(wire);
        } else {
            self.overdue.set(true);
            self.wake();
        }
    }

    /// Sends what was gathered. Pending while the client takes no more.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.wire.borrow_mut();
        if wire.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush_wire(&mut wire, cx)
    }

    fn poll_flush_wire(&self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while wire.written < wire.out.len() {
            let written = wire.stream.poll_write(cx, &wire.out[wire.written..]);
            wire.written += ready!(self.note_write(written))?;
        }
        self.reset_out(wire);
        Poll::Ready(Ok(()))
    }

    /// All of `out` is written.
    fn reset_out(&self, wire: &mut Wire) {
        wire.written = 0;
        self.overdue.set(false);
        self.info.lane.spare_buffers.put(std::mem::take(&mut wire.out));
        let mut unsent = self.unsent.borrow_mut();
        if !unsent.is_empty() {
            self.info.lane.reckoning.settle(&mut unsent, &self.info);
        }
    }

    /// The connection's task has done what it can for now: requests that ended are recorded, or
    /// wait for the last of their bytes to go out.
    pub(crate) fn settle(&self) {
        let reckoning = &self.info.lane.reckoning;
        if reckoning.is_empty() {
            return;
        }
        let mut unsent = self.unsent.borrow_mut();
        reckoning.move_to(&mut unsent);
        if self.wire.borrow().out.is_empty() {
            reckoning.settle(&mut unsent, &self.info);
        }
    }

    /// The connection ends: nothing more goes out.
    pub(crate) fn settle_all(&self) {
        let reckoning = &self.info.lane.reckoning;
        let mut unsent = self.unsent.borrow_mut();
        reckoning.move_to(&mut unsent);
        reckoning.settle(&mut unsent, &self.info);
    }

    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let lane = &self.info.lane;
        match &written {
            Poll::Pending => {
                if !self.write_blocked.replace(true) {
                    self.write_progress.set(lane.clock.now());
                }
            }
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(Ok(written)) => {
                self.write_progress.set(lane.clock.now());
                self.write_blocked.set(false);
                lane.meter().bytes_sent.add(*written as u64);
                lane.meter().sends.add(1);
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    pub(super) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.borrow_mut();
        let wire = &mut *wire;
        if self.write_blocked.get() {
            ready!(self.poll_flush_wire(wire, cx))?;
        }
        if wire.out.len() + bytes.len() > GATHER {
            ready!(self.poll_flush_wire(wire, cx))?;
        }
        if bytes.len() <= GATHER {
            if wire.out.capacity() == 0 {
                wire.out = self.info.lane.spare_buffers.take();
            }
            wire.out.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = wire.stream.poll_write(cx, bytes);
        self.note_write(written)
    }

    /// Sends what was gathered and then the end of the stream.
    pub(crate) fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !self.shut.replace(true) {
            self.wire.borrow_mut().stream.shut_down_writing(cx);
        }
        Poll::Ready(Ok(()))
    }
}
