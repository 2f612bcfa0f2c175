//! One connection, from its first byte to its last: the task that drives it.
//!
//! The task is in one of three states:
//!
//! 1. **Asleep**: a socket and nothing else. So it starts, and so it is again after a second
//!    without a request; hyper's two 8 KiB buffers exist only for connections that do something.
//!    The first byte wakes it.
//! 2. **Awake**: hyper drives it. Services run inside its poll, so a request that can be answered
//!    at once is answered in the same poll.
//! 3. **Closing**: the last bytes and the end of the stream are sent, and what the client still
//!    sends is read and thrown away for a while: closing a socket with unread bytes resets it, and
//!    the reset can overtake the answer.
//!
//! Who ends it: hyper (the client left, `Connection: close`, a head that does not parse), the sweep
//! by an [`Order`], a drain, or the drop of the runtime. Each ends in the drop of the task, which
//! drops hyper, which drops the service's future, which is how a handler is cancelled; there is no
//! other way out, so the places in the limits and in the lane's table are given back exactly once. A
//! client of HTTP/1.0 whose answer that cuts is told by a reset.
//!
//! **The client leaves** while a request is handled: hyper reads while it waits, sees the end and
//! fails. It does not read while a further request waits in its buffer, or while the service leaves
//! the body unread; then the sweep looks for the end every tick. The end of what a client sends is
//! taken for its leaving, since nothing tells one from the other, except where the service answers
//! regardless ([`ConnectionInfo::outlive_client`](super::ConnectionInfo::outlive_client)): there the
//! end is kept from hyper until the answer is made.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::StatusCode;
use hyper::server::conn::http1;

use super::Service;
use super::access;
use super::check::{names_version, request_line};
use super::exchange::Adapter;
use super::gather::Gathering;
use super::info::{Order, Phase};
use super::io::{Io, Transport};
use super::lane::Mode;
use super::limits::{ConnectionPermit, LoadTicket};
use super::pass::PassEnd;
use super::problem;
use super::quiet::Quiet;

/// With more connections awake than this, one that has made a single request goes to sleep right
/// after it: many clients connect, ask once and stay, and the buffers of a burst of them would
/// outlive the burst in the allocator's hands.
const AWAKE_FREELY: usize = 64;

type Hyper<S> = http1::Connection<Io, Adapter<S>>;

enum State<S: Service> {
    Asleep,
    Awake(Box<Hyper<S>>),
    Closing(Linger),
}

/// How long to go on reading once the end is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Linger {
    /// Not at all, and the end is a reset: nothing else tells the client that it got only a part.
    Reset,
    /// Not at all: the client has sent its end, or can tell that it got only a part.
    No,
    /// Only if there is something to read.
    IfUnread,
    /// Until the client closes, or too long.
    UntilClosed,
}

/// What the task does next.
enum Next {
    /// Goes on in the state that it has been put in.
    Continue,
    /// Nothing remains to be done.
    End,
}

/// The future of one connection.
pub(crate) struct ConnectionTask<S: Service> {
    transport: Rc<Transport>,
    service: Rc<S>,
    state: State<S>,
    is_draining: bool,
    /// The task's own waker, and the one that hyper gets of it; while hyper is there.
    wakers: Option<(Waker, Waker)>,
    _permit: ConnectionPermit,
    _ticket: LoadTicket,
}

impl<S: Service> ConnectionTask<S> {
    pub(crate) fn new(
        transport: Rc<Transport>,
        service: Rc<S>,
        permit: ConnectionPermit,
        ticket: LoadTicket,
    ) -> Self {
        Self {
            transport,
            service,
            state: State::Asleep,
            is_draining: false,
            wakers: None,
            _permit: permit,
            _ticket: ticket,
        }
    }

    fn obey(&mut self, order: Order) -> Next {
        let info = &self.transport.info;
        match order {
            Order::None => {}
            // What came while the lane was busy has not been read yet, and may be a request: who sent
            // it in time could not know that nobody would answer.
            Order::EndIdle
                if info.phase() != Phase::Idle
                    || (info.body_done.get() && self.transport.has_unread()) => {}
            Order::EndIdle | Order::Close => return Next::End,
            Order::GiveUp => info.expired.set(true),
            // In the middle of an earlier response there is no place for another.
            Order::RefuseHead if self.transport.is_write_blocked() => return Next::End,
            Order::RefuseHead => {
                self.refuse_head(StatusCode::REQUEST_TIMEOUT, "");
                self.close(Linger::UntilClosed);
            }
            Order::Hibernate => {
                if info.phase() == Phase::Idle && self.can_rest() {
                    self.rest();
                }
            }
        }
        Next::Continue
    }

    /// Whether hyper's state can be thrown away: it owes the client nothing and expects a head.
    fn can_rest(&self) -> bool {
        let info = &self.transport.info;
        matches!(self.state, State::Awake(_))
            && matches!(info.phase(), Phase::New | Phase::Idle | Phase::Head)
            && info.body_done.get()
            && !self.transport.is_write_blocked()
    }

    /// The only way to change the state: the lane knows how many are awake.
    fn change_state(&mut self, state: State<S>) -> State<S> {
        let is_awake = matches!(state, State::Awake(_));
        let before = std::mem::replace(&mut self.state, state);
        let was_awake = matches!(before, State::Awake(_));
        let awake = &self.transport.info.lane.awake;
        awake.set(awake.get() + usize::from(is_awake) - usize::from(was_awake));
        before
    }

    fn rest(&mut self) {
        let State::Awake(hyper) = self.change_state(State::Asleep) else { return };
        let unparsed = hyper.into_parts().read_buf;
        self.wakers = None;
        let info = &self.transport.info;
        info.asleep.set(true);
        if !unparsed.is_empty() {
            // The start of a head, sent behind an earlier request.
            info.becomes(Phase::Head);
            self.transport.unread(unparsed);
        }
        self.transport.forget_head();
    }

    fn wake_up(&mut self) {
        let info = &self.transport.info;
        let lane = &info.lane;
        let builder = if self.is_draining { &lane.last_words } else { &lane.protocol };
        let adapter =
            Adapter { service: Rc::clone(&self.service), transport: Rc::clone(&self.transport) };
        let hyper = builder.serve_connection(Io(Rc::clone(&self.transport)), adapter);
        self.change_state(State::Awake(Box::new(hyper)));
        let info = &self.transport.info;
        if info.asleep.replace(false) {
            // Its next look may be as far off as a sleeper's.
            info.lane.look_soon(info.key.get());
        }
    }

    fn begin_drain(&mut self) {
        self.is_draining = true;
        let info = &self.transport.info;
        if matches!(info.phase(), Phase::New | Phase::Head) {
            // The moment that it has left for the rest of the head begins now.
            info.enter(info.phase());
            info.lane.look_soon(info.key.get());
        }
        if self.can_rest() {
            // What the client sent before it could know is still read, and answered.
            self.rest();
        } else if let State::Awake(hyper) = &mut self.state {
            Pin::new(&mut **hyper).graceful_shutdown();
        }
    }

    fn close(&mut self, linger: Linger) {
        self.transport.info.enter(Phase::Closing);
        self.transport.info.lane.look_soon(self.transport.info.key.get());
        self.change_state(State::Closing(linger));
    }

    fn poll_asleep(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.transport.has_prefix() {
            match self.transport.poll_read_scratch(cx) {
                Poll::Pending if self.is_draining && !self.transport.has_unread() => {
                    return Poll::Ready(Next::End);
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(read)) => {
                    let scratch = self.transport.info.lane.scratch.borrow();
                    self.transport.unread(Bytes::copy_from_slice(&scratch[..read]));
                }
            }
        }
        self.wake_up();
        Poll::Ready(Next::Continue)
    }

    fn poll_awake(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let State::Awake(hyper) = &mut self.state else { return Poll::Ready(Next::Continue) };
        self.wakers.take_if(|(own, _)| !own.will_wake(cx.waker()));
        let made = || (cx.waker().clone(), Quiet::of(cx.waker()));
        let (_, quiet) = self.wakers.get_or_insert_with(made);
        let cx = &mut Context::from_waker(quiet);
        let transport = &self.transport;
        // What was gathered before goes first.
        if transport.is_write_blocked() && matches!(transport.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(Next::End);
        }
        match Pin::new(&mut **hyper).poll(cx) {
            Poll::Pending => {
                let info = &transport.info;
                info.poll_leftover(cx);
                if transport.may_wait() {
                    Gathering::hold(&info.lane, transport);
                } else if transport.may_join_pass() && PassEnd::hold(&info.lane, transport) {
                    // Sent when all that is ready has been served.
                } else if matches!(transport.poll_flush(cx), Poll::Ready(Err(_))) {
                    return Poll::Ready(Next::End);
                }
                let is_busy = matches!(info.phase(), Phase::Handling | Phase::Responding);
                if is_busy && !transport.is_read_waiting() {
                    info.lane.look_soon(info.key.get());
                    transport.want_received();
                }
                let is_one_of_many = info.requests() == 1 && info.lane.awake.get() > AWAKE_FREELY;
                if is_one_of_many && info.phase() == Phase::Idle && self.can_rest() {
                    self.rest();
                    return Poll::Ready(Next::Continue);
                }
                Poll::Pending
            }
            Poll::Ready(result) => {
                let linger = self.verdict(result);
                self.close(linger);
                Poll::Ready(Next::Continue)
            }
        }
    }

    /// Answers a request of which there is no head that could be served.
    fn refuse_head(&self, status: StatusCode, date: &str) {
        self.transport.push(&problem::raw(status, date));
        let info = &self.transport.info;
        if info.lane.options().access_log {
            access::emit_refusal(info, status, problem::standard_body(status).len());
        }
    }

    /// hyper has refused a head. Its own answer says no more than the status, and so is replaced.
    fn refuse_unparsed(&mut self, error: &hyper::Error) {
        let head = match self.change_state(State::Closing(Linger::No)) {
            State::Awake(hyper) => hyper.into_parts().read_buf,
            _ => Bytes::new(),
        };
        if error.is_parse_version_h2() {
            // The only one that it does not answer.
            self.refuse_head(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "");
        } else if let Some((status, date)) = self.transport.take_refusal() {
            let most = self.transport.info.lane.options().max_header_bytes;
            let status = match status {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                    if request_line(&head).len() >= most =>
                {
                    StatusCode::URI_TOO_LONG
                }
                // The text is all that hyper tells. What is left of a head that it refuses for something
                // else may be its body.
                StatusCode::BAD_REQUEST
                    if error.to_string() == "invalid HTTP version parsed"
                        && names_version(&head) =>
                {
                    StatusCode::HTTP_VERSION_NOT_SUPPORTED
                }
                status => status,
            };
            self.refuse_head(status, &date);
        }
    }

    /// What hyper's end means for the socket.
    fn verdict(&mut self, result: hyper::Result<()>) -> Linger {
        if let Err(error) = &result
            && error.is_parse()
        {
            self.refuse_unparsed(error);
        }
        let transport = &self.transport;
        match result {
            _ if transport.has_read_ended() => Linger::No,
            Ok(()) if transport.info.body_done.get() => Linger::IfUnread,
            Ok(()) => Linger::UntilClosed,
            Err(error) if error.is_parse() => Linger::UntilClosed,
            Err(error) => {
                // An aborted body. The missing last chunk tells the client; a client of HTTP/1.0
                // knows no chunks.
                if error.is_user() && transport.info.is_http10.get() {
                    Linger::Reset
                } else {
                    Linger::No
                }
            }
        }
    }

    fn poll_closing(&mut self, linger: Linger, cx: &mut Context<'_>) -> Poll<Next> {
        if linger == Linger::Reset {
            self.transport.reset_on_close();
            return Poll::Ready(Next::End);
        }
        if ready!(self.transport.poll_shutdown(cx)).is_err() || linger == Linger::No {
            return Poll::Ready(Next::End);
        }
        let mut linger = linger;
        loop {
            match self.transport.poll_read_scratch(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => linger = Linger::UntilClosed,
                Poll::Pending if linger == Linger::IfUnread => return Poll::Ready(Next::End),
                Poll::Pending => {
                    self.state = State::Closing(linger);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: Service> Future for ConnectionTask<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.transport.begin_poll(cx);
        this.transport.info.lane.meter().polls.add(1);
        let polled = this.poll_states(cx);
        this.transport.settle();
        polled
    }
}

impl<S: Service> ConnectionTask<S> {
    fn poll_states(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let this = self;
        match this.transport.info.lane.mode() {
            Mode::Serving => {}
            Mode::Draining if this.is_draining => {}
            Mode::Draining => this.begin_drain(),
            Mode::Aborting => return Poll::Ready(()),
        }
        let order = this.transport.info.order.replace(Order::None);
        if matches!(this.obey(order), Next::End) {
            return Poll::Ready(());
        }
        loop {
            let next = match this.state {
                State::Asleep => ready!(this.poll_asleep(cx)),
                State::Awake(_) => ready!(this.poll_awake(cx)),
                State::Closing(linger) => ready!(this.poll_closing(linger, cx)),
            };
            if matches!(next, Next::End) {
                return Poll::Ready(());
            }
        }
    }
}

impl<S: Service> Drop for ConnectionTask<S> {
    fn drop(&mut self) {
        let info = &self.transport.info;
        let is_cut = info.phase() == Phase::Responding || self.transport.is_write_blocked();
        if is_cut && info.is_http10.get() {
            // Nothing else tells such a client that the end of the connection is not that of its answer.
            self.transport.reset_on_close();
        }
        // The service's future first: what it does when it is dropped may still look at the lane.
        self.change_state(State::Closing(Linger::No));
        let info = &self.transport.info;
        info.lane.gathering.release(&self.transport);
        info.lane.pass_end.release(&self.transport);
        info.give_up_body();
        self.transport.settle_all();
        info.lane.forget(info.key.get());
    }
}
