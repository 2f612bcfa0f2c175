//! A lane: one OS thread that is a Tokio current-thread runtime and a Python event loop, merged.
//!
//! # One turn
//!
//! The loop's `run_forever` hands the thread to Tokio ([`Lane::run`]). From then on everything is
//! a Tokio task of this thread: connections, and the *turn* ([`turn`]), which runs the Python side:
//!
//! 1. Tokio parks. The thread detaches from the interpreter for exactly that long
//!    ([`crate::python::park`]). Where that pays it polls its sockets for some microseconds first
//!    ([`polling`]).
//! 2. Sockets are ready: connection tasks are polled, handlers are called in place.
//! 3. What Python code scheduled (`call_soon`, a Task's wake-up) lies in the loop's ready queue;
//!    the turn was woken by that and stands behind the connections in Tokio's queue, so one turn serves what all of them left.
//! 4. The turn runs the callbacks that were ready when it began, due timers and ready file
//!    descriptors. Callbacks added meanwhile wait for the next turn, and between two turns Tokio
//!    polls its sockets: neither side starves the other.
//! 5. Another thread's `call_soon_threadsafe` appends to the queue and wakes the turn
//!    ([`Lane::wake`]); Rust code of another thread hands over a coroutine ([`LaneHandle`]). These
//!    are the only ways in from outside.
//!
//! The Python side is asyncio's own `SelectorEventLoop` on a native core ([`LoopCore`]): the ready
//! queue and its handles, timers on a timerfd, watched descriptors. These sit in an epoll of their
//! own, whose descriptor Tokio watches; so they stay level-triggered, and a descriptor that is
//! closed and reused leaves nothing behind.
//!
//! # Who owns what
//!
//! A `Lane` can be made and held anywhere. The runtime is made by the thread that runs the loop and
//! can be reached and dropped only there ([`LaneBound`]). Other threads hold only what wakes the
//! turn ([`Mailbox`], [`ready`]). A loop that moves to another thread between two runs gets a new
//! runtime there; it refuses to run there for as long as open connections or suspended Rust futures
//! are left behind, which cannot move. On the main thread the runtime is kept for the next run,
//! elsewhere it ends with the run unless something is left in it that goes on in the next.
//!
//! Lanes share no state of their own. What they share of the interpreter is not counted ([`uncounted`]).
//!
//! # The end of a lane
//!
//! `run` returns when the loop was stopped; the runtime, with every task left in it, is dropped by
//! [`Lane::close`] on the lane's thread, attached. A wake-up that comes later finds no task. A
//! forked child leaves its copy of the parent's runtime alone: dropping it would take the parent's
//! descriptors out of the epoll that both share.

mod alarm;
mod bare;
mod clock;
mod deadlines;
mod descriptors;
mod handle;
mod interrupts;
mod loop_core;
mod nudge;
mod polling;
mod ready;
mod remote_handle;
mod scheduling;
mod settling;
mod timer_handle;
mod timers;
mod traced_handle;
mod turn;
mod turn_end;
mod uncounted;
mod wakeup;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

pub use crate::bridge::LaneHandle;
use crate::bridge::{Home, Mailbox, TaskFactory};
use crate::python::context::SpareContext;
use crate::python::lane_bound::LaneBound;
use crate::python::park::{ParkDetached, on_park, on_unpark};
use crate::python::shelter::Shelter;
use crate::python::socket::os_error;
use crate::python::thread_end::HangsAtEnd;
use crate::python::ticks;
use crate::telemetry::{Clock, LaneMeter, enroll};

pub use bare::spawn_bare;
pub use handle::Handle;
pub use loop_core::LoopCore;
pub use polling::note_work;
pub use remote_handle::RemoteHandle;
pub use scheduling::add_scheduling;
pub use timer_handle::TimerHandle;
pub use traced_handle::TracedHandle;
pub use turn_end::TurnEnd;

use interrupts::Interrupts;

/// A thread's Tokio runtime, driven by the Python loop that owns it.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Lane {
    index: usize,
    /// For how long the lane may poll before it sleeps.
    busy_poll: Duration,
    /// What the thread that runs the loop has made of it.
    local: Mutex<Option<Arc<LaneBound<Local>>>>,
    /// What the bridge keeps on that thread; from run to run, until the lane is closed.
    home: Mutex<Option<Arc<LaneBound<Rc<Home>>>>>,
    /// The way in from other threads.
    mailbox: Arc<Mailbox>,
    meter: Arc<LaneMeter>,
}

/// The part of a lane that belongs to its thread.
struct Local {
    runtime: RefCell<Option<LocalRuntime>>,
    /// Set while the loop runs.
    core: RefCell<Option<Rc<LaneCore>>>,
    interrupts: Arc<Interrupts>,
    shelter: Rc<Shelter>,
    process: u32,
}

impl Local {
    fn new(mailbox: &Arc<Mailbox>, meter: &Arc<LaneMeter>) -> PyResult<Self> {
        let (going, coming) = (mailbox.clone(), mailbox.clone());
        let (leaving, returning) = (meter.clone(), meter.clone());
        let interrupts = Arc::<Interrupts>::default();
        let (interrupting, interrupted) = (interrupts.clone(), interrupts.clone());
        let sheltered = mailbox.clone();
        let sheltering = move || sheltered.wake_turn();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || {
                if going.before_sleep() {
                    return;
                }
                // A signal that came just now does not end a sleep that begins after it.
                if interrupting.wake() {
                    going.after_sleep();
                    going.wake_turn();
                    return;
                }
                if polling::before_sleep() {
                    going.after_sleep();
                    return;
                }
                leaving.parks();
                on_park();
            })
            .on_thread_unpark(move || {
                returning.wakes();
                on_unpark();
                returning.attached();
                coming.after_sleep();
                if interrupted.wake() {
                    coming.wake_turn();
                }
            })
            .build_local(LocalOptions::default())
            .map_err(|error| Python::attach(|py| os_error(py, error)))?;
        Ok(Self {
            runtime: RefCell::new(Some(runtime)),
            core: RefCell::new(None),
            interrupts,
            shelter: Rc::new(Shelter::open(sheltering)),
            process: std::process::id(),
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let runtime = self.runtime.take();
        if self.process == std::process::id() {
            shut_down(runtime);
        } else {
            std::mem::forget(runtime);
        }
    }
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
    /// What is counted of the lane.
    pub meter: Arc<LaneMeter>,
    /// For what runs outside of the loop's callbacks: they, and signal handlers, may set something in
    /// the lane's own context, so it is forgotten after each turn.
    pub spare_context: SpareContext,
    interrupts: Arc<Interrupts>,
    /// What belongs to the lane's thread and died on another.
    shelter: Rc<Shelter>,
}

impl LaneCore {
    /// The lane's event loop.
    pub fn event_loop<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.tasks.event_loop().bind(py)
    }
}

impl Lane {
    fn local(&self) -> MutexGuard<'_, Option<Arc<LaneBound<Local>>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn home(&self) -> MutexGuard<'_, Option<Arc<LaneBound<Rc<Home>>>>> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What belongs to the calling thread; made here if another thread ran the loop before.
    fn local_here(&self) -> PyResult<Arc<LaneBound<Local>>> {
        if let Some(local) = &*self.local()
            && local.get().is_some_and(|local| local.process == std::process::id())
        {
            return Ok(local.clone());
        }
        let fresh = Arc::new(LaneBound::new(Local::new(&self.mailbox, &self.meter)?));
        let former = self.local().replace(fresh.clone());
        drop(former);
        Ok(fresh)
    }

    /// The calling thread's home; made here if the loop ran on another thread before.
    ///
    /// # Errors
    /// `RuntimeError` when something is left there that cannot move.
    fn home_here(&self, py: Python<'_>) -> PyResult<Rc<Home>> {
        let former = self.home().clone();
        if let Some(former) = &former {
            // One that is closed was of a thread that ended and whose identity this one has.
            if let Some(home) = former.get().filter(|home| !home.is_closed()) {
                return Ok(home.clone());
            }
            self.mailbox.move_here(py)?;
        }
        let home = Home::new(self.mailbox.clone());
        let kept = self.home().replace(Arc::new(LaneBound::new(home.clone())));
        drop(kept);
        Ok(home)
    }

    /// The lane as other threads reach it.
    pub fn handle(&self) -> LaneHandle {
        LaneHandle::new(self.mailbox.clone())
    }

    /// What is counted of the lane.
    pub fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }

    /// The core, on the lane's thread while its loop runs.
    ///
    /// # Errors
    /// On another thread, or when the loop does not run.
    pub fn core(&self) -> PyResult<Rc<LaneCore>> {
        let local = self.local().clone();
        let core = match &local {
            None => None,
            Some(local) => {
                let local = local.get().ok_or_else(|| {
                    PyRuntimeError::new_err(format!(
                        "lane {} belongs to another thread",
                        self.index
                    ))
                })?;
                local.core.borrow().clone()
            }
        };
        core.ok_or_else(|| PyRuntimeError::new_err(format!("lane {} does not run", self.index)))
    }
}

#[pymethods]
impl Lane {
    /// Without an index: the lane of a loop that has no others beside it. There may be many of those
    /// on a thread, so errors tell them by number.
    #[new]
    #[pyo3(signature = (index=None, busy_poll=0))]
    fn new(index: Option<usize>, busy_poll: u32) -> Self {
        static ALONE: AtomicUsize = AtomicUsize::new(1);
        let busy_poll = Duration::from_micros(busy_poll.into());
        let (index, name) = match index {
            Some(index) => (index, format!("lane {index}")),
            None => (0, format!("lane 0 of loop {}", ALONE.fetch_add(1, Ordering::Relaxed))),
        };
        let mailbox = Mailbox::new(name);
        let meter = Arc::new(LaneMeter::new(index, Clock::of_process(ticks::source)));
        enroll(&meter);
        Self { index, busy_poll, local: Mutex::new(None), home: Mutex::new(None), mailbox, meter }
    }

    /// Position in the pool, from 0.
    #[getter]
    fn index(&self) -> usize {
        self.index
    }

    /// What errors call it, with the thread that its loop ran on last.
    #[getter]
    fn name(&self) -> String {
        self.mailbox.name()
    }

    /// Whether a lane can run on the calling thread: not while another runs there. A process that
    /// was forked out of such a run remains inside it.
    #[staticmethod]
    fn can_run_here() -> bool {
        tokio::runtime::Handle::try_current().is_err()
    }

    /// Runs the loop on this lane until it is stopped.
    ///
    /// On the main thread signal handlers run, and the runtime is kept for the next run; on others
    /// only what is left in it keeps it.
    fn run(&self, py: Python<'_>, event_loop: &Bound<'_, LoopCore>, on_main: bool) -> PyResult<()> {
        // All of it: a run begins by asking Python for names, and ends by dropping what is left.
        let _hangs_at_end = HangsAtEnd::enter();
        if !Self::can_run_here() {
            return Err(PyRuntimeError::new_err(format!(
                "lane {} cannot run inside the run of another lane, nor in a process that was \
                 forked there",
                self.index
            )));
        }
        let home = self.home_here(py)?;
        let bound = self.local_here()?;
        let local = bound.get().ok_or_else(|| closing(self.index))?;
        let runtime = local.runtime.try_borrow().map_err(|_| closing(self.index))?;
        let ready = scheduling::ready_queue_of(event_loop)?;
        let tasks = TaskFactory::new(event_loop, ready, Some(self.meter.clone()))?;
        let tasks = Rc::new(tasks);
        let _at_home = home.enter(py, tasks.clone())?;
        let core = Rc::new(LaneCore {
            index: self.index,
            tasks,
            home,
            running: Cell::new(0),
            meter: self.meter.clone(),
            spare_context: SpareContext::default(),
            interrupts: local.interrupts.clone(),
            shelter: local.shelter.clone(),
        });
        local.interrupts.listen(on_main);
        self.meter.arrives(get_ident(py)?);
        let _polls = polling::begin(self.busy_poll);
        local.core.replace(Some(core.clone()));
        let outcome = match &*runtime {
            None => Err(closing(self.index)),
            Some(runtime) => {
                let _parks_detach = ParkDetached::enter(py);
                runtime.block_on(turn::run(event_loop, core))
            }
        };
        self.meter.goes();
        local.core.replace(None);
        // A suspended Rust future may wait for the runtime's timers or sockets.
        let is_empty = !self.mailbox.has_suspended()
            && runtime.as_ref().is_none_or(|r| r.metrics().num_alive_tasks() == 0);
        drop(runtime);
        if !on_main && is_empty {
            self.close_runtime()?;
        }
        outcome
    }

    /// Drops the runtime and every task left in it; on another thread than its own, leaves it.
    fn close(&self) -> PyResult<()> {
        let _hangs_at_end = HangsAtEnd::enter(); // what is dropped may run Python
        self.close_runtime()?;
        let home = self.home().take();
        match home.as_ref().and_then(|home| home.get()) {
            Some(home) => home.close(),
            None => self.mailbox.shut(),
        }
        Ok(())
    }
}

impl Lane {
    fn close_runtime(&self) -> PyResult<()> {
        let Some(bound) = self.local().take() else {
            return Ok(());
        };
        if let Some(local) = bound.get().filter(|local| local.process == std::process::id()) {
            let runtime = local
                .runtime
                .try_borrow_mut()
                .map_err(|_| PyRuntimeError::new_err(format!("lane {} is running", self.index)))?
                .take();
            local.shelter.empty();
            shut_down(runtime);
        }
        Ok(())
    }
}

/// Drops a runtime, also inside another one: a coroutine may close a loop that is not its own.
fn shut_down(runtime: Option<LocalRuntime>) {
    if let Some(runtime) = runtime {
        runtime.shutdown_background();
    }
}

/// `threading.get_ident()`, by which Python knows its threads.
fn get_ident(py: Python<'_>) -> PyResult<u64> {
    py.import("threading")?.call_method0("get_ident")?.extract()
}

fn closing(index: usize) -> PyErr {
    PyRuntimeError::new_err(format!("lane {index} is closed"))
}
