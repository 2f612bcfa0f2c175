//! A lane: one OS thread that is a Tokio current-thread runtime and a Python event loop, merged.
//!
//! # One turn
//!
//! The loop's `run_forever` hands the thread to Tokio ([`Lane::run`]). From then on everything is
//! a Tokio task of this thread: connections, and the *turn* ([`turn`]), which runs the Python side:
//!
//! 1. Tokio parks. The thread detaches from the interpreter for exactly that long
//!    ([`crate::python::park`]).
//! 2. Sockets are ready: connection tasks are polled, handlers are called in place.
//! 3. What Python code scheduled (`call_soon`, a Task's wake-up) lies in the loop's ready queue;
//!    the turn was woken ([`crate::bridge::after_python`]) and stands behind the connections in
//!    Tokio's queue, so one turn serves what all of them left.
//! 4. The turn runs the callbacks that were ready when it began, due timers and ready file
//!    descriptors. Callbacks added meanwhile wait for the next turn, and between two turns Tokio
//!    polls its sockets: neither side starves the other.
//! 5. Another thread's `call_soon_threadsafe` appends to the queue and wakes the turn
//!    ([`Lane::wake`]); Rust code of another thread hands over a coroutine ([`LaneHandle`]). These
//!    are the only ways in from outside.
//!
//! The Python side is asyncio's own `SelectorEventLoop` with these seams replaced: `run_forever`,
//! the selector's wait, the self-pipe,
//! and `call_soon` with its handle ([`LoopCore`], [`Handle`]). Its file descriptors sit in an epoll of their own,
//! whose descriptor Tokio watches; so they stay level-triggered, and a descriptor that is closed
//! and reused leaves nothing behind.
//!
//! # Who owns what
//!
//! The `Lane` object is made on its thread and holds the runtime; only that thread can reach it
//! ([`LaneBound`]). Other threads hold only its [`Mailbox`].
//!
//! # The end of a lane
//!
//! `run` returns when the loop was stopped; the runtime, with every task left in it, is dropped by
//! [`Lane::close`] on the lane's thread, attached. A wake-up that comes later finds no task.

mod bare;
mod handle;
mod loop_core;
mod turn;

use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

pub use crate::bridge::LaneHandle;
use crate::bridge::{Home, Mailbox, TaskFactory, thread_name};
use crate::python::lane_bound::LaneBound;
use crate::python::park::{ParkDetached, on_park, on_unpark};

pub use bare::spawn_bare;
pub use handle::Handle;
pub use loop_core::LoopCore;

/// A thread's Tokio runtime, driven by the Python loop that owns it.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Lane {
    index: usize,
    inner: LaneBound<Inner>,
    /// Wakes the turn from any thread.
    mailbox: Arc<Mailbox>,
}

struct Inner {
    runtime: RefCell<Option<LocalRuntime>>,
    core: RefCell<Option<Rc<LaneCore>>>,
}

/// What the code that serves on a lane needs of it.
pub struct LaneCore {
    /// Position of the lane in its pool.
    pub index: usize,
    /// Starts Tasks on the lane's loop.
    pub tasks: Rc<TaskFactory>,
    /// What the bridge keeps on this lane.
    pub home: Rc<Home>,
    /// Handler Tasks that have not ended.
    pub running: Cell<usize>,
}

impl LaneCore {
    /// The lane's event loop.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.tasks.event_loop().bind(py)
    }
}

impl Lane {
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get().ok_or_else(|| {
            PyRuntimeError::new_err(format!("lane {} belongs to another thread", self.index))
        })
    }

    /// The lane as other threads reach it.
    pub fn handle(&self) -> LaneHandle {
        LaneHandle::new(self.mailbox.clone())
    }

    /// The core, once the lane's loop has been set.
    ///
    /// # Errors
    /// On another thread, or before [`Lane::attach_loop`].
    pub fn core(&self) -> PyResult<Rc<LaneCore>> {
        self.inner()?.core.borrow().clone().ok_or_else(|| {
            PyRuntimeError::new_err(format!("lane {} has no event loop yet", self.index))
        })
    }
}

#[pymethods]
impl Lane {
    /// Makes the runtime, on the thread that is to be the lane.
    #[new]
    fn new(py: Python<'_>, index: usize) -> PyResult<Self> {
        let mailbox = Mailbox::new(format!("lane {index} (thread {})", thread_name(py)?));
        let (going, coming) = (mailbox.clone(), mailbox.clone());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                if !going.before_sleep() {
                    on_park();
                }
            })
            .on_thread_unpark(move || {
                on_unpark();
                coming.after_sleep();
            })
            .build_local(LocalOptions::default())?;
        Ok(Self {
            index,
            inner: LaneBound::new(Inner {
                runtime: RefCell::new(Some(runtime)),
                core: RefCell::new(None),
            }),
            mailbox,
        })
    }

    /// Position in the pool, from 0.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// Names the event loop whose Tasks this lane runs.
    fn attach_loop(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<()> {
        let tasks = Rc::new(TaskFactory::new(event_loop)?);
        let home = Home::new(event_loop.py(), tasks.clone(), self.mailbox.clone())?;
        let core = LaneCore { index: self.index, tasks, home, running: Cell::new(0) };
        self.inner()?.core.replace(Some(Rc::new(core)));
        Ok(())
    }

    /// Runs the loop on this lane until it is stopped; `fd` is its selector's descriptor.
    fn run(&self, py: Python<'_>, event_loop: &Bound<'_, LoopCore>, fd: RawFd) -> PyResult<()> {
        let inner = self.inner()?;
        let runtime = inner.runtime.try_borrow().map_err(|_| closing(self.index))?;
        let runtime = runtime.as_ref().ok_or_else(|| closing(self.index))?;
        let core = self.core()?;
        let _parks_detach = ParkDetached::enter(py);
        let _at_home = core.home.enter();
        runtime.block_on(turn::run(event_loop, fd, core))
    }

    /// Wakes the loop's turn; from any thread.
    fn wake(&self) {
        self.mailbox.wake();
    }

    /// Drops the runtime and every task left in it.
    fn close(&self) -> PyResult<()> {
        let inner = self.inner()?;
        let runtime = inner
            .runtime
            .try_borrow_mut()
            .map_err(|_| PyRuntimeError::new_err(format!("lane {} is running", self.index)))?
            .take();
        let core = inner.core.take();
        drop(runtime);
        if let Some(core) = core {
            core.home.close();
        }
        Ok(())
    }
}

fn closing(index: usize) -> PyErr {
    PyRuntimeError::new_err(format!("lane {index} is closed"))
}
