//! The fence: every `unsafe` block of the crate is in this folder.
//!
//! Each file wraps one raw mechanism of CPython behind safe functions. The layers above see only
//! typed values and `Python<'py>` tokens:
//!
//! * [`park`] detaches a lane's thread from the interpreter while Tokio sleeps;
//! * [`thread_end`] has a thread that is at work when the interpreter ends wait for the process's end;
//! * [`call`] calls a callable with a prepared argument array;
//! * [`context`] copies and enters a `contextvars.Context`;
//! * [`coroutine`] steps a coroutine;
//! * [`task_layout`] reaches two fields of `asyncio.Task` that have no setter, and [`future_layout`]
//!   those by which it waits for a future; both look at an object's `words`;
//! * [`new_future`] makes an `asyncio.Future`;
//! * [`task_wakeup`] tells the callback by which a Task waits;
//! * [`asyncio_thread`] reaches the current Task of a thread and the list of its Tasks;
//! * [`error`] takes the exception that a call left behind;
//! * [`json`] writes plain values as JSON;
//! * [`method`] adds methods that take their arguments as CPython hands them over;
//! * [`lane_bound`] lets a Python object carry state that only its lane's thread may touch, and
//!   [`shelter`] brings it back there when the object dies elsewhere;
//! * [`unique`] says when an object can be used again, and [`guarded`] keeps a value in one that is
//!   locked only when somebody else could reach it;
//! * [`immortal`] ends the counting of references to what all lanes refer to;
//! * [`fd`] takes over a file descriptor handed in from Python;
//! * [`ticks`] reads the processor's time stamp counter;
//! * `allocator` is mimalloc, for the whole process;
//! * [`room`] is memory that becomes a `bytes` object when the system has filled it;
//! * [`socket`] receives into Python's memory and sends from it.
#![allow(unsafe_code, reason = "the fence: see the module doc")]

#[cfg(feature = "mimalloc")]
pub mod allocator;
pub mod asyncio_thread;
pub mod call;
pub mod context;
pub mod coroutine;
pub mod error;
pub mod fd;
pub mod future_layout;
pub mod guarded;
pub mod immortal;
pub mod json;
pub mod lane_bound;
pub mod method;
pub mod new_future;
pub mod park;
mod room;
pub mod shelter;
pub mod socket;
pub mod task_layout;
pub mod task_wakeup;
pub mod thread_end;
pub mod ticks;
pub mod unique;
mod words;
