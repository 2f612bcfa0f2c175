//! `call_soon`, `call_soon_threadsafe`, `call_later`, `call_at`, `create_task` and `create_future` of
//! the loop.
//!
//! What CPython's Task and `asyncio.sleep` call for every step, so they take their arguments as they
//! come ([`FastMethod`]). A loop in debug mode, or closed, takes asyncio's own versions, for their checks
//! and words.

use std::ffi::CStr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple};

use super::handle::{Args, Handle};
use super::loop_core::{LoopCore, classes, task_class};
use super::ready::Entry;
use super::remote_handle::RemoteHandle;
use super::timer_handle::{Cancel, TimerHandle};
use super::timers::Timed;
use super::wakeup::Wakeup;
use super::{alarm, clock};
use crate::bridge::{LaneWakeup, ReadyQueue, Resumption, intercept};
use crate::python::call::{call_method, call_no_args, call_one};
use crate::python::context;
use crate::python::method::{
    Arguments, BareMethod, FastMethod, Parsed, add_bare_method, add_method,
};
use crate::python::new_future::FutureMaker;
use crate::python::task_wakeup::is_task_wakeup;

/// Gives the loop's class its methods; once, when the module is made.
///
/// # Errors
/// `MemoryError`.
pub fn add_scheduling(py: Python<'_>) -> PyResult<()> {
    let class = py.get_type::<LoopCore>();
    add_method::<CallSoon>(&class)?;
    add_method::<CallSoonThreadsafe>(&class)?;
    add_method::<CallLater>(&class)?;
    add_method::<CallAt>(&class)?;
    add_method::<CreateTask>(&class)?;
    add_bare_method::<GetDebug>(&class)?;
    add_bare_method::<CreateFuture>(&class)?;
    add_bare_method::<Cancel>(&py.get_type::<TimerHandle>())
}

struct CallSoon;
struct CallSoonThreadsafe;
struct CallLater;
struct CallAt;
struct CreateTask;
struct GetDebug;
struct CreateFuture;

/// The loop's ready queue for the lane that runs it; `None` where a class derived from the loop's, or
/// the loop itself, was given another `call_soon`. Which methods are its own is noted for later, and
/// whether asyncio's Task is.
///
/// # Errors
/// `AttributeError`.
pub(super) fn ready_queue_of(
    event_loop: &Bound<'_, LoopCore>,
) -> PyResult<Option<Rc<dyn ReadyQueue>>> {
    let (py, core) = (event_loop.py(), event_loop.get());
    let is_own = has_own(event_loop, intern!(py, "call_soon"))?;
    core.has_own_call_soon.store(is_own, Ordering::Relaxed);
    core.has_own_get_debug.store(has_own(event_loop, intern!(py, "get_debug"))?, Ordering::Relaxed);
    note_time(event_loop)?;
    note_task(event_loop)?;
    Ok(is_own.then(|| Rc::new(ReadyQueueOf(event_loop.clone().unbind())) as Rc<dyn ReadyQueue>))
}

/// Notes whether the loop's clock is the system's, or a `time` of its own is to be asked.
///
/// # Errors
/// `AttributeError`.
pub(super) fn note_time(event_loop: &Bound<'_, LoopCore>) -> PyResult<()> {
    let is_own = has_own(event_loop, intern!(event_loop.py(), "time"))?;
    event_loop.get().has_own_time.store(is_own, Ordering::Relaxed);
    Ok(())
}

/// Notes whether asyncio makes Tasks of the class that `create_task` makes here; if not, asyncio's
/// version makes them.
fn note_task(event_loop: &Bound<'_, LoopCore>) -> PyResult<()> {
    let py = event_loop.py();
    let is_known = task_class(py)?.is(&classes(py)?.1);
    event_loop.get().has_known_task.store(is_known, Ordering::Relaxed);
    Ok(())
}

/// Whether the method of that name is the one that is made here.
fn has_own(event_loop: &Bound<'_, LoopCore>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    let own = event_loop.py().get_type::<LoopCore>().getattr(name)?;
    Ok(event_loop.get_type().getattr(name)?.is(&own)
        && !event_loop.getattr(intern!(event_loop.py(), "__dict__"))?.contains(name)?)
}

struct ReadyQueueOf(Py<LoopCore>);

impl ReadyQueue for ReadyQueueOf {
    fn is_open(&self) -> bool {
        self.0.get().is_plain()
    }

    fn push(&self, resumption: Resumption) {
        self.0.get().ready.push(Entry::Resumed(resumption));
    }
}

/// A handle for what `method` was given; the callback is the last of the leading arguments.
fn handle<'py, const LEAD: usize>(
    slf: &Bound<'py, LoopCore>,
    parsed: &Parsed<'_, 'py, LEAD>,
    method: &str,
) -> PyResult<Handle> {
    let py = slf.py();
    let callback = parsed.lead[LEAD - 1];
    if !callback.is_callable() {
        return Err(PyTypeError::new_err(format!(
            "a callable object was expected by {method}(), got {}",
            callback.repr()?
        )));
    }
    let context = match parsed.context {
        Some(context) => context.to_owned(),
        None => context::copy_current(py)?,
    };
    Ok(Handle::new(slf, callback.to_owned(), Args::of(py, parsed.rest)?, context))
}

/// Calls asyncio's version of a method.
fn checked<'py, const LEAD: usize>(
    slf: &Bound<'py, LoopCore>,
    method: &Bound<'py, PyString>,
    parsed: &Parsed<'_, 'py, LEAD>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let keywords = PyDict::new(py);
    keywords.set_item(intern!(py, "context"), parsed.context)?;
    let all: Vec<_> = parsed.lead.iter().chain(parsed.rest).collect();
    slf.call_method(method, PyTuple::new(py, all)?, Some(&keywords))
}

impl FastMethod for CallSoon {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_soon";
    const DOC: &'static CStr = c"call_soon($self, callback, *args, context=None)\n--\n\n\
        Calls `callback(*args)` in the next turn, in `context` or a copy of the current one.";

    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let parsed = arguments.parse("call_soon", ["callback"])?;
        if intercept(&parsed.lead[0], parsed.rest.first().map(|first| &**first)) {
            return Ok(py.None().into_bound(py));
        }
        let core = slf.get();
        if !core.is_plain() {
            return checked(slf, intern!(py, "_call_soon_checked"), &parsed);
        }
        if let (Some(context), [future]) = (parsed.context, parsed.rest)
            && core.has_own_call_soon.load(Ordering::Relaxed)
            && (parsed.lead[0].is_exact_instance_of::<LaneWakeup>()
                || is_task_wakeup(&parsed.lead[0], future))
        {
            let [callback] = parsed.lead.map(|callback| callback.to_owned().unbind());
            let (future, context) =
                (Bound::clone(future).unbind(), Bound::clone(&context).unbind());
            core.ready.push(Entry::Wakeup(Wakeup { callback, future, context }));
            return Ok(py.None().into_bound(py));
        }
        Ok(core.ready.push_soon(py, handle(slf, &parsed, "call_soon")?)?.into_any())
    }
}

impl FastMethod for CallSoonThreadsafe {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_soon_threadsafe";
    const DOC: &'static CStr =
        c"call_soon_threadsafe($self, callback, *args, context=None)\n--\n\n\
        `call_soon` from any thread.";

    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let name = "call_soon_threadsafe";
        let parsed = arguments.parse(name, ["callback"])?;
        let core = slf.get();
        if !core.is_plain() {
            return checked(slf, intern!(py, "_call_soon_threadsafe_checked"), &parsed);
        }
        let handle = handle(slf, &parsed, name)?;
        let handle = Bound::new(py, RemoteHandle::new(handle))?;
        core.ready.push(Entry::Remote(handle.clone().unbind()));
        Ok(handle.into_any())
    }
}

impl FastMethod for CallLater {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_later";
    const DOC: &'static CStr = c"call_later($self, delay, callback, *args, context=None)\n--\n\n\
        Calls `callback(*args)` in `delay` seconds.";

    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let lead = ["delay", "callback"];
        let parsed = arguments.parse("call_later", lead)?;
        if parsed.lead[0].is_none() {
            return Err(PyTypeError::new_err("delay must not be None"));
        }
        let delay = parsed.lead[0].extract::<f64>()?;
        call_at(slf, clock::now(slf)? + delay, delay <= 0.0, &parsed)
    }
}

impl FastMethod for CallAt {
    type Class = LoopCore;
    const NAME: &'static CStr = c"call_at";
    const DOC: &'static CStr = c"call_at($self, when, callback, *args, context=None)\n--\n\n\
        Calls `callback(*args)` at loop time `when`, in seconds.";

    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let lead = ["when", "callback"];
        let parsed = arguments.parse("call_at", lead)?;
        if parsed.lead[0].is_none() {
            return Err(PyTypeError::new_err("when cannot be None"));
        }
        if !slf.get().is_plain() {
            // Whatever the time is: asyncio's version says what is wrong first.
            return checked(slf, intern!(py, "_call_at_checked"), &parsed);
        }
        let when = parsed.lead[0].extract::<f64>()?;
        let is_overdue = clock::is_systems(slf) && when <= alarm::now();
        call_at(slf, when, is_overdue, &parsed)
    }
}

fn call_at<'py>(
    slf: &Bound<'py, LoopCore>,
    when: f64,
    is_overdue: bool,
    parsed: &Parsed<'_, 'py, 2>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = slf.py();
    let core = slf.get();
    if !core.is_plain() {
        let time = when.into_pyobject(py)?.into_any();
        let lead = [time.as_borrowed(), parsed.lead[1]];
        let at = Parsed { lead, rest: parsed.rest, context: parsed.context };
        return checked(slf, intern!(py, "_call_at_checked"), &at);
    }
    let handle = handle(slf, parsed, "call_at")?;
    let timer = Bound::new(py, TimerHandle::new(handle, when))?;
    if core.timers.add(when, Timed::Native(timer.clone().unbind())) {
        core.ready.wake();
    }
    if is_overdue {
        core.timers.note_overdue();
    }
    Ok(timer.into_any())
}

impl FastMethod for CreateTask {
    type Class = LoopCore;
    const NAME: &'static CStr = c"create_task";
    const DOC: &'static CStr = c"create_task($self, coro, **keywords)\n--\n\n\
        Wraps a coroutine in a Task of this loop and schedules it.";

    fn call<'py>(
        slf: &Bound<'py, LoopCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match arguments.only() {
            Some(coroutine) if slf.get().makes_plain_tasks() => {
                call_one(classes(py)?.1.bind(py), &coroutine)
            }
            _ => arguments.pass_on(slf, intern!(py, "_create_task_checked")),
        }
    }
}

impl BareMethod for GetDebug {
    type Class = LoopCore;
    const NAME: &'static CStr = c"get_debug";
    const DOC: &'static CStr = c"get_debug($self)\n--\n\nWhether the loop is in debug mode.";

    fn call<'py>(slf: &Bound<'py, LoopCore>) -> PyResult<Bound<'py, PyAny>> {
        Ok(PyBool::new(slf.py(), slf.get().is_debugging()).to_owned().into_any())
    }
}

impl BareMethod for CreateFuture {
    type Class = LoopCore;
    const NAME: &'static CStr = c"create_future";
    const DOC: &'static CStr = c"create_future($self)\n--\n\nA future of this loop.";

    fn call<'py>(slf: &Bound<'py, LoopCore>) -> PyResult<Bound<'py, PyAny>> {
        static MAKER: PyOnceLock<Option<FutureMaker>> = PyOnceLock::new();
        let (py, core) = (slf.py(), slf.get());
        if !core.runs_here() {
            return call_method(slf, intern!(py, "_create_future_elsewhere"));
        }
        let class = || Ok::<_, PyErr>(classes(py)?.0.bind(py));
        if core.is_plain() && core.has_own_get_debug.load(Ordering::Relaxed) {
            let probe = || FutureMaker::probe(class()?, slf);
            if let Some(maker) = MAKER.get_or_try_init(py, probe)? {
                return maker.make(slf);
            }
        }
        // Without arguments it takes the running loop.
        call_no_args(class()?)
    }
}
