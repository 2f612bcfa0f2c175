//! Treadle's native module: Python coroutines on Tokio.
//!
//! A process has *lanes*: threads that are a Tokio current-thread runtime and a Python event loop
//! at once ([`lane`]). A request is parsed on its lane ([`http`]), meets its route ([`router`],
//! [`dispatch`]) and runs as the plan that was compiled for it ([`app`]); a coroutine becomes a
//! Rust future, and a Rust future an awaitable, without leaving the thread ([`bridge`]).
//!
//! The table has the modules in the order of their layers: each imports only from those above it,
//! and `tests/test_layers.py` fails on the other direction.
//!
//! | layer | knows |
//! |---|---|
//! | [`config`] | `std` only |
//! | [`telemetry`], [`load`] | what lanes and routes count; the load generator (no Python) |
//! | [`python`] | raw CPython: the only `unsafe` |
//! | [`bridge`], [`router`], [`http`] | coroutines and futures; paths; the protocol (no Python) |
//! | [`lane`] | one thread: the turn, parking |
//! | [`transport`] | connections of the event loop: streams of bytes |
//! | [`app`] | plans: arguments in, response out |
//! | [`dispatch`] | a request meets a plan |
//! | [`server`] | options, listeners, lanes |
//! | `load_face` | what Python sees of [`load`] |

pub mod app;
pub mod bridge;
pub mod config;
pub mod dispatch;
pub mod http;
pub mod lane;
pub mod load;
mod load_face;
pub mod python;
pub mod router;
pub mod server;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod transport;

use pyo3::prelude::*;

/// A lane with many requests in flight makes and drops the same few objects in turn, more of one size
/// than the system's allocator keeps at hand without a lock.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: python::allocator::MiMalloc = python::allocator::MiMalloc;

/// The native half of `treadle`.
#[pymodule(gil_used = false)]
pub mod _treadle {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::app::{
        HTMLResponse, Headers, JSONResponse, Param, RedirectResponse, Request, Response, Route,
        StreamingResponse,
    };
    #[pymodule_export]
    use crate::dispatch::{ChunkCalls, RouteTable, Sink};
    #[pymodule_export]
    use crate::lane::{Handle, Lane, LoopCore, RemoteHandle, TimerHandle, TracedHandle};
    #[pymodule_export]
    use crate::load_face::LoadDriver;
    #[pymodule_export]
    use crate::server::{Acceptor, HttpConfig, LaneServer, Meter, StallWatch, meters};
    #[pymodule_export]
    use crate::transport::{Outbox, TransportCore};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The first time that a thread attaches PyO3 asks whether there is an interpreter, and
        // panics in one that is leaving, where a loop is collected that was never run.
        module.py().detach(|| Python::attach(|_| ()));
        crate::server::install_logging();
        crate::lane::add_scheduling(module.py())?;
        crate::transport::add_write(module.py())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        let flags: String = module.py().import("sys")?.getattr("abiflags")?.extract()?;
        // A panic reaches Python as this; it is made here so that it can be named before the first.
        module.add("PanicException", module.py().get_type::<pyo3::panic::PanicException>())?;
        module.add("FREE_THREADED", flags.contains('t'))?;
        module.add(
            "BUILD_PROFILE",
            match (cfg!(debug_assertions), cfg!(profile_guided)) {
                (true, _) => "debug",
                (false, false) => "release",
                (false, true) => "release-pgo",
            },
        )
    }
}
