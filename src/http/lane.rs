//! The HTTP side of one lane: its connections, and what they share.
//!
//! An [`HttpLane`] belongs to the thread that made it and is reached through an `Rc`; the only
//! parts of it that other threads see are its load (an atomic that placement reads) and the limits.
//! Its methods must be called inside that thread's Tokio runtime, a local one.
//!
//! Shutdown, in order: [`HttpLane::drain`] closes what is idle, soon after it what has sent only a
//! part of a head, and lets the rest finish with `Connection: close`; [`HttpLane::wait_empty`] completes when none is left; past the deadline,
//! [`HttpLane::abort_all`] drops the rest, and with it the services' futures. Each step may be
//! taken at any time and more than once. Connections that are served after a drain has begun (they
//! were on their way from the acceptor) are answered if they have sent something and closed.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;

use super::Service;
use super::accept::Accepted;
use super::clock::Clock;
use super::connection::ConnectionTask;
use super::gather::Gathering;
use super::info::{ConnectionInfo, NEVER, Order};
use super::io::{Transport, Window};
use super::limits::{Limits, LoadTicket};
use super::pass::PassEnd;
use super::reckoning::Reckoning;
use super::spare::{SpareBuffers, SpareHeaders};
use super::sweep::{self, Registry, Ticks};
use crate::config::HttpOptions;
use crate::telemetry::{LaneMeter, RouteMeter};

/// What one read takes at most.
const SCRATCH: usize = 64 * 1024;
/// What hyper may hold of a response that the client does not take, and of a head. At least 8 KiB.
const LEAST_BUFFER: usize = 64 * 1024;
/// hyper's default, which it keeps on the stack; any number set costs an allocation a request.
const STANDARD_MAX_HEADERS: usize = 100;
/// How long a head that has begun to arrive when the lane is told to end may take: its rest is on
/// its way, or the client is too slow for this lane.
const LAST_HEADER: Duration = Duration::from_millis(250);
/// How long a closed connection goes on reading, so that the client gets to see the last answer
/// and not the reset that unread bytes would cause.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serving,
    Draining,
    Aborting,
}

/// The connections of one lane.
pub struct HttpLane {
    meter: Arc<LaneMeter>,
    options: Rc<HttpOptions>,
    limits: Arc<Limits>,
    load: Arc<AtomicUsize>,
    mode: Cell<Mode>,
    next_connection: Cell<u64>,
    is_sweeping: Cell<bool>,
    when_empty: RefCell<Vec<Waker>>,
    pub(super) spare_buffers: SpareBuffers,
    /// For the heads of plain responses, from those of requests.
    pub(super) spare_headers: SpareHeaders,
    pub(super) registry: RefCell<Registry>,
    pub(super) gathering: Gathering,
    pub(super) pass_end: PassEnd,
    pub(super) clock: Clock,
    pub(super) ticks: Ticks,
    pub(super) reckoning: Reckoning,
    /// How many connections have HTTP state, and its buffers.
    pub(super) awake: Cell<usize>,
    pub(super) scratch: RefCell<Box<[u8]>>,
    pub(super) window: Cell<Window>,
    pub(super) protocol: http1::Builder,
    /// The same for a connection that is to close after its next response.
    pub(super) last_words: http1::Builder,
}

impl std::fmt::Debug for HttpLane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpLane")
            .field("id", &self.id())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl HttpLane {
    /// A lane without connections, whose requests are counted in `routes`: the first is for those
    /// that meet none.
    #[must_use]
    pub fn new(
        meter: Arc<LaneMeter>,
        routes: Arc<[RouteMeter]>,
        options: Rc<HttpOptions>,
        limits: Arc<Limits>,
    ) -> Rc<Self> {
        let clock = Clock::resolving(options.shortest_timeout());
        let horizon = clock.ticks(options.shortest_timeout());
        let ticks = Ticks {
            header: clock.ticks(options.header_timeout),
            last_header: clock.ticks(options.header_timeout.min(LAST_HEADER)),
            keep_alive: clock.ticks(options.keep_alive_timeout),
            request: options.request_timeout.map_or(NEVER, |time| clock.ticks(time)),
            write: clock.ticks(options.write_timeout),
            hibernate: clock.ticks(options.hibernate_after),
            linger: clock.ticks(LINGER),
            horizon,
        };
        let protocol = protocol(&options);
        let mut last_words = protocol.clone();
        last_words.keep_alive(false);
        let reckoning = Reckoning::new(meter.clone(), routes);
        Rc::new(Self {
            meter,
            options,
            limits,
            load: Arc::new(AtomicUsize::new(0)),
            mode: Cell::new(Mode::Serving),
            next_connection: Cell::new(0),
            is_sweeping: Cell::new(false),
            when_empty: RefCell::new(Vec::new()),
            spare_buffers: SpareBuffers::default(),
            spare_headers: SpareHeaders::default(),
            registry: RefCell::new(Registry::default()),
            gathering: Gathering::default(),
            pass_end: PassEnd::default(),
            clock,
            ticks,
            reckoning,
            awake: Cell::new(0),
            scratch: RefCell::new(vec![0; SCRATCH].into_boxed_slice()),
            window: Cell::new(Window::default()),
            protocol,
            last_words,
        })
    }

    /// The lane's number.
    #[must_use]
    pub fn id(&self) -> usize {
        self.meter.index
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &HttpOptions {
        &self.options
    }

    /// How many connections are placed here, those on their way included. Any thread may read it;
    /// [`Accepted::place_on`] counts.
    #[must_use]
    pub fn load(&self) -> &Arc<AtomicUsize> {
        &self.load
    }

    /// What is counted of the lane.
    #[must_use]
    pub fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.registry.borrow().len()
    }

    /// Whether the lane is on its way to its end.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.mode.get() != Mode::Serving
    }

    /// Serves a connection from here on, in a task of its own.
    pub fn serve<S: Service>(self: &Rc<Self>, accepted: Accepted, service: &Rc<S>) {
        let Accepted { socket, peer, permit, ticket } = accepted;
        if self.mode.get() == Mode::Aborting {
            return;
        }
        let ticket = ticket.unwrap_or_else(|| LoadTicket::take(&self.load));
        // The request is often there already; then the reactor need not be asked.
        let prefix = {
            self.give_up_window(None);
            let mut scratch = self.scratch.borrow_mut();
            match socket.read_waiting(&mut scratch) {
                Ok(0) => return,
                Ok(read) => Bytes::copy_from_slice(&scratch[..read]),
                Err(error) if is_not_yet(&error) => Bytes::new(),
                Err(_) => return,
            }
        };
        self.meter.bytes_received.add(prefix.len() as u64);
        let stream = match socket.register() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(target: "treadle", %error, "a connection could not be registered");
                return;
            }
        };
        self.meter.connections.add(1);
        self.meter.open.add(1);
        let id = self.next_connection.replace(self.next_connection.get() + 1);
        let info = Rc::new(ConnectionInfo::new(id, peer, Rc::clone(self)));
        let transport = Rc::new(Transport::new(info, stream, prefix));
        let due = self.clock.now().wrapping_add(self.ticks.horizon);
        let key = self.registry.borrow_mut().insert(&transport, due);
        transport.info.key.set(key);
        let task = ConnectionTask::new(transport, Rc::clone(service), permit, ticket);
        tokio::task::spawn_local(task);
        if !self.is_sweeping.replace(true) {
            tokio::task::spawn_local(sweep::run(Rc::clone(self)));
        }
    }

    /// Closes the connections that have no request, tells the others to close after theirs.
    pub fn drain(&self) {
        if self.mode.get() == Mode::Serving {
            self.mode.set(Mode::Draining);
        }
        self.registry.borrow().wake_all();
    }

    /// Drops what is left: sockets are closed, the services' futures dropped. Takes effect at the
    /// next turn of the runtime; [`wait_empty`](Self::wait_empty) says when it has.
    pub fn abort_all(&self) {
        self.mode.set(Mode::Aborting);
        self.registry.borrow().give_order_to_all(Order::Close);
    }

    /// Completes when no connection is open.
    pub fn wait_empty(self: &Rc<Self>) -> impl Future<Output = ()> + use<> {
        let lane = Rc::clone(self);
        poll_fn(move |cx| {
            if lane.open() == 0 {
                return Poll::Ready(());
            }
            let mut wakers = lane.when_empty.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn mode(&self) -> Mode {
        self.mode.get()
    }

    pub(super) fn horizon(&self) -> u32 {
        self.ticks.horizon
    }

    /// How many ticks a request may take until its response starts.
    pub(super) fn patience(&self) -> u32 {
        self.ticks.request
    }

    /// Has the next sweep look at a connection.
    pub(super) fn look_soon(&self, key: usize) {
        let due = self.clock.now().wrapping_add(1);
        self.registry.borrow_mut().look_by(key, due);
    }

    /// A connection's task has ended.
    pub(super) fn forget(&self, key: usize) {
        let removed = self.registry.borrow_mut().remove(key);
        if removed.is_some() {
            self.meter.open.sub(1);
        }
        drop(removed);
        if self.open() == 0 {
            self.gathering.wake();
            self.pass_end.wake();
            for waker in self.when_empty.take() {
                waker.wake();
            }
        }
    }

    /// Whether the sweep may end. If so, the next connection starts another.
    pub(super) fn ends_sweeping(&self) -> bool {
        let ends = self.open() == 0;
        if ends {
            self.is_sweeping.set(false);
        }
        ends
    }
}

fn is_not_yet(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn protocol(options: &HttpOptions) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .header_read_timeout(None)
        .max_header_size(options.max_header_bytes)
        .max_buf_size(options.max_header_bytes.max(LEAST_BUFFER));
    if options.max_headers != STANDARD_MAX_HEADERS {
        builder.max_headers(options.max_headers);
    }
    builder
}
