//! A coroutine that gave way to others and waits for nothing: a bare `yield`, as in
//! `asyncio.sleep(0)`.
//!
//! asyncio's Task would have the loop call its own next step. The lane takes that step itself, as it
//! took the first: without a handle, and without a Task that has to be told what it did. A Task that
//! something happened to meanwhile (it was asked to cancel) takes its step itself, and all others.
//!
//! # Who owns what
//!
//! The ready queue owns a [`Resumption`] until its turn, and whoever waits for the coroutine its
//! [`Waiting`](super::Waiting); both share a [`BareYield`], on the loop's thread. That owns the Task
//! until the coroutine has ended; then the Task serves another, or is told and let go.

use std::cell::RefCell;
use std::rc::Rc;

use pyo3::prelude::*;

use super::completion::Completion;
use super::task::{Stepped, Tasks, Worker};
use crate::python::call::call_no_args;
use crate::python::context;
use crate::python::lane_bound::LaneBound;

/// A Task whose next step the lane takes.
pub(super) struct BareYield {
    tasks: Rc<Tasks>,
    /// `None` once the coroutine ended while the lane stepped it.
    worker: RefCell<Option<Worker>>,
    context: Py<PyAny>,
    /// Who is told; known by the time the turn comes. `None` once the Task goes on by itself.
    completion: RefCell<Option<Rc<dyn Completion>>>,
}

/// A coroutine in the ready queue.
pub struct Resumption(LaneBound<Rc<BareYield>>);

impl Resumption {
    /// Takes the next step. What gave way on another thread stays where it is.
    ///
    /// # Errors
    /// What ends the loop.
    pub fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get().map_or(Ok(()), |yielded| yielded.resume(py))
    }
}

/// The ready queue of a loop, reached without Python.
pub trait ReadyQueue {
    /// Whether it takes anything; where not, the loop's `call_soon` has more to do.
    fn is_open(&self) -> bool;

    /// Has a coroutine resumed in the next turn.
    fn push(&self, resumption: Resumption);
}

impl BareYield {
    /// Has the next step of `worker` taken in the next turn of its loop; gives it back where that is
    /// asyncio's business.
    pub(super) fn queue(
        tasks: &Rc<Tasks>,
        worker: Worker,
        context: Bound<'_, PyAny>,
    ) -> Result<Rc<Self>, Worker> {
        let Some(ready) = tasks.ready().filter(|ready| ready.is_open()) else {
            return Err(worker);
        };
        let yielded = Rc::new(Self {
            tasks: tasks.clone(),
            worker: RefCell::new(Some(worker)),
            context: context.unbind(),
            completion: RefCell::new(None),
        });
        ready.push(Resumption(LaneBound::new(yielded.clone())));
        Ok(yielded)
    }

    /// The address of the context.
    pub(super) fn context(&self) -> usize {
        self.context.as_ptr().addr()
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
        let completion = self.completion.borrow().clone();
        completion.map_or(Ok(()), |completion| {
            completion.steps();
            let outcome = self.step(py, &completion);
            completion.stepped();
            outcome
        })
    }

    fn step(self: &Rc<Self>, py: Python<'_>, completion: &Rc<dyn Completion>) -> PyResult<()> {
        let (tasks, context) = (&self.tasks, self.context.bind(py));
        let slot = self.worker.borrow();
        let (Some(layout), Some(worker)) = (tasks.known_layout(), slot.as_ref()) else {
            return Ok(());
        };
        if !layout.may_be_stepped(py, &worker.task) {
            self.leave(py, worker, completion)?;
            return context::run(context, || call_no_args(worker.step.bind(py))).map(drop);
        }
        let coroutine = layout.coroutine(py, &worker.task);
        let current = tasks.enter(py, worker)?;
        let place = (context, false, &current);
        match tasks.step(layout, worker, coroutine, place, &**completion)? {
            Stepped::Ended(outcome) => {
                drop(slot);
                self.completion.take();
                self.take().map_or(Ok(()), |worker| tasks.end(py, layout, worker, outcome))
            }
            Stepped::Waits => self.leave(py, worker, completion),
            Stepped::GaveWay => match tasks.ready().filter(|ready| ready.is_open()) {
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
