//! Coroutine to Rust future, Rust future to awaitable.
//!
//! # Who owns what
//!
//! A coroutine always runs inside a real `asyncio.Task` ([`TaskFactory`]), current from its first
//! line on. Its first step is taken before the call returns; its outcome is reported to a
//! [`Completion`] the moment it is known, inside the Task's context, without an extra turn
//! ([`intercept`]).
//!
//! * The Task owns the coroutine and, once that suspended, the `Completion`.
//! * The Rust side ([`CoroutineFuture`]) owns a reference to the Task and shares the slot that the
//!   `Completion` fills. Dropping it cancels the Task.
//! * A Rust future awaited from Python ([`into_awaitable`]) is owned by a Tokio task of the lane;
//!   the `asyncio.Future` that stands for it owns the abort handle: cancelling it drops the Rust
//!   future.
//!
//! # Threads
//!
//! Everything here lives on one lane. What Python objects carry of it sits in a `LaneBound`, so a
//! reference on another thread (a debugger, the garbage collector) reaches nothing.
//!
//! # Races that end well
//!
//! * The coroutine finishes after the future was dropped: the slot is closed, the outcome is
//!   discarded.
//! * The Task is cancelled while its coroutine finishes: whichever the coroutine reports first
//!   counts; a slot is filled once.
//! * The loop is closed before a Rust future completes: its Tokio task was dropped with the
//!   runtime, nothing is called.

mod awaitable;
mod completion;
mod current;
mod future;
mod listener;
mod primed;
mod task;
mod turn;

pub use awaitable::{Immediate, into_awaitable};
pub use completion::{Completion, Next};
pub use future::{CoroutineFuture, cancel, into_future, is_cancelled};
pub use listener::{intercept, was_answered};
pub use task::{Started, TaskFactory, Waiting};
pub use turn::{Turn, after_python};
