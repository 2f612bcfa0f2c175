//! Stream transports: TCP and Unix connections of a lane's event loop.
//!
//! A connection is a Tokio task of the lane ([`connection`]): it waits for its socket in Tokio's
//! reactor, receives, calls the protocol in place and sends what that wrote, without a turn of the
//! Python side in between. What other code of a turn writes is gathered and sent in one system
//! call when the turn is over ([`outbox`]).
//!
//! # Who owns what
//!
//! * The Python socket owns the descriptor. The transport holds the socket, and counts among its
//!   users (`_io_refs`), so that a `close()` of the user's waits for `connection_lost`. A closing
//!   transport first leaves the reactor, then closes the socket: the number is reused only when
//!   nothing here knows it any more.
//! * `treadle.transports.SocketTransport` is [`TransportCore`] with what happens at most a few
//!   times in the life of a connection: addresses, errors, the end. The core keeps the state, in a
//!   `LaneBound`: only the lane's thread reads and writes it.
//! * The task owns a reference to the transport, given up with `connection_lost`; the runtime owns
//!   the task. A loop that is closed with connections open drops both, and the transport warns as
//!   asyncio's does.
//!
//! # Races that end well
//!
//! All of it is one thread's; what overlaps are calls *into* the transport out of calls it makes
//! into Python. No borrow is held over such a call, and after each the state is read anew: a
//! protocol may close, pause or replace itself in any callback.
//!
//! # What is asyncio's
//!
//! Order, messages and exceptions are those of `asyncio.selector_events`. The one difference is
//! *when* bytes are handed to the system: at the end of the turn that wrote them, or at once when
//! a protocol would otherwise be paused, and before a transport is closed or its loop stops.

mod connection;
mod core;
mod outbox;
mod outgoing;
mod receive;
mod state;
mod writing;

pub use core::TransportCore;
pub use outbox::Outbox;

use pyo3::prelude::*;

use crate::python::method::add_method;

/// Gives the transport's class `write`; once, when the module is made.
///
/// # Errors
/// `MemoryError`.
pub fn add_write(py: Python<'_>) -> PyResult<()> {
    add_method::<writing::Write>(&py.get_type::<TransportCore>())
}
