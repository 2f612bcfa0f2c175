//! Tasks for the coroutines of a lane.
//!
//! A coroutine gets a Task of asyncio's own C class, registered and current from its first line on,
//! in a context of its own; after its first suspension everything is asyncio's. What is ours is the
//! first step, and whose Task it is taken in:
//!
//! * The lane takes the first step itself. A coroutine that ends in it is concluded there and then,
//!   without a turn of the loop.
//! * Most of them end in it and never look at their Task. The Task is then as new, nobody else
//!   refers to it ([`TaskLayout::is_unnoticed`]), and it serves another coroutine: making one costs
//!   more than the whole step. One that was looked at is told the outcome and let go.
//! * A coroutine that suspends keeps its Task. The Task is given the step that was taken
//!   ([`Primed`]) and steps the coroutine itself from then on; at its end it tells the lane
//!   ([`Listener`]). If a result is all that came of it, it is made as new again
//!   ([`TaskLayout::renew`]).
//!
//! Where `asyncio.Task` is not that class (some tools put one of their own in its place), or is
//! laid out in a way that [`TaskLayout`] cannot tell, each coroutine is started with
//! `asyncio.Task(eager_start=True)`.
//!
//! # Who owns what
//!
//! [`Tasks`] belongs to one loop and its thread. It owns the idle Tasks, which are not
//! registered with asyncio while they are idle, and their listeners. A Task owns its coroutine and
//! its listener, the listener the completion, until it is told.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

use super::completion::{Completion, Next};
use super::current::{Asyncio, Current};
use super::listener::{Listener, catch};
use super::primed::{Primed, Taken};
use crate::python::call::{call_method, call_method_one, call_method_with, call_no_args, call_one};
use crate::python::context;
use crate::python::coroutine::{Step, is_coroutine, send};
use crate::python::task_layout::{PlainTask, TaskLayout};
use crate::python::unique::is_alone;

/// How many Tasks wait to serve again.
const MOST_IDLE: usize = 256;

/// The Task of a coroutine that suspended.
pub struct Waiting {
    task: Py<PyAny>,
    /// Makes the Task take a step; for [`Tasks::reuse`].
    step: Option<Py<PyAny>>,
    /// The address of its context.
    context: usize,
    /// What tells the lane of its end; for [`Tasks::reuse`].
    listener: Option<Py<Listener>>,
}

impl Waiting {
    /// The Task.
    pub fn task(&self) -> &Py<PyAny> {
        &self.task
    }

    /// The address of the context that is the Task's own: no other has it while the Task is there.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The Task, for whoever keeps it.
    pub fn into_task(self) -> Py<PyAny> {
        self.task
    }
}

/// Has a loop call a callback without arguments in its next turn, in a context, as `call_soon`
/// does; false when that is to be done in Python.
pub type CallSoon = Box<dyn for<'py> Fn(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<bool>>;

/// asyncio's functions, the class's layout and the idle Tasks of one loop.
pub(super) struct Tasks {
    pub(super) event_loop: Py<PyAny>,
    call_soon: Option<CallSoon>,
    class: Py<PyType>,
    asyncio: Asyncio,
    /// `("context",)`
    context_keyword: Py<PyTuple>,
    /// Looked at when the first Task is made: the loop runs then.
    layout: OnceCell<Option<TaskLayout>>,
    primed: Py<Primed>,
    /// What an idle Task has for a context.
    no_context: Py<PyAny>,
    idle: RefCell<Vec<Worker>>,
}

/// A Task, and the callable that makes it take its next step.
struct Worker {
    task: PlainTask,
    step: Py<PyAny>,
    /// Told nothing yet, or all.
    listener: Option<Py<Listener>>,
    /// Whether it is registered as taking its first step, apart from those that wait.
    eager: bool,
}

/// How a first step ended.
enum First<'py> {
    Ended(PyResult<Bound<'py, PyAny>>),
    /// It waits for this.
    Suspended(Bound<'py, PyAny>),
}

impl Tasks {
    pub(super) fn new(
        event_loop: &Bound<'_, PyAny>,
        call_soon: Option<CallSoon>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            call_soon,
            class: py.import("asyncio")?.getattr("Task")?.cast_into::<PyType>()?.unbind(),
            asyncio: Asyncio::new(py)?,
            context_keyword: PyTuple::new(py, ["context"])?.unbind(),
            layout: OnceCell::new(),
            primed: Py::new(py, Primed::new())?,
            no_context: py.import("contextvars")?.getattr("Context")?.call0()?.unbind(),
            idle: RefCell::new(Vec::new()),
        })
    }

    fn layout<'py>(&self, py: Python<'py>) -> PyResult<Option<&TaskLayout>> {
        if let Some(known) = self.layout.get() {
            return Ok(known.as_ref());
        }
        if !self.class.is(&self.asyncio.class) {
            return Ok(self.layout.get_or_init(|| None).as_ref());
        }
        self.check_running(py)?;
        let nobody = Current::nobody(&self.asyncio, self.event_loop.bind(py))?;
        let result = PyList::empty(py).into_any();
        let stand_ins = [Bound::new(py, Primed::new())?, Bound::new(py, Primed::new())?];
        stand_ins[0].get().prime(Taken::Returned(result.clone().unbind()));
        let make = |coroutine: &Bound<'py, PyAny>, context: &Bound<'py, PyAny>| {
            let keywords = PyDict::new(py);
            keywords.set_item("loop", self.event_loop.bind(py))?;
            keywords.set_item("context", context)?;
            let (task, step) =
                catch(py, || self.class.bind(py).call((coroutine,), Some(&keywords)))?;
            if step.is_none() {
                task.setattr("_log_destroy_pending", false)?;
                task.call_method0("cancel")?;
            }
            Ok(step.map(|step| (task, step)))
        };
        let class = self.class.bind(py);
        let unregister = self.asyncio.unregister.bind(py);
        let stand_ins = stand_ins.map(Bound::into_any);
        let layout = TaskLayout::probe(class, stand_ins, &result, make, unregister)?;
        drop(nobody);
        Ok(self.layout.get_or_init(|| layout).as_ref())
    }

    /// Takes the first step of `coroutine`; gives the Task if it suspended.
    ///
    /// `inherited` is the context to run in, entered already; without, it is a copy of the current
    /// one.
    pub(super) fn begin<'py>(
        &self,
        py: Python<'py>,
        coroutine: Bound<'py, PyAny>,
        inherited: Option<Bound<'py, PyAny>>,
        completion: &dyn Completion,
    ) -> PyResult<Option<Waiting>> {
        let Some(layout) = self.layout(py)? else {
            return self.begin_eagerly(py, &coroutine, inherited.as_ref(), completion);
        };
        let entered = inherited.is_some();
        let (worker, context) = self.worker(py, layout, &coroutine, inherited)?;
        let event_loop = self.event_loop.bind(py);
        let current = Current::enter(&self.asyncio, event_loop, worker.task.bind(py))?;
        let run = || match step(py, layout, &worker.task, coroutine, completion) {
            First::Ended(outcome) => Ok(Some(outcome)),
            First::Suspended(waited_for) => {
                current.leave()?;
                self.wait(layout, &worker, waited_for, &context).map(|()| None)
            }
        };
        let ended = if entered { run() } else { context::run(&context, run) };
        current.leave()?;
        match ended? {
            None => Ok(Some(Waiting {
                task: worker.task.into_inner(),
                step: Some(worker.step),
                context: context.as_ptr().addr(),
                listener: worker.listener,
            })),
            Some(outcome) => self.end(py, layout, worker, outcome).map(|()| None),
        }
    }

    /// A Task for `coroutine`, registered, and its context.
    fn worker<'py>(
        &self,
        py: Python<'py>,
        layout: &TaskLayout,
        coroutine: &Bound<'py, PyAny>,
        inherited: Option<Bound<'py, PyAny>>,
    ) -> PyResult<(Worker, Bound<'py, PyAny>)> {
        if is_coroutine(coroutine)
            && let Some(idle) = self.pop()
        {
            let context = inherited.map_or_else(|| context::copy_current(py), Ok)?;
            drop(layout.replace_context(py, &idle.task, context.clone()));
            drop(layout.replace_coroutine(py, &idle.task, coroutine.clone()));
            call_one(self.asyncio.register_eager.bind(py), idle.task.bind(py))?;
            return Ok((Worker { eager: true, ..idle }, context));
        }
        self.check_running(py)?;
        let (task, step) = catch(py, || call_one(self.class.bind(py), coroutine))?;
        let step = step.ok_or_else(|| PyRuntimeError::new_err("the loop took the first step"))?;
        let task = layout.admit(task)?;
        let context = match inherited {
            None => layout.context(py, &task),
            Some(context) => {
                drop(layout.replace_context(py, &task, context.clone()));
                context
            }
        };
        Ok((Worker { task, step: step.unbind(), listener: None, eager: false }, context))
    }

    /// Without a loop of its own to go to, a Task goes to the running one.
    fn check_running(&self, py: Python<'_>) -> PyResult<()> {
        if call_no_args(self.asyncio.running_loop.bind(py))?.is(&self.event_loop) {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err("the lane's event loop is not running"))
        }
    }

    /// Lets the Task wait for what its coroutine yielded, and go on by itself. It is not current,
    /// and its context is entered, as in any step.
    fn wait(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        waited_for: Bound<'_, PyAny>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = waited_for.py();
        let task = worker.task.bind(py);
        if waited_for.is_none() {
            self.step_soon(worker.step.bind(py), context)?;
        } else {
            self.step_primed(layout, worker, py, Taken::Yielded(waited_for.unbind()))?;
            if self.primed.get().was_thrown_at() {
                // It was asked to cancel in its first step: what it waits for is cancelled, or the
                // request stands. The request was counted then, so this one is not.
                let message = task.getattr(intern!(py, "_cancel_message"))?;
                task.call_method1(intern!(py, "cancel"), (message,))?;
                task.call_method0(intern!(py, "uncancel"))?;
            }
        }
        if worker.eager
            && let Some(register) = &self.asyncio.register
        {
            call_one(register.bind(py), task)?;
            call_one(self.asyncio.unregister_eager.bind(py), task)?;
        }
        Ok(())
    }

    /// Has the loop call `step` in its next turn.
    fn step_soon(&self, step: &Bound<'_, PyAny>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = step.py();
        if let Some(call_soon) = &self.call_soon
            && call_soon(step, context)?
        {
            return Ok(());
        }
        let (name, keyword) = (intern!(py, "call_soon"), self.context_keyword.bind(py));
        call_method_with(self.event_loop.bind(py), name, step, keyword, context).map(drop)
    }

    /// Keeps the Task of a coroutine that ended for the next, or tells it the outcome.
    fn end(
        &self,
        py: Python<'_>,
        layout: &TaskLayout,
        worker: Worker,
        outcome: PyResult<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let task = worker.task.bind(py);
        let unregister = match worker.eager {
            true => &self.asyncio.unregister_eager,
            false => &self.asyncio.unregister,
        };
        call_one(unregister.bind(py), task)?;
        if layout.is_unnoticed(py, &worker.task) {
            self.park(py, layout, worker);
            return Ok(());
        }
        let taken = match outcome {
            Ok(value) => Taken::Returned(value.unbind()),
            Err(error) => Taken::Raised(error),
        };
        let raised = matches!(taken, Taken::Raised(_));
        let stepped = self.step_primed(layout, &worker, py, taken);
        if raised {
            // The completion was told. What ends programs comes out of the step as well.
            return task.setattr(intern!(py, "_log_traceback"), false);
        }
        stepped
    }

    /// Keeps a Task that is as new, and not registered.
    fn park(&self, py: Python<'_>, layout: &TaskLayout, worker: Worker) {
        let primed = self.primed.bind(py).clone().into_any();
        drop(layout.replace_coroutine(py, &worker.task, primed));
        drop(layout.replace_context(py, &worker.task, self.no_context.bind(py).clone()));
        let surplus = {
            let mut idle = self.idle.borrow_mut();
            if idle.len() < MOST_IDLE {
                idle.push(worker);
                return;
            }
            worker
        };
        retire(py, &surplus);
    }

    fn pop(&self) -> Option<Worker> {
        self.idle.borrow_mut().pop()
    }

    pub(super) fn reuse(&self, py: Python<'_>, waiting: Waiting) -> PyResult<()> {
        let (Some(layout), Some(step)) = (self.layout.get().and_then(Option::as_ref), waiting.step)
        else {
            return Ok(());
        };
        let task = layout.admit(waiting.task.into_bound(py))?;
        if self.asyncio.register.is_some() {
            // Up to CPython 3.13 a Task stays registered when it is done.
            call_one(self.asyncio.unregister.bind(py), task.bind(py))?;
        }
        if let Some(result) = layout.renew(py, &task) {
            drop(result);
            let listener = waiting.listener;
            self.park(py, layout, Worker { task, step, listener, eager: true });
        }
        Ok(())
    }

    /// Makes the Task take a step that was taken already.
    fn step_primed(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        py: Python<'_>,
        taken: Taken,
    ) -> PyResult<()> {
        self.primed.get().prime(taken);
        let primed = self.primed.bind(py).clone().into_any();
        let step = || call_no_args(worker.step.bind(py)).map(drop);
        layout.with_stand_in(py, &worker.task, primed, step)
    }

    /// `begin` with asyncio's own first step.
    fn begin_eagerly<'py>(
        &self,
        py: Python<'py>,
        coroutine: &Bound<'py, PyAny>,
        inherited: Option<&Bound<'py, PyAny>>,
        completion: &dyn Completion,
    ) -> PyResult<Option<Waiting>> {
        self.check_running(py)?;
        let make = |coroutine: &Bound<'py, PyAny>, context: Option<&Bound<'py, PyAny>>| {
            let keywords = PyDict::new(py);
            keywords.set_item("loop", self.event_loop.bind(py))?;
            keywords.set_item("context", context)?;
            // An eager Task enters its context, which must not be entered.
            keywords.set_item("eager_start", context.is_none())?;
            // What ends programs comes out of an eager Task's `__init__`. The Task is done all the
            // same, and would be lost with its outcome were it made in one call.
            let class = self.class.bind(py);
            let task = class.call_method1(intern!(py, "__new__"), (class,))?;
            let made = task.call_method(intern!(py, "__init__"), (coroutine,), Some(&keywords));
            if let Err(error) = made {
                // One that was not made at all raises here.
                let done = task.call_method0(intern!(py, "done")).and_then(|done| done.is_truthy());
                return done.is_ok_and(|done| done).then_some(task).ok_or(error);
            }
            Ok(task)
        };
        let task = make(coroutine, inherited)?;
        if !task.call_method0(intern!(py, "done"))?.is_truthy()? {
            let context = task.call_method0(intern!(py, "get_context"))?.as_ptr().addr();
            return Ok(Some(Waiting { task: task.unbind(), step: None, context, listener: None }));
        }
        let outcome = call_method(&task, intern!(py, "result"));
        let context = task.call_method0(intern!(py, "get_context"))?;
        match context::run(&context, || Ok(completion.complete(py, outcome)))? {
            Next::Done => Ok(None),
            Next::Await(next) => {
                let task = make(next.bind(py), Some(&context))?;
                let context = context.as_ptr().addr();
                Ok(Some(Waiting { task: task.unbind(), step: None, context, listener: None }))
            }
        }
    }

    /// Has `completion` told what becomes of the Task.
    pub(super) fn listen(
        self: &Rc<Self>,
        py: Python<'_>,
        waiting: &mut Waiting,
        completion: Rc<dyn Completion>,
    ) -> PyResult<()> {
        let listener = match waiting.listener.take() {
            // Nobody has it: the Task it listened to has let go of it.
            Some(listener) if is_alone(py, &listener) && listener.get().is_told() => {
                listener.get().listen(self.clone(), completion);
                listener
            }
            _ => Py::new(py, Listener::new(self.clone(), completion))?,
        };
        let task = waiting.task.bind(py);
        // The loop tells a listener inside the Task's context, whatever context this one is.
        let context = self.no_context.bind(py).clone();
        let layout = self.layout.get().and_then(Option::as_ref);
        let callback = listener.bind(py).clone().into_any();
        if !layout.is_some_and(|layout| layout.set_callback(task, callback, context)) {
            call_method_one(task, intern!(py, "add_done_callback"), listener.bind(py))?;
        }
        waiting.listener = Some(listener);
        Ok(())
    }

    /// What `task`, which is done, came to.
    pub(super) fn outcome<'py>(&self, task: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let layout = self.layout.get().and_then(Option::as_ref);
        match layout.and_then(|layout| layout.result(task)) {
            Some(result) => Ok(result),
            None => call_method(task, intern!(task.py(), "result")),
        }
    }

    /// Runs `coroutine` after `ended`, whose context is entered and whose `completion` wants it.
    pub(super) fn go_on(
        self: &Rc<Self>,
        ended: &Bound<'_, PyAny>,
        coroutine: Py<PyAny>,
        completion: &Rc<dyn Completion>,
    ) {
        let py = ended.py();
        let started = ended
            .call_method0(intern!(py, "get_context"))
            .and_then(|context| {
                self.begin(py, coroutine.into_bound(py), Some(context), &**completion)
            })
            .and_then(|suspended| match suspended {
                None => Ok(()),
                Some(mut waiting) => {
                    self.listen(py, &mut waiting, completion.clone())?;
                    completion.goes_on(py, waiting);
                    Ok(())
                }
            });
        if let Err(error) = started
            && let Next::Await(_) = completion.complete(py, Err(error))
        {
            // What cannot be started is not worth starting more for.
        }
    }
}

/// Takes the first step of `coroutine`, and of those that follow while none suspends.
fn step<'py>(
    py: Python<'py>,
    layout: &TaskLayout,
    task: &PlainTask,
    mut coroutine: Bound<'py, PyAny>,
    completion: &dyn Completion,
) -> First<'py> {
    loop {
        let outcome = match send(&coroutine, py.None().bind(py)) {
            Step::Yielded(value) => return First::Suspended(value),
            Step::Returned(value) => Ok(value),
            Step::Raised(error) => Err(error),
        };
        let kept = match &outcome {
            Ok(value) => Ok(value.clone()),
            Err(error) => Err(error.clone_ref(py)),
        };
        match completion.complete(py, outcome) {
            Next::Done => return First::Ended(kept),
            Next::Await(next) => {
                coroutine = next.into_bound(py);
                drop(layout.replace_coroutine(py, task, coroutine.clone()));
            }
        }
    }
}

/// Prepares a Task to go that is pending and will stay so.
fn retire(py: Python<'_>, worker: &Worker) {
    let task = worker.task.bind(py);
    if let Err(error) = task.setattr(intern!(py, "_log_destroy_pending"), false) {
        error.write_unraisable(py, Some(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let idle = self.idle.take();
        if !idle.is_empty() {
            // When the interpreter is gone, nobody is left to complain about them.
            Python::try_attach(|py| idle.iter().for_each(|worker| retire(py, worker)));
        }
    }
}
