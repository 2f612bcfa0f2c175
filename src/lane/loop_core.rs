//! The native half of the event loop.
//!
//! `treadle.EventLoop` inherits from this class first and from asyncio's selector loop second. What
//! is asked of a loop for every Task, callback, timer and watched descriptor is answered here, in
//! native code; transports, subprocesses, signals, executors, async generators are asyncio's.
//!
//! In debug mode callbacks are asyncio's own handles, which know where they were made and are timed
//! one by one; the queues take both kinds. Those of descriptors are native and know it, too
//! ([`super::traced_handle`]). The methods named `_…_checked` are asyncio's versions, for debug mode
//! and for their checks and words when something is wrong.
//!
//! Who touches what: the queues say so themselves ([`super::ready`], [`super::timers`],
//! [`super::descriptors`]); the flags are written by the loop's own thread and read by any.

use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt, PyList, PyTuple};

use super::alarm;
use super::descriptors::{Descriptors, Direction, Watched, Watcher};
use super::handle::{Args, Handle};
use super::ready::{Entry, Ready};
use super::scheduling::note_time;
use super::timers::{Timed, Timers};
use super::traced_handle::TracedHandle;
use super::turn_end::{TurnEnd, TurnEndSlot};
use super::uncounted::end_counting;
use crate::python::context;
use crate::python::lane_bound::this_thread;
use crate::python::socket::os_error;
use crate::python::thread_end::HangsAtEnd;

/// No thread has this identity.
const NOWHERE: usize = 0;

/// State that native code reads without asking Python.
#[pyclass(subclass, frozen, weakref, module = "treadle._treadle")]
pub struct LoopCore {
    pub(super) ready: Ready,
    pub(super) timers: Timers,
    pub(super) descriptors: Descriptors,
    pub(super) turn_end: TurnEndSlot,
    debug: AtomicBool,
    stopping: AtomicBool,
    closed: AtomicBool,
    /// A task factory was set: `create_task` is asyncio's then.
    has_task_factory: AtomicBool,
    /// `call_soon` is not replaced, so nobody sees what it gives a future.
    pub(super) has_own_call_soon: AtomicBool,
    /// Nor is `get_debug`, so it says what is known here.
    pub(super) has_own_get_debug: AtomicBool,
    /// Nor is `time`, so the system's clock is looked at without asking.
    pub(super) has_own_time: AtomicBool,
    /// Nobody has put another class in place of asyncio's Task, as of the run's begin.
    pub(super) has_known_task: AtomicBool,
    /// The thread the loop runs on now.
    thread: AtomicUsize,
}

/// `asyncio.Future` and `asyncio.Task`, the ones written in C where there are. Of the second a run
/// begins by looking whether it is still the one that asyncio makes ([`super::scheduling`]).
static CLASSES: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();

pub(super) fn classes(py: Python<'_>) -> PyResult<&'static (Py<PyAny>, Py<PyAny>)> {
    CLASSES.get_or_try_init(py, || {
        Ok((py.import("asyncio")?.getattr("Future")?.unbind(), task_class(py)?.unbind()))
    })
}

/// The class that asyncio's own `create_task` makes now: tools put theirs in its place.
pub(super) fn task_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("asyncio.tasks")?.getattr("Task")
}

impl LoopCore {
    /// Whether callbacks are to be run one by one, timed and checked.
    pub fn is_debugging(&self) -> bool {
        self.debug.load(Ordering::Relaxed)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Has `hook` called at the end of every turn, on this thread.
    pub fn at_turn_end(&self, hook: Rc<dyn TurnEnd>) {
        self.turn_end.set(hook);
    }

    /// Has a turn run; from any thread.
    pub fn wake(&self) {
        self.ready.wake();
    }

    pub(super) fn is_plain(&self) -> bool {
        !self.closed.load(Ordering::Relaxed) && !self.is_debugging()
    }

    /// Whether `create_task(coroutine)` is no more than a Task of the running loop.
    pub(super) fn makes_plain_tasks(&self) -> bool {
        self.runs_here()
            && !self.is_debugging()
            && !self.has_task_factory.load(Ordering::Relaxed)
            && self.has_known_task.load(Ordering::Relaxed)
    }

    /// Whether the loop runs on the calling thread: it is what `get_running_loop` gives there.
    pub(super) fn runs_here(&self) -> bool {
        self.thread.load(Ordering::Relaxed) == this_thread()
    }

    pub(super) fn note_cancelled_timer(&self, py: Python<'_>) {
        self.timers.note_cancelled(py, || {
            if !self.runs_here() {
                self.ready.wake();
            }
        });
    }

    fn watch<'py>(
        slf: &Bound<'py, Self>,
        descriptor: &Bound<'py, PyAny>,
        direction: Direction,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<Py<Handle>> {
        let py = slf.py();
        let core = slf.get();
        if core.closed.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err("Event loop is closed"));
        }
        let fd = number_of(descriptor)?;
        let args = Args::Many(args.unbind());
        let handle = Handle::new(slf, callback, args, context::copy_current(py)?);
        let handle = if core.is_debugging() {
            let stack = slf.call_method0(intern!(py, "_callers_stack"))?.cast_into::<PyList>()?;
            TracedHandle::wrap(handle, stack)?.unbind()
        } else {
            Py::new(py, handle)?
        };
        let is_number = descriptor.is_instance_of::<PyInt>();
        let object = (!is_number).then(|| descriptor.clone().unbind());
        let watcher = Watcher { handle: handle.clone_ref(py), object };
        let before = core.descriptors.add(fd, direction, watcher);
        if let Some(before) = before.map_err(|error| os_error(py, error))? {
            before.handle.get().take(py);
        }
        Ok(handle)
    }

    fn unwatch(&self, descriptor: &Bound<'_, PyAny>, direction: Direction) -> PyResult<bool> {
        // -1 is a socket that was closed, as the loop's own is when both are collected: it is not
        // watched.
        if self.closed.load(Ordering::Relaxed)
            || descriptor.extract::<RawFd>().is_ok_and(|fd| fd < 0)
        {
            return Ok(false);
        }
        let fd = match number_of(descriptor) {
            Ok(fd) => fd,
            // A socket that was closed while it was watched does not tell its number any more.
            Err(error) => {
                let fd = self.descriptors.number_of(descriptor).ok_or(error)?;
                if !self.descriptors.is_watched_as(fd, direction, descriptor) {
                    return Ok(false); // another one may have the number by now
                }
                fd
            }
        };
        let before = self
            .descriptors
            .remove(fd, direction)
            .map_err(|error| os_error(descriptor.py(), error))?;
        Ok(before.is_some_and(|before| {
            before.handle.get().take(descriptor.py());
            true
        }))
    }
}

/// The number of a descriptor, or of an object that has one.
fn number_of(descriptor: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let fd = if descriptor.is_instance_of::<PyInt>() {
        descriptor.extract::<RawFd>()?
    } else {
        let invalid = |_| match descriptor.repr() {
            Ok(repr) => PyValueError::new_err(format!("Invalid file object: {repr}")),
            Err(error) => error,
        };
        let fileno = intern!(descriptor.py(), "fileno");
        descriptor.call_method0(fileno).and_then(|fd| fd.extract()).map_err(invalid)?
    };
    if fd < 0 {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {fd}")));
    }
    Ok(fd)
}

#[pymethods]
impl LoopCore {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(
        py: Python<'_>,
        _arguments: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        end_counting(py)?;
        Ok(Self {
            ready: Ready::default(),
            timers: Timers::default(),
            descriptors: Descriptors::new().map_err(|error| os_error(py, error))?,
            turn_end: TurnEndSlot::default(),
            debug: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            has_task_factory: AtomicBool::new(false),
            has_own_call_soon: AtomicBool::new(false),
            has_own_get_debug: AtomicBool::new(false),
            has_own_time: AtomicBool::new(true),
            has_known_task: AtomicBool::new(false),
            thread: AtomicUsize::new(NOWHERE),
        })
    }

    fn _note_debug(&self, enabled: bool) {
        self.debug.store(enabled, Ordering::Relaxed);
    }

    fn _note_running(&self, running: bool) {
        self.thread.store(if running { this_thread() } else { NOWHERE }, Ordering::Relaxed);
    }

    fn _note_task_factory(&self, has_one: bool) {
        self.has_task_factory.store(has_one, Ordering::Relaxed);
    }

    /// Looks whether the loop has another `time` now than the one below.
    fn _note_time(slf: &Bound<'_, Self>) -> PyResult<()> {
        note_time(slf)
    }

    /// Drops what waits; nothing is taken any more.
    fn _close_core(&self) {
        let _hangs_at_end = HangsAtEnd::enter(); // what is dropped may run Python
        self.closed.store(true, Ordering::Relaxed);
        self.ready.clear();
        self.timers.clear();
        self.descriptors.close();
    }

    /// Whether the loop runs now.
    fn is_running(&self) -> bool {
        self.thread.load(Ordering::Relaxed) != NOWHERE
    }

    /// Whether `close` was called.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// The loop's clock: seconds, the same as `time.monotonic()`.
    fn time(&self) -> f64 {
        alarm::now()
    }

    /// Ends `run_forever` after the turn that is under way.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.ready.wake();
    }

    #[getter(_stopping)]
    fn stopping(&self) -> bool {
        self.is_stopping()
    }

    #[setter(_stopping)]
    fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Release);
    }

    /// Takes a timer of asyncio's, made in debug mode.
    fn _add_timer(&self, when: f64, timer: Py<PyAny>) {
        if self.timers.add(when, Timed::Foreign(timer)) {
            self.ready.wake();
        }
    }

    /// A timer of asyncio's was cancelled.
    fn _timer_handle_cancelled(&self, handle: &Bound<'_, PyAny>) {
        self.note_cancelled_timer(handle.py());
    }

    /// Takes a callback for the next turn, unless it was cancelled.
    fn _add_callback(&self, handle: &Bound<'_, PyAny>) -> PyResult<()> {
        if handle.getattr(intern!(handle.py(), "_cancelled"))?.is_truthy()? {
            return Ok(());
        }
        self.ready.push(match handle.cast::<Handle>() {
            Ok(native) => Entry::Native(native.clone().unbind()),
            Err(_) => Entry::Foreign(handle.clone().unbind()),
        });
        Ok(())
    }

    /// Has a turn run; from any thread.
    fn _write_to_self(&self) {
        self.ready.wake();
    }

    /// How many timers wait, cancelled ones that were not swept yet included.
    fn _timer_count(&self) -> usize {
        self.timers.len()
    }

    /// The watched descriptors: number, the handle that reads, the one that writes.
    fn _watched(&self, py: Python<'_>) -> Vec<Watched> {
        self.descriptors.watched(py)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_reader<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<Py<Handle>> {
        Self::watch(slf, fd, Direction::Read, callback, args)
    }

    fn _remove_reader(&self, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.unwatch(fd, Direction::Read)
    }

    #[pyo3(signature = (fd, callback, *args))]
    fn _add_writer<'py>(
        slf: &Bound<'py, Self>,
        fd: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        args: Bound<'py, PyTuple>,
    ) -> PyResult<Py<Handle>> {
        Self::watch(slf, fd, Direction::Write, callback, args)
    }

    fn _remove_writer(&self, fd: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.unwatch(fd, Direction::Write)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.ready.traverse(&visit)?;
        self.timers.traverse(&visit)?;
        self.descriptors.traverse(&visit)
    }

    fn __clear__(&self) {
        self.ready.clear();
        self.timers.clear();
        self.descriptors.close();
    }
}
