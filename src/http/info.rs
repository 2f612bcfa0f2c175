//! What is known about one connection: who it is, and where in its life it stands.
//!
//! Shared by the parts of a connection through an `Rc`, on one thread; every mutable field is a
//! `Cell`, so that following a request costs a few plain stores. Only what is rare is in a `RefCell`,
//! never borrowed across a call that may come back: a body that nobody reads, and who waits for more
//! of one. A service may keep its `Rc` for as long as it likes: the socket is not in here.
//!
//! Times are ticks of the lane's clock, which counts sweeps. A lane that was busy in a handler did
//! not sweep, nor did it read what clients sent meanwhile: such time is nobody's fault and counts
//! against nobody.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http_body::Body as _;
use hyper::body::Incoming;

use super::lane::HttpLane;
use super::quiet::poll_frame;
use super::stream::Peer;
use crate::telemetry::Timing;

/// Where a connection stands. What may happen to it, and when its time is up, depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted; has not sent a byte.
    New,
    /// Between two requests.
    Idle,
    /// Part of a request's head has arrived.
    Head,
    /// A request is with the service, which may be reading its body.
    Handling,
    /// The response has started.
    Responding,
    /// All is said; what the client still sends is thrown away until it has seen the end.
    Closing,
}

/// What the sweep decided about a connection; its own task carries it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    None,
    /// Idle for a while: give the buffers back.
    Hibernate,
    /// The head was not complete in time: 408.
    RefuseHead,
    /// The service was too slow: 504, or 408 when it waits for the body.
    GiveUp,
    /// Idle for too long: close, unless a request has come meanwhile.
    EndIdle,
    /// Nothing more to say: close.
    Close,
}

/// Bytes of a body that nobody reads for which the connection is still kept.
pub(crate) const MOST_DRAINED: u64 = 8 * 1024;

/// No limit, in ticks: more than any clock reaches.
pub(crate) const NEVER: u32 = u32::MAX;

/// One connection, as its requests see it.
#[derive(Debug)]
pub struct ConnectionInfo {
    id: u64,
    peer: Peer,
    pub(super) lane: Rc<HttpLane>,
    pub(super) key: Cell<usize>,
    pub(super) requests: Cell<u64>,
    phase: Cell<Phase>,
    /// The tick at which the phase began.
    since: Cell<u32>,
    pub(super) order: Cell<Order>,
    /// Whether there is no HTTP state at present, only a socket.
    pub(super) asleep: Cell<bool>,
    /// How many ticks the request in flight may take until its response starts.
    pub(super) patience: Cell<u32>,
    /// The request in flight has used up its time; its future is to answer for it.
    pub(super) expired: Cell<bool>,
    /// The service waits for more of the request's body.
    awaits_body: Cell<bool>,
    /// The tick at which that wait began, or at which the last bytes came.
    fed: Cell<u32>,
    /// The service makes the answer of the request in flight even if the client leaves.
    outlives: Cell<bool>,
    /// The last request has been answered, or given up.
    pub(super) answered: Cell<bool>,
    /// Whoever waits for more of the request's body.
    reader: RefCell<Option<Waker>>,
    /// All of the last request's body has been read, so what follows is a new request.
    pub(super) body_done: Cell<bool>,
    pub(super) is_http10: Cell<bool>,
    /// The request in flight is a HEAD that the service does not answer as the GET of the resource:
    /// that its body is empty says nothing about its length.
    pub(super) is_own_head: Cell<bool>,
    /// Nothing may follow this request, because its end was not reached, or is not beyond doubt:
    /// nobody read its chunks or its large body, or could look at what is in front of the chunks,
    /// or it ended in trailers (hyper takes a bare LF behind the last chunk for their start, and what
    /// follows for more of them).
    pub(super) loses_step: Cell<bool>,
    /// Nobody could look at what the request in flight has in front of its chunks.
    pub(super) is_unseen: Cell<bool>,
    timing: Rc<Timing>,
    /// When the last byte of the last answer went out, in the clock's ticks.
    pub(super) written: Cell<u64>,
    /// The body of the request of that number, which nobody reads and which is about to end.
    leftover: RefCell<Option<(u64, Incoming)>>,
}

impl ConnectionInfo {
    pub(crate) fn new(id: u64, peer: Peer, lane: Rc<HttpLane>) -> Self {
        let since = Cell::new(lane.clock.now());
        Self {
            id,
            peer,
            lane,
            key: Cell::new(usize::MAX),
            requests: Cell::new(0),
            phase: Cell::new(Phase::New),
            since,
            order: Cell::new(Order::None),
            asleep: Cell::new(true),
            patience: Cell::new(NEVER),
            expired: Cell::new(false),
            awaits_body: Cell::new(false),
            fed: Cell::new(0),
            outlives: Cell::new(false),
            answered: Cell::new(false),
            reader: RefCell::default(),
            body_done: Cell::new(true),
            is_http10: Cell::new(false),
            is_own_head: Cell::new(false),
            loses_step: Cell::new(false),
            is_unseen: Cell::new(false),
            timing: Rc::default(),
            written: Cell::new(0),
            leftover: RefCell::default(),
        }
    }

    /// A number that no other connection of this lane has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// How many requests it has made so far, the one in flight included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Where the request in flight stands.
    #[must_use]
    pub fn timing(&self) -> &Rc<Timing> {
        &self.timing
    }

    /// The lane that the connection lives on.
    #[must_use]
    pub fn lane(&self) -> &Rc<HttpLane> {
        &self.lane
    }

    /// Where the connection stands now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Whether the server is about to stop: long answers had better come to an end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.lane.is_draining()
    }

    /// Replaces the general request timeout for the request in flight; `None` lifts it. Counted
    /// from the end of the request's head, to the resolution of the lane's clock (about 100 ms),
    /// and never early.
    pub fn set_request_timeout(&self, timeout: Option<Duration>) {
        let patience = timeout.map_or(NEVER, |timeout| self.lane.clock.ticks(timeout));
        self.patience.set(patience);
        if patience < self.lane.horizon() {
            self.lane.look_soon(self.key.get());
        }
    }

    /// The request in flight is answered even if its client leaves. That the client has sent its end
    /// is then no reason to close: it may have sent all and wait for the answer. One that closed
    /// looks the same, and is seen to be gone when the answer is sent.
    pub fn outlive_client(&self) {
        self.outlives.set(true);
    }

    /// The service answers a HEAD by what it has for GET: an empty body is one of length 0.
    pub fn answer_as_get(&self) {
        self.is_own_head.set(false);
    }

    /// Whether the service waits for more of the request's body.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        self.awaits_body.get()
    }

    /// Notes whether it does, and returns whether it did.
    pub(super) fn note_awaiting(&self, awaits: bool) -> bool {
        let before = self.awaits_body.replace(awaits);
        if awaits && !before {
            self.note_received();
        }
        before
    }

    /// Bytes have arrived.
    pub(super) fn note_received(&self) {
        self.fed.set(self.lane.clock.now());
    }

    /// For how many ticks the service has waited for more of the body, and the client sent nothing.
    pub(super) fn starved_for(&self) -> Option<u32> {
        let now = self.lane.clock.now();
        self.awaits_body.get().then(|| now.wrapping_sub(self.fed.get()))
    }

    /// A request begins.
    pub(super) fn begin_request(&self) {
        self.requests.set(self.requests.get() + 1);
        self.outlives.set(false);
    }

    /// Whether the end that the client has sent may wait: all of the request is here, and its
    /// answer is made whatever the client does.
    pub(super) fn ignores_end(&self) -> bool {
        self.outlives.get()
            && self.body_done.get()
            && matches!(self.phase(), Phase::Handling | Phase::Responding)
    }

    /// Gives back the body of the request in flight, unread. The rest of a small one is read and
    /// thrown away, so that the connection can go on to the next request even if the body arrives
    /// later than its head. One that is large, has no declared end, or is not sent before the client
    /// is asked for it ends the connection.
    pub fn leave(&self, body: Incoming) {
        if !body.is_end_stream() && !self.loses_step.get() {
            self.leftover.replace(Some((self.requests(), body)));
        }
    }

    /// Throws away what has arrived of a body that nobody reads. To be called by the connection's
    /// task, which is polled again for the rest.
    pub(super) fn poll_leftover(&self, cx: &mut Context<'_>) {
        let mut slot = self.leftover.borrow_mut();
        let Some((request, body)) = &mut *slot else { return };
        let mut is_whole = true;
        while !body.is_end_stream() {
            match poll_frame(body, cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => break,
                Poll::Ready(Some(Err(_))) => {
                    is_whole = false;
                    break;
                }
            }
        }
        if *request == self.requests() {
            self.body_done.set(is_whole);
        }
        *slot = None;
    }

    /// Has `reader` woken when the request is answered: it waits for more of the body.
    pub(super) fn await_body(&self, reader: &Waker) {
        match &mut *self.reader.borrow_mut() {
            Some(known) => known.clone_from(reader),
            unknown => *unknown = Some(reader.clone()),
        }
    }

    /// The request in flight is answered, or given up: nothing more of its body is waited for.
    pub(super) fn end_request(&self) {
        self.answered.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// The connection ends without the rest of the body, also if that is left later.
    pub(super) fn give_up_body(&self) {
        self.loses_step.set(true);
        self.leftover.replace(None);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.lane.clock.now());
    }

    /// Changes the phase but not the time it is counted from.
    pub(crate) fn becomes(&self, phase: Phase) {
        self.phase.set(phase);
    }

    /// How many ticks ago the phase began.
    pub(crate) fn age(&self) -> u32 {
        self.lane.clock.now().wrapping_sub(self.since.get())
    }
}
