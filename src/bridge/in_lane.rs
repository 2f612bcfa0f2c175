//! A coroutine whose next step the lane takes: one that gave way to others (a bare `yield`, as in
//! `asyncio.sleep(0)`), or that waits for a future of asyncio's own class.
//!
//! asyncio's Task would have the loop call its own next step, or wake it when the future is done. The
//! lane takes that step itself, as it took the first: without a handle, and without a Task that has
//! to be told what it did. A Task that something happened to meanwhile (it was asked to cancel; the
//! future has an exception) is given back to asyncio as it would have it, and takes this step itself,
//! and all others.
//!
//! # Who owns what
//!
//! Until its turn comes, the ready queue owns a [`Resumption`] or the future a [`LaneWakeup`];
//! whoever waits for the coroutine owns its [`Waiting`](super::Waiting). They share an [`InLane`], on
//! the loop's thread. That owns the Task until the coroutine has ended; then the Task serves another,
//! or is told and let go.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::intern;
use pyo3::prelude::*;

use super::completion::Completion;
use super::lane_wakeup::LaneWakeup;
use super::listener::catch;
use super::task::{Stepped, Tasks, Worker};
use crate::python::call::{call_no_args, call_one};
use crate::python::context;
use crate::python::future_layout::Woken;
use crate::python::lane_bound::LaneBound;

/// A Task whose next step the lane takes.
pub(super) struct InLane {
    tasks: Rc<Tasks>,
    /// `None` once the coroutine ended while the lane stepped it.
    worker: RefCell<Option<Worker>>,
    context: Py<PyAny>,
    /// Who is told; known by the time the turn comes. `None` once the Task goes on by itself.
    completion: RefCell<Option<Rc<dyn Completion>>>,
}

/// A coroutine in the ready queue.
pub struct Resumption(LaneBound<Rc<InLane>>);

impl Resumption {
    /// Takes the next step. What gave way on another thread stays where it is.
    ///
    /// # Errors
    /// What ends the loop.
    pub fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get().map_or(Ok(()), |in_lane| in_lane.resume(py))
    }
}

/// The ready queue of a loop, reached without Python.
pub trait ReadyQueue {
    /// Whether it takes anything; where not, the loop's `call_soon` has more to do.
    fn is_open(&self) -> bool;

    /// Has a coroutine resumed in the next turn.
    fn push(&self, resumption: Resumption);
}

impl InLane {
    fn new(tasks: &Rc<Tasks>, worker: Worker, context: Bound<'_, PyAny>) -> Rc<Self> {
        Rc::new(Self {
            tasks: tasks.clone(),
            worker: RefCell::new(Some(worker)),
            context: context.unbind(),
            completion: RefCell::new(None),
        })
    }

    /// Has the next step of `worker` taken in the next turn of its loop; gives it back where that is
    /// asyncio's business.
    pub(super) fn give_way(
        tasks: &Rc<Tasks>,
        worker: Worker,
        context: Bound<'_, PyAny>,
    ) -> Result<Rc<Self>, Worker> {
        let Some(ready) = tasks.open_queue() else {
            return Err(worker);
        };
        let in_lane = Self::new(tasks, worker, context);
        ready.push(Resumption(LaneBound::new(in_lane.clone())));
        Ok(in_lane)
    }

    /// Has the next step of `worker` taken when the future is done that `wakeup` stands in.
    pub(super) fn wait(
        tasks: &Rc<Tasks>,
        worker: Worker,
        context: Bound<'_, PyAny>,
        wakeup: &Py<LaneWakeup>,
    ) -> Rc<Self> {
        let in_lane = Self::new(tasks, worker, context);
        wakeup.get().wakes(in_lane.clone());
        in_lane
    }

    /// The address of the context.
    pub(super) fn context(&self) -> usize {
        self.context.as_ptr().addr()
    }

    /// The context, which nobody needs any more.
    pub(super) fn into_context(self, py: Python<'_>) -> Bound<'_, PyAny> {
        self.context.into_bound(py)
    }

    /// Does something with the Task, unless it has ended.
    pub(super) fn with_task<R>(
        &self,
        py: Python<'_>,
        act: impl FnOnce(&Bound<'_, PyAny>) -> R,
    ) -> Option<R> {
        self.worker.borrow().as_ref().map(|worker| act(worker.task.bind(py)))
    }

    /// Whoever waited does not any more; gives the Task, unless that has gone already.
    pub(super) fn take(&self) -> Option<Worker> {
        self.worker.try_borrow_mut().ok()?.take()
    }

    /// Has `completion` told of the end.
    pub(super) fn listen(&self, completion: Rc<dyn Completion>) {
        self.completion.replace(Some(completion));
    }

    fn resume(self: &Rc<Self>, py: Python<'_>) -> PyResult<()> {
        self.tell(|completion| self.go_on(py, completion))
    }

    /// The future is done that `wakeup` stood in, and the context is entered.
    pub(super) fn wake(
        self: Rc<Self>,
        wakeup: Bound<'_, LaneWakeup>,
        future: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.tell(|completion| self.woken(wakeup, future, completion))
    }

    /// Runs a step of which the completion is told.
    fn tell(&self, step: impl FnOnce(&Rc<dyn Completion>) -> PyResult<()>) -> PyResult<()> {
        let completion = self.completion.borrow().clone();
        completion.map_or(Ok(()), |completion| {
            completion.steps();
            let outcome = step(&completion);
            completion.stepped();
            outcome
        })
    }

    fn go_on(self: &Rc<Self>, py: Python<'_>, completion: &Rc<dyn Completion>) -> PyResult<()> {
        let (tasks, context) = (&self.tasks, self.context.bind(py));
        let slot = self.worker.borrow();
        let (Some(layout), Some(worker)) = (tasks.known_layout(), slot.as_ref()) else {
            return Ok(());
        };
        if !layout.may_be_stepped(py, &worker.task) {
            self.leave(py, worker, completion)?;
            return context::run(context, || call_no_args(worker.step.bind(py))).map(drop);
        }
        drop(slot);
        self.step(py, completion, false)
    }

    fn woken(
        self: &Rc<Self>,
        wakeup: Bound<'_, LaneWakeup>,
        future: &Bound<'_, PyAny>,
        completion: &Rc<dyn Completion>,
    ) -> PyResult<()> {
        let (py, tasks) = (future.py(), &self.tasks);
        let slot = self.worker.borrow();
        let (Some(layout), Some(futures), Some(worker)) =
            (tasks.known_layout(), tasks.futures(), slot.as_ref())
        else {
            return Ok(());
        };
        match futures.wake(layout, &worker.task, future) {
            Woken::Plain => {
                worker.wakeup.set(Some(wakeup.unbind()));
                drop(slot);
                self.step(py, completion, true)
            }
            Woken::Otherwise => {
                self.leave(py, worker, completion)?;
                future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
                // Of a future that is done, the Task's waking is called for at once.
                let wait = || tasks.wait(layout, worker, future.clone());
                match catch(py, wait)? {
                    ((), Some(wake)) => call_one(&wake, future).map(drop),
                    ((), None) => Ok(()),
                }
            }
            Woken::Stale => {
                wakeup.get().wakes(self.clone());
                Ok(())
            }
        }
    }

    /// Takes a step. Nothing happened to the Task; its context is entered, or it is to be.
    fn step(
        self: &Rc<Self>,
        py: Python<'_>,
        completion: &Rc<dyn Completion>,
        entered: bool,
    ) -> PyResult<()> {
        let (tasks, context) = (&self.tasks, self.context.bind(py));
        let slot = self.worker.borrow();
        let (Some(layout), Some(worker)) = (tasks.known_layout(), slot.as_ref()) else {
            return Ok(());
        };
        let coroutine = layout.coroutine(py, &worker.task);
        let current = tasks.enter(py, worker)?;
        let place = (context, entered, &current);
        match tasks.step(layout, worker, coroutine, place, &**completion)? {
            Stepped::Ended(outcome) => {
                drop(slot);
                self.completion.take();
                self.take().map_or(Ok(()), |worker| tasks.end(py, layout, worker, outcome))
            }
            Stepped::Waits => self.leave(py, worker, completion),
            Stepped::WaitsInLane(wakeup) => {
                wakeup.get().wakes(self.clone());
                Ok(())
            }
            Stepped::GaveWay => match tasks.open_queue() {
                Some(ready) => {
                    ready.push(Resumption(LaneBound::new(self.clone())));
                    Ok(())
                }
                None => {
                    self.leave(py, worker, completion)?;
                    tasks.step_soon(worker.step.bind(py), context)
                }
            },
        }
    }

    /// The Task goes on by itself from now on.
    fn leave(
        &self,
        py: Python<'_>,
        worker: &Worker,
        completion: &Rc<dyn Completion>,
    ) -> PyResult<()> {
        self.completion.take();
        completion.left_to_task(self.context());
        self.tasks.listen_to(py, worker, completion.clone())
    }
}
