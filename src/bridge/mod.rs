//! Coroutine to Rust future, Rust future to awaitable.
//!
//! | from | to | by |
//! |---|---|---|
//! | anything Python awaits | a future on the same thread | [`into_future`] |
//! | the same | a future on any thread | [`LaneHandle::into_future`], [`LaneHandle::spawn`] |
//! | a Rust future | an awaitable | [`into_awaitable`] |
//! | a Rust future | a Task that runs at once | [`spawn`] |
//! | an asynchronous iterator | a [`Stream`](futures_util::Stream) | [`into_stream`] |
//! | a stream | an asynchronous iterator | [`into_async_iterator`] |
//!
//! In every direction dropping one side cancels the other, `ContextVar`s are those of the code that
//! made the call, exceptions keep their traceback, and a panic is a `RuntimeError` in the coroutine
//! that awaits: the lane lives on.
//!
//! # Who owns what
//!
//! Each loop has a [`Home`] on its thread. A lane's home is entered while its loop runs; any other
//! asyncio loop is given one when it first meets the bridge, so everything here works on those too,
//! at the price of a `call_soon_threadsafe` for a wake-up.
//!
//! A coroutine always runs inside a real `asyncio.Task` ([`TaskFactory`]), current from its first
//! line on. Its first step is taken before the call returns; its outcome is reported to a
//! [`Completion`] the moment it is known, inside the Task's context, without an extra turn
//! ([`intercept`]).
//!
//! * The Task owns the coroutine and, once it steps that itself, the `Completion`. A coroutine that
//!   gives way or waits for a future is stepped by the lane, which then has both (`in_lane`).
//! * The Rust side ([`CoroutineFuture`]) owns a reference to the Task and shares the slot that the
//!   `Completion` fills. Dropping it cancels the Task.
//! * A Rust future awaited from Python is owned by its awaitable and polled by the awaiting Task
//!   ([`RustAwaitable`]).
//!
//! # Threads
//!
//! What belongs to a lane is reached on its thread only. Objects that may travel carry it in a box
//! that refuses other threads and goes home to be dropped (`homebound`). Other threads put letters
//! into the home's [`Mailbox`]; a lane that is awake finds them without a system call.
//!
//! # Races that end well
//!
//! * The coroutine finishes after the future was dropped: the slot is closed, the outcome is
//!   discarded.
//! * The Task is cancelled while its coroutine finishes: whichever the coroutine reports first
//!   counts; a slot is filled once.
//! * The loop is closed before a Rust future completes: its wake-up is refused, nothing is called.
//! * The interpreter goes down: a thread that is not a lane's does not attach any more, and what it
//!   had to say is dropped.

mod awaitable;
mod completion;
mod current;
mod eager;
mod factory;
mod foreign;
mod future;
mod home;
mod homebound;
mod in_lane;
mod lane_wakeup;
mod listener;
mod mailbox;
mod primed;
mod probing;
mod remote;
mod scope;
mod signal;
mod spawn;
mod start;
mod stream;
mod task;
mod thread_end;
mod waiting;

use pyo3::prelude::*;
use pyo3::types::PyType;

pub use awaitable::{RustAwaitable, into_awaitable};
pub use completion::{Completion, Next, own};
pub use current::current_context;
pub use factory::TaskFactory;
pub use future::{CoroutineFuture, cancel, into_future, is_cancelled};
pub use home::{AtHome, Home, after_python, thread_name};
pub use in_lane::{ReadyQueue, Resumption};
pub use lane_wakeup::LaneWakeup;
pub use listener::{intercept, was_answered};
pub use mailbox::Mailbox;
pub use remote::{LaneHandle, RemoteFuture};
pub use scope::Scope;
pub use spawn::spawn;
pub use stream::{PyStream, RustStream, into_async_iterator, into_stream};
pub use waiting::Waiting;

/// The classes of the objects that the bridge makes for itself, which no module names.
pub fn classes(py: Python<'_>) -> [Bound<'_, PyType>; 8] {
    [
        py.get_type::<LaneWakeup>(),
        py.get_type::<RustAwaitable>(),
        py.get_type::<RustStream>(),
        py.get_type::<foreign::CloseNotice>(),
        py.get_type::<listener::Listener>(),
        py.get_type::<primed::Primed>(),
        py.get_type::<start::Report>(),
        py.get_type::<stream::Put>(),
    ]
}
