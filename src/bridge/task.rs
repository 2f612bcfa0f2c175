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
//! * A coroutine that only gives way (`asyncio.sleep(0)`), or that waits for a future of asyncio's own
//!   class, keeps its Task, and the lane takes the next step, too ([`InLane`]).
//! * One that waits for anything else keeps its Task. The Task is given the step that was taken
//!   ([`Primed`]) and steps the coroutine itself from then on; at its end it tells the lane
//!   ([`Listener`]). If a result is all that came of it, it is made as new again
//!   ([`TaskLayout::renew`]).
//!
//! Where `asyncio.Task` is not that class (some tools put one of their own in its place), or is
//! laid out in a way that [`TaskLayout`] cannot tell, each coroutine is started with
//! `asyncio.Task(eager_start=True)` ([`eager`](super::eager)).
//!
//! # Who owns what
//!
//! [`Tasks`] belongs to one loop and its thread. It owns the idle Tasks, which are not
//! registered with asyncio while they are idle, and their listeners. A Task owns its coroutine and
//! its listener, the listener the completion, until it is told.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};

use super::completion::{Completion, Next};
use super::current::{Asyncio, Current};
use super::in_lane::{InLane, ReadyQueue};
use super::lane_wakeup::LaneWakeup;
use super::listener::{Listener, catch};
use super::primed::{Primed, Taken};
use super::scope::Scope;
use super::waiting::Waiting;
use crate::python::call::{call_method, call_method_one, call_method_with, call_no_args, call_one};
use crate::python::context;
use crate::python::coroutine::{Step, is_coroutine, send};
use crate::python::future_layout::FutureLayout;
use crate::python::task_layout::{PlainTask, TaskLayout};
use crate::python::unique::is_alone;

/// How many Tasks wait to serve again.
const MOST_IDLE: usize = 256;

/// asyncio's functions, the class's layout and the idle Tasks of one loop.
pub(super) struct Tasks {
    pub(super) event_loop: Py<PyAny>,
    pub(super) ready: Option<Rc<dyn ReadyQueue>>,
    pub(super) class: Py<PyType>,
    pub(super) asyncio: Asyncio,
    /// `("context",)`
    context_keyword: Py<PyTuple>,
    /// Looked at when the first Task is made: the loop runs then.
    pub(super) layout: OnceCell<Option<TaskLayout>>,
    /// How a Task waits for a future, where the lane can have that done.
    pub(super) futures: OnceCell<&'static FutureLayout>,
    primed: Py<Primed>,
    /// What an idle Task has for a context.
    pub(super) no_context: Py<PyAny>,
    idle: RefCell<Vec<Worker>>,
}

/// A Task, and the callable that makes it take its next step.
pub(super) struct Worker {
    pub(super) task: PlainTask,
    pub(super) step: Py<PyAny>,
    /// Told nothing yet, or all.
    listener: Cell<Option<Py<Listener>>>,
    /// Idle, if the last future that it stood in is gone.
    pub(super) wakeup: Cell<Option<Py<LaneWakeup>>>,
    /// Whether it is registered as taking its first step, apart from those that wait.
    eager: Cell<bool>,
}

/// How a step ended that the lane took.
pub(super) enum Stepped<'py> {
    Ended(PyResult<Bound<'py, PyAny>>),
    /// It only gives way to others.
    GaveWay,
    /// It waits for a future, and this stands in it.
    WaitsInLane(Py<LaneWakeup>),
    /// It waits for something, and its Task goes on by itself.
    Waits,
}

impl Tasks {
    pub(super) fn new(
        event_loop: &Bound<'_, PyAny>,
        ready: Option<Rc<dyn ReadyQueue>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            ready,
            class: py.import("asyncio")?.getattr("Task")?.cast_into::<PyType>()?.unbind(),
            asyncio: Asyncio::new(py)?,
            context_keyword: PyTuple::new(py, ["context"])?.unbind(),
            layout: OnceCell::new(),
            futures: OnceCell::new(),
            primed: Py::new(py, Primed::new())?,
            no_context: py.import("contextvars")?.getattr("Context")?.call0()?.unbind(),
            idle: RefCell::new(Vec::new()),
        })
    }

    /// Takes the first step of `coroutine`; gives the Task if it suspended.
    pub(super) fn begin<'py>(
        self: &Rc<Self>,
        py: Python<'py>,
        coroutine: Bound<'py, PyAny>,
        scope: Scope<'py>,
        completion: &dyn Completion,
    ) -> PyResult<Option<Waiting>> {
        let Some(layout) = self.layout(py)? else {
            return self.begin_eagerly(py, &coroutine, &scope, completion);
        };
        let entered = matches!(scope, Scope::Entered(_));
        let (worker, context) = self.worker(py, layout, &coroutine, scope.given())?;
        // To the end: a Task that is told its outcome takes a step of its own.
        let current = self.enter(py, &worker)?;
        let place = (&context, entered, &current);
        match self.step(layout, &worker, coroutine, place, completion)? {
            Stepped::Ended(outcome) => self.end(py, layout, worker, outcome).map(|()| None),
            Stepped::GaveWay => {
                self.registered(py, &worker)?;
                let address = context.as_ptr().addr();
                let worker = match InLane::give_way(self, worker, context.clone()) {
                    Ok(in_lane) => return Ok(Some(Waiting::in_lane(in_lane))),
                    Err(worker) => worker,
                };
                self.step_soon(worker.step.bind(py), &context)?;
                Ok(Some(Waiting::of_lane(worker, address)))
            }
            Stepped::WaitsInLane(wakeup) => {
                self.registered(py, &worker)?;
                Ok(Some(Waiting::in_lane(InLane::wait(self, worker, context, &wakeup))))
            }
            Stepped::Waits => {
                self.registered(py, &worker)?;
                Ok(Some(Waiting::of_lane(worker, context.as_ptr().addr())))
            }
        }
    }

    /// Makes the Task of `worker` the current one.
    pub(super) fn enter<'a, 'py>(
        &'a self,
        py: Python<'py>,
        worker: &Worker,
    ) -> PyResult<Current<'a, 'py>> {
        Current::enter(&self.asyncio, self.event_loop.bind(py), worker.task.bind(py))
    }

    /// Takes a step of the coroutine of `worker`, whose Task is current until then, and lets the
    /// Task wait for what it came to, in a context that may be entered already.
    pub(super) fn step<'py>(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        coroutine: Bound<'py, PyAny>,
        (context, entered, current): (&Bound<'py, PyAny>, bool, &Current<'_, 'py>),
        completion: &dyn Completion,
    ) -> PyResult<Stepped<'py>> {
        let py = coroutine.py();
        let run = || match step(py, layout, &worker.task, coroutine, completion) {
            First::Ended(outcome) => Ok(Stepped::Ended(outcome)),
            First::Suspended(waited_for) if waited_for.is_none() => Ok(Stepped::GaveWay),
            First::Suspended(waited_for) => {
                current.leave()?;
                match self.wait_in_lane(layout, worker, &waited_for, context) {
                    Some(wakeup) => Ok(Stepped::WaitsInLane(wakeup)),
                    None => self.wait(layout, worker, waited_for).map(|()| Stepped::Waits),
                }
            }
        };
        let stepped = if entered { run() } else { context::run(context, run) };
        current.leave()?;
        stepped
    }

    #[cfg(test)]
    pub(super) fn knows_thread(&self) -> bool {
        self.asyncio.knows_thread()
    }

    pub(super) fn known_layout(&self) -> Option<&TaskLayout> {
        self.layout.get().and_then(Option::as_ref)
    }

    pub(super) fn futures(&self) -> Option<&'static FutureLayout> {
        self.futures.get().copied()
    }

    /// The loop's ready queue, where the lane may use it.
    pub(super) fn open_queue(&self) -> Option<&Rc<dyn ReadyQueue>> {
        self.ready.as_ref().filter(|ready| ready.is_open())
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
            && let Some(idle) = self.pop(py, layout)
        {
            let context = inherited.map_or_else(|| context::copy_current(py), Ok)?;
            drop(layout.replace_both(py, &idle.task, coroutine.clone(), context.clone()));
            self.asyncio.begins(py, &idle.task)?;
            idle.eager.set(true);
            return Ok((idle, context));
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
        let (listener, wakeup, eager) = (Cell::new(None), Cell::new(None), Cell::new(false));
        Ok((Worker { task, step: step.unbind(), listener, wakeup, eager }, context))
    }

    /// Without a loop of its own to go to, a Task goes to the running one.
    pub(super) fn check_running(&self, py: Python<'_>) -> PyResult<()> {
        if call_no_args(self.asyncio.running_loop.bind(py))?.is(&self.event_loop) {
            Ok(())
        } else {
            Err(PyRuntimeError::new_err("the lane's event loop is not running"))
        }
    }

    /// Has the lane take the next step when the future that the coroutine yielded is done; `None`
    /// where it is none, or has to be waited for by the Task itself.
    fn wait_in_lane(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        waited_for: &Bound<'_, PyAny>,
        context: &Bound<'_, PyAny>,
    ) -> Option<Py<LaneWakeup>> {
        let py = waited_for.py();
        let futures = self.futures().filter(|futures| futures.is_future(waited_for))?;
        self.open_queue()?;
        let wakeup = match worker.wakeup.take() {
            // Nobody has it: the future that it stood in has let go of it.
            Some(idle) if is_alone(py, &idle) && idle.get().is_idle() => idle,
            _ => Py::new(py, LaneWakeup::new(worker.step.clone_ref(py))).ok()?,
        };
        let callback = (wakeup.bind(py).clone().into_any(), context.clone());
        if futures.wait(layout, &worker.task, waited_for, self.event_loop.bind(py), callback) {
            return Some(wakeup);
        }
        worker.wakeup.set(Some(wakeup));
        None
    }

    /// Lets the Task wait for what its coroutine yielded, and go on by itself. It is not current,
    /// and its context is entered, as in any step.
    pub(super) fn wait(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        waited_for: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = waited_for.py();
        let task = worker.task.bind(py);
        self.step_primed(layout, worker, py, Taken::Yielded(waited_for.unbind()))?;
        if self.primed.get().was_thrown_at() {
            // It was asked to cancel in this step: what it waits for is cancelled, or the request
            // stands. The request was counted then, so this one is not.
            let message = task.getattr(intern!(py, "_cancel_message"))?;
            task.call_method1(intern!(py, "cancel"), (message,))?;
            task.call_method0(intern!(py, "uncancel"))?;
        }
        Ok(())
    }

    /// Registers a Task that took its first step with those that wait.
    fn registered(&self, py: Python<'_>, worker: &Worker) -> PyResult<()> {
        if worker.eager.replace(false) {
            self.asyncio.waits(py, &worker.task)?;
        }
        Ok(())
    }

    /// Has the loop call the Task's own step in its next turn.
    pub(super) fn step_soon(
        &self,
        step: &Bound<'_, PyAny>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = step.py();
        let (name, keyword) = (intern!(py, "call_soon"), self.context_keyword.bind(py));
        call_method_with(self.event_loop.bind(py), name, step, keyword, context).map(drop)
    }

    /// Keeps the Task of a coroutine that ended for the next, or tells it the outcome.
    pub(super) fn end(
        &self,
        py: Python<'_>,
        layout: &TaskLayout,
        worker: Worker,
        outcome: PyResult<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let task = worker.task.bind(py);
        self.asyncio.ends(py, &worker.task, worker.eager.get())?;
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
    pub(super) fn park(&self, py: Python<'_>, layout: &TaskLayout, worker: Worker) {
        let primed = self.primed.bind(py).clone().into_any();
        let no_context = self.no_context.bind(py).clone();
        drop(layout.replace_both(py, &worker.task, primed, no_context));
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

    /// An idle Task that is nobody else's.
    fn pop(&self, py: Python<'_>, layout: &TaskLayout) -> Option<Worker> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if layout.is_alone(py, &idle.task) {
                return Some(idle);
            }
            retire(py, &idle);
        }
    }

    /// Makes the Task take a step that was taken already.
    fn step_primed(
        &self,
        layout: &TaskLayout,
        worker: &Worker,
        py: Python<'_>,
        taken: Taken,
    ) -> PyResult<()> {
        let primed = self.primed.get();
        primed.prime(taken);
        primed.stand_in_for(Some(layout.coroutine(py, &worker.task).unbind()));
        let step = || call_no_args(worker.step.bind(py)).map(drop);
        let stand_in = self.primed.bind(py).clone().into_any();
        let stepped = layout.with_stand_in(py, &worker.task, stand_in, step);
        primed.stand_in_for(None);
        stepped
    }

    /// Has `completion` told what becomes of a Task that goes on by itself.
    pub(super) fn listen_to(
        self: &Rc<Self>,
        py: Python<'_>,
        worker: &Worker,
        completion: Rc<dyn Completion>,
    ) -> PyResult<()> {
        let listener = match worker.listener.take() {
            // Nobody has it: the Task it listened to has let go of it.
            Some(listener) if is_alone(py, &listener) && listener.get().is_told() => {
                listener.get().listen(self.clone(), completion);
                listener
            }
            _ => Py::new(py, Listener::new(self.clone(), completion))?,
        };
        let task = worker.task.bind(py);
        // The loop tells a listener inside the Task's context, whatever context this one is.
        let context = self.no_context.bind(py).clone();
        let callback = listener.bind(py).clone().into_any();
        let layout = self.known_layout();
        if !layout.is_some_and(|layout| layout.set_callback(task, callback, context)) {
            call_method_one(task, intern!(py, "add_done_callback"), listener.bind(py))?;
        }
        worker.listener.set(Some(listener));
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
                let scope = Scope::Entered(context);
                self.begin(py, coroutine.into_bound(py), scope, &**completion)
            })
            .and_then(|suspended| match suspended {
                None => Ok(()),
                Some(waiting) => {
                    self.listen(py, &waiting, completion.clone())?;
                    completion.goes_on(py, waiting);
                    Ok(())
                }
            });
        if let Err(error) = started
            && let Next::Await(_) = completion.complete(py, &Err(error))
        {
            // What cannot be started is not worth starting more for.
        }
    }
}

/// How a step of a coroutine ended.
enum First<'py> {
    Ended(PyResult<Bound<'py, PyAny>>),
    /// It waits for this.
    Suspended(Bound<'py, PyAny>),
}

/// Takes a step of `coroutine`, and the first ones of those that follow while none suspends.
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
        match completion.complete(py, &outcome) {
            Next::Done => return First::Ended(outcome),
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
