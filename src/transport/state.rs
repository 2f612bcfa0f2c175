//! All that changes in the life of a connection.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;

use pyo3::prelude::*;
use tokio::io::unix::AsyncFd;

use super::connection::Holder;
use super::core::TransportCore;
use super::outbox::Waiting;
use super::outgoing::Outgoing;
use super::receive::Kind;
use crate::lane::LoopCore;
use crate::python::socket::SocketFd;

/// asyncio's default water marks, in bytes.
const HIGH_WATER: usize = 64 * 1024;
const LOW_WATER: usize = HIGH_WATER / 4;

/// What a connection has of Python's.
pub(super) struct Left {
    pub(super) event_loop: Option<Py<PyAny>>,
    pub(super) protocol: Option<Py<PyAny>>,
    pub(super) context: Option<Py<PyAny>>,
}

/// The state of a connection; its thread's alone.
pub(super) struct State {
    pub(super) socket: SocketFd,
    /// Of a Unix socket: see [`super::receive`].
    pub(super) is_unix: bool,
    pub(super) outbox: Rc<Waiting>,
    /// What the protocol's callbacks run in: a copy of the context of the transport's creation.
    /// Taken with `connection_lost`, like loop and protocol.
    pub(super) context: RefCell<Option<Py<PyAny>>>,
    pub(super) event_loop: RefCell<Option<Py<PyAny>>>,
    pub(super) protocol: RefCell<Option<Py<PyAny>>>,
    pub(super) kind: Cell<Kind>,
    /// Bytes of the last reception.
    pub(super) received: Cell<usize>,
    pub(super) outgoing: RefCell<Outgoing>,
    /// The socket in the reactor, from the start to `connection_lost`.
    pub(super) registration: RefCell<Option<Rc<AsyncFd<SocketFd>>>>,
    /// The connection's task, while it lives.
    pub(super) waker: RefCell<Option<Waker>>,
    pub(super) holder: RefCell<Weak<Holder>>,
    /// `close` or worse was called: nothing is received any more.
    pub(super) closing: Cell<bool>,
    pub(super) paused: Cell<bool>,
    /// The peer sent its end and the protocol keeps its own side open.
    pub(super) read_ended: Cell<bool>,
    /// `write_eof` was called.
    pub(super) eof: Cell<bool>,
    /// The protocol was told to pause writing.
    pub(super) protocol_paused: Cell<bool>,
    /// Nothing may be written but by `sendfile`.
    pub(super) sending_file: Cell<bool>,
    /// Not 0 once `connection_lost` is scheduled; then counts the writes that came too late.
    pub(super) lost: Cell<u32>,
    /// The system takes nothing now; the connection's task waits until it does.
    pub(super) blocked: Cell<bool>,
    /// Registered for room to write, too.
    pub(super) watches_room: Cell<bool>,
    /// In the outbox.
    pub(super) gathered: Cell<bool>,
    /// The task is in a callback and sends after it.
    pub(super) receiving: Cell<bool>,
    pub(super) high_water: Cell<usize>,
    pub(super) low_water: Cell<usize>,
}

impl State {
    /// Of a connection that has not begun.
    pub(super) fn new(
        socket: SocketFd,
        is_unix: bool,
        outbox: Rc<Waiting>,
        context: Py<PyAny>,
        event_loop: Py<PyAny>,
    ) -> Self {
        Self {
            socket,
            is_unix,
            outbox,
            context: RefCell::new(Some(context)),
            event_loop: RefCell::new(Some(event_loop)),
            protocol: RefCell::default(),
            kind: Cell::default(),
            received: Cell::default(),
            outgoing: RefCell::default(),
            registration: RefCell::default(),
            waker: RefCell::default(),
            holder: RefCell::default(),
            closing: Cell::default(),
            paused: Cell::default(),
            read_ended: Cell::default(),
            eof: Cell::default(),
            protocol_paused: Cell::default(),
            sending_file: Cell::default(),
            lost: Cell::default(),
            blocked: Cell::default(),
            watches_room: Cell::default(),
            gathered: Cell::default(),
            receiving: Cell::default(),
            high_water: Cell::new(HIGH_WATER),
            low_water: Cell::new(LOW_WATER),
        }
    }

    /// Whether the connection's task is to receive.
    pub(super) fn reads(&self) -> bool {
        !self.closing.get() && !self.paused.get() && !self.read_ended.get()
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The protocol; `None` once the connection is lost.
    pub(super) fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.protocol.borrow().as_ref().map(|protocol| protocol.bind(py).clone())
    }

    pub(super) fn event_loop<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.event_loop.borrow().as_ref().map(|event_loop| event_loop.bind(py).clone())
    }

    /// What callbacks run in; `None` once the connection is lost.
    pub(super) fn context<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.context.borrow().as_ref().map(|context| context.bind(py).clone())
    }

    /// Takes out what belongs to Python, to be dropped or kept elsewhere with nothing borrowed: its
    /// destructors may come back here.
    pub(super) fn take_python(&self) -> Left {
        Left {
            event_loop: self.event_loop.borrow_mut().take(),
            protocol: self.protocol.borrow_mut().take(),
            context: self.context.borrow_mut().take(),
        }
    }

    /// Leaves the reactor; what is given back keeps the transport alive.
    #[must_use = "its drop may run Python code"]
    pub(super) fn leave_reactor(&self) -> Option<Py<TransportCore>> {
        self.registration.replace(None);
        let held = self.holder.borrow().upgrade().and_then(|holder| holder.take());
        // Not kept: it has hold of the runtime, and so of its descriptors.
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        held
    }

    /// Whether asyncio's debug mode is on.
    pub(super) fn is_debugging(&self, py: Python<'_>) -> bool {
        self.event_loop.borrow().as_ref().is_some_and(|event_loop| {
            event_loop.bind(py).cast::<LoopCore>().is_ok_and(|core| core.get().is_debugging())
        })
    }
}
