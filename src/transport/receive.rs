//! One reception: from the socket into what the protocol gets.
//!
//! A reception that does not fill its buffer has nearly always emptied the socket, and what comes
//! then is a new event of the reactor. Not so where urgent data stands, which the reactor tells of,
//! and where a Unix socket has descriptors or credentials for us, which the system mentions when it
//! leaves them out: behind these there may be more, without another event. Then only a call that
//! would block shows that the socket is empty.

use std::cell::RefCell;
use std::io;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::core::{TransportCore, note};
use super::state::State;
use crate::python::socket::{Buffer, SocketFd, os_error};

/// What a connection that receives is registered for.
pub(super) const READS: Interest = Interest::READABLE.add(Interest::PRIORITY);

/// The most that is received at once, in bytes, as in asyncio.
const LARGEST: usize = 256 * 1024;

/// From so many bytes on a reception goes into an object of the size of the one before: messages,
/// and pieces of a long one, are often of one size. Below, the copy is not worth the second look.
const WORTH_EXPECTING: usize = 16 * 1024;

thread_local! {
    /// Where a lane receives what is small, or more than expected, before it knows how much: a copy
    /// into an object of the right size costs less than making a large one smaller.
    static SPACE: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGEST].into_boxed_slice());
}

const READ_FAILED: &str = "Fatal read error on socket transport";

type Guard<'a> = AsyncFdReadyGuard<'a, SocketFd>;

/// How a protocol takes what arrives.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Kind {
    /// `data_received(bytes)`.
    #[default]
    Plain,
    /// `get_buffer` and `buffer_updated`: `asyncio.BufferedProtocol`.
    Buffered,
}

impl Kind {
    pub(super) fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        static BUFFERED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        static TLS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = protocol.py();
        let buffered = BUFFERED.import(py, "asyncio", "BufferedProtocol")?;
        if !protocol.is_instance(buffered)? {
            return Ok(Self::Plain);
        }
        // Made to take bytes as well: they need no buffer that lasts.
        let tls = TLS.import(py, "treadle.tls", "TlsProtocol")?;
        Ok(if protocol.is_instance(tls)? { Self::Plain } else { Self::Buffered })
    }
}

/// Receives once and tells the protocol.
///
/// # Errors
/// Only what has to end the loop; others end the connection.
pub(super) fn receive(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    guard: Guard<'_>,
) -> PyResult<()> {
    let Some(protocol) = state.protocol(transport.py()) else {
        return Ok(());
    };
    match state.kind.get() {
        Kind::Plain => receive_bytes(transport, state, guard, &protocol),
        Kind::Buffered => receive_into(transport, state, guard, &protocol),
    }
}

fn receive_bytes(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    guard: Guard<'_>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let expected = state.received.get();
    let received = SPACE.with_borrow_mut(|space| {
        if expected >= WORTH_EXPECTING {
            let bytes = state.socket.recv_bytes(py, expected, &mut space[..LARGEST - expected])?;
            Ok((bytes, state.is_unix))
        } else if state.is_unix {
            let (size, is_cut) = state.socket.recv_part(space)?;
            Ok((PyBytes::new(py, &space[..size]), is_cut))
        } else {
            let size = state.socket.recv(space)?;
            Ok((PyBytes::new(py, &space[..size]), false))
        }
    });
    let size = received.as_ref().map_or(0, |(bytes, _)| bytes.as_bytes().len());
    let may_be_cut = received.as_ref().is_ok_and(|(_, is_cut)| *is_cut);
    let left = Left::of(size, LARGEST, may_be_cut);
    let Some((data, _)) = settle(transport, guard, received, left)? else {
        return Ok(());
    };
    if size == 0 {
        return end(transport, state, protocol);
    }
    state.received.set(size);
    match protocol.call_method1(intern!(py, "data_received"), (data,)) {
        Ok(_) => Ok(()),
        Err(error) => TransportCore::fail(
            transport,
            error,
            "Fatal error: protocol.data_received() call failed.",
        ),
    }
}

fn receive_into(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    guard: Guard<'_>,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    let buffer = protocol.call_method1(intern!(py, "get_buffer"), (-1,)).and_then(|lent| {
        let buffer = Buffer::of(&lent, true)?;
        if buffer.is_empty() {
            return Err(PyRuntimeError::new_err("get_buffer() returned an empty buffer"));
        }
        Ok(buffer)
    });
    let buffer = match buffer {
        Ok(buffer) => buffer,
        Err(error) => {
            let message = "Fatal error: protocol.get_buffer() call failed.";
            return TransportCore::fail(transport, error, message);
        }
    };
    let received = state.socket.recv_into(&buffer);
    let left = Left::of(received.as_ref().map_or(0, |size| *size), buffer.len(), state.is_unix);
    // Given back before the protocol sees it: it may resize what it lent.
    drop(buffer);
    let Some(size) = settle(transport, guard, received, left)? else {
        return Ok(());
    };
    // Lending, it may have put another into its place.
    let Some(protocol) = &state.protocol(py) else {
        return Ok(());
    };
    if size == 0 {
        return end(transport, state, protocol);
    }
    match protocol.call_method1(intern!(py, "buffer_updated"), (size,)) {
        Ok(_) => Ok(()),
        Err(error) => TransportCore::fail(
            transport,
            error,
            "Fatal error: protocol.buffer_updated() call failed.",
        ),
    }
}

/// What a reception left in the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Nothing, if no urgent data ended it.
    Nothing,
    /// Nobody knows.
    Perhaps,
}

impl Left {
    /// After `size` bytes where there was room for `capacity`.
    fn of(size: usize, capacity: usize, may_be_cut: bool) -> Self {
        if size < capacity && !may_be_cut { Self::Nothing } else { Self::Perhaps }
    }
}

/// Tells the reactor what a reception showed; gives what was received, if the call succeeded.
fn settle<T>(
    transport: &Bound<'_, TransportCore>,
    mut guard: Guard<'_>,
    received: io::Result<T>,
    left: Left,
) -> PyResult<Option<T>> {
    match received {
        Ok(received) => {
            if left == Left::Nothing && !has_urgent(guard.get_ref()) {
                guard.clear_ready();
            }
            Ok(Some(received))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            forget_urgent(guard.get_ref());
            guard.clear_ready();
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => {
            TransportCore::fail(transport, os_error(transport.py(), error), READ_FAILED)?;
            Ok(None)
        }
    }
}

/// Whether the reactor told of urgent data since the socket was last seen empty.
fn has_urgent(registration: &AsyncFd<SocketFd>) -> bool {
    registration.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
}

/// What the reactor told of is behind us.
fn forget_urgent(registration: &AsyncFd<SocketFd>) {
    let seen: io::Result<()> =
        registration.try_io(Interest::PRIORITY, |_| Err(io::ErrorKind::WouldBlock.into()));
    drop(seen);
}

/// The peer sent its end.
fn end(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    protocol: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = transport.py();
    note(transport, state, "%r received EOF")?;
    match protocol.call_method0(intern!(py, "eof_received")) {
        Ok(keep_open) if keep_open.is_truthy()? => {
            state.read_ended.set(true);
            Ok(())
        }
        Ok(_) => transport.call_method0(intern!(py, "close")).map(drop),
        Err(error) => {
            let message = "Fatal error: protocol.eof_received() call failed.";
            TransportCore::fail(transport, error, message)
        }
    }
}
