//! A loop's home: what the bridge keeps on the thread of one loop.
//!
//! # Who owns what
//!
//! A lane's home is made with its loop and entered for as long as the loop runs. Any other loop
//! (asyncio's own, uvloop) is given one when it first meets the bridge; the thread keeps those
//! ([`foreign`]). Only the loop's thread reaches a home; what others have for it goes through its
//! [`Mailbox`].
//!
//! * `waiting` roots the awaitables that a coroutine is suspended on, as a loop's timers root
//!   theirs: their wakers hold no Python object.
//! * `woken` are those that can go on, woken on this very thread: no lock, no system call.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyTuple};
use slab::Slab;

use super::awaitable::RustAwaitable;
use super::factory::TaskFactory;
use super::foreign;
use super::mailbox::{Errand, Letter, Mailbox};
use super::signal::Signal;
use super::thread_end;
use crate::python::call::{call_one, vectorcall};
use crate::python::context;
use crate::telemetry::Steps;

thread_local! {
    /// The home of the lane that runs on this thread.
    static CURRENT: RefCell<Option<Rc<Home>>> = const { RefCell::new(None) };
}

/// What the bridge keeps for one loop, on its thread.
pub struct Home {
    mailbox: Arc<Mailbox>,
    /// Set while the loop runs: the home of a loop that was forgotten does not keep it alive.
    live: RefCell<Option<Rc<Live>>>,
    waker: RefCell<Option<Waker>>,
    woken: RefCell<Vec<Arc<Signal>>>,
    waiting: RefCell<Slab<Waiting>>,
    /// The turn is running: it comes to what is woken by itself.
    in_turn: Cell<bool>,
    closed: Cell<bool>,
    steps: Rc<Steps>,
}

/// What is called on the loop.
pub(super) struct Live {
    pub(super) tasks: Rc<TaskFactory>,
    call_soon: Py<PyAny>,
    /// `("context",)`
    context_keyword: Py<PyTuple>,
    /// Callbacks are to be run, timed and checked by the loop.
    debug: bool,
    steps: Rc<Steps>,
}

impl Live {
    fn new(py: Python<'_>, tasks: Rc<TaskFactory>, steps: &Rc<Steps>) -> PyResult<Rc<Self>> {
        let event_loop = tasks.event_loop().bind(py);
        Ok(Rc::new(Self {
            debug: event_loop.call_method0(pyo3::intern!(py, "get_debug"))?.is_truthy()?,
            call_soon: tasks.event_loop().getattr(py, pyo3::intern!(py, "call_soon"))?,
            tasks,
            context_keyword: PyTuple::new(py, [pyo3::intern!(py, "context")])?.unbind(),
            steps: steps.clone(),
        }))
    }

    /// The loop.
    pub(super) fn event_loop(&self) -> &Py<PyAny> {
        self.tasks.event_loop()
    }

    /// Calls `callback(argument)` in `context` as the loop's own turn does, there and then.
    pub(super) fn call_now(
        &self,
        py: Python<'_>,
        callback: Py<PyAny>,
        argument: Py<PyAny>,
        context: Py<PyAny>,
    ) -> PyResult<()> {
        if self.debug {
            return self.call_soon(py, callback, argument, context);
        }
        let step = self.steps.enter(context.as_ptr().addr());
        let called =
            context::run(context.bind(py), || call_one(callback.bind(py), argument.bind(py)));
        if let Some(step) = step {
            self.steps.leave(step);
        }
        let Err(error) = called else { return Ok(()) };
        // The loop knows what is to be reported and what ends it.
        let error = Mutex::new(Some(error));
        let raise = PyCFunction::new_closure(py, None, None, move |_, _| -> PyResult<()> {
            let error = error.lock().unwrap_or_else(PoisonError::into_inner).take();
            error.map_or(Ok(()), Err)
        })?;
        self.call_soon.bind(py).call1((raise,)).map(drop)
    }

    /// `loop.call_soon(callback, argument, context=context)`
    pub(super) fn call_soon(
        &self,
        py: Python<'_>,
        callback: Py<PyAny>,
        argument: Py<PyAny>,
        context: Py<PyAny>,
    ) -> PyResult<()> {
        let arguments = [callback, argument, context];
        let keyword = self.context_keyword.bind(py);
        vectorcall(self.call_soon.bind(py), &arguments, Some(keyword)).map(drop)
    }
}

struct Waiting {
    signal: Arc<Signal>,
    awaitable: Py<RustAwaitable>,
}

/// Makes a home current until dropped.
#[must_use]
pub struct AtHome(Option<Rc<Home>>);

impl Drop for AtHome {
    fn drop(&mut self) {
        let last = CURRENT.replace(self.0.take());
        if let Some(home) = last {
            home.waker.take();
            home.in_turn.set(false);
            drop(home.live.take());
            home.mailbox.end();
        }
    }
}

impl Home {
    /// The home of a lane, on the calling thread.
    pub fn new(mailbox: Arc<Mailbox>) -> Rc<Self> {
        let home = Self::make(mailbox);
        thread_end::tell(&home);
        home
    }

    /// A home on the calling thread.
    pub(super) fn make(mailbox: Arc<Mailbox>) -> Rc<Self> {
        Rc::new(Self {
            mailbox,
            live: RefCell::default(),
            waker: RefCell::default(),
            woken: RefCell::default(),
            waiting: RefCell::default(),
            in_turn: Cell::new(false),
            closed: Cell::new(false),
            steps: Rc::default(),
        })
    }

    /// The home of the loop that runs on the calling thread.
    ///
    /// # Errors
    /// asyncio's `RuntimeError` when no loop runs.
    pub fn current(py: Python<'_>) -> PyResult<Rc<Self>> {
        match CURRENT.try_with(|current| current.borrow().clone()) {
            Ok(Some(home)) => Ok(home),
            _ => foreign::current(py),
        }
    }

    /// Makes this the home of the calling thread, whose loop is the one that `tasks` makes Tasks
    /// on.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn enter(self: &Rc<Self>, py: Python<'_>, tasks: Rc<TaskFactory>) -> PyResult<AtHome> {
        self.settle(py, tasks)?;
        self.mailbox.set_thread(thread_name(py)?);
        Ok(AtHome(CURRENT.replace(Some(self.clone()))))
    }

    /// Sets what is called on the loop.
    pub(super) fn settle(&self, py: Python<'_>, tasks: Rc<TaskFactory>) -> PyResult<()> {
        self.live.replace(Some(Live::new(py, tasks, &self.steps)?));
        Ok(())
    }

    /// Whether asyncio is not called for what it keeps for a thread.
    #[cfg(test)]
    pub fn knows_thread(&self) -> bool {
        self.live().is_ok_and(|live| live.tasks.knows_thread())
    }

    /// What is called on the loop.
    ///
    /// # Errors
    /// `RuntimeError` when it does not run.
    pub(super) fn live(&self) -> PyResult<Rc<Live>> {
        let live = self.live.borrow().clone();
        live.ok_or_else(|| {
            PyRuntimeError::new_err(format!(
                "the event loop of {} does not run",
                self.mailbox.name()
            ))
        })
    }

    /// Whether the calling thread runs this loop now.
    pub(super) fn is_current(&self, py: Python<'_>) -> bool {
        let lane = CURRENT.try_with(|current| {
            let current = current.borrow();
            current.as_ref().map(|home| std::ptr::eq(&raw const **home, self))
        });
        lane.ok().flatten().unwrap_or_else(|| {
            Self::current(py).is_ok_and(|home| std::ptr::eq(&raw const *home, self))
        })
    }

    /// What the calling thread's loop is called in errors.
    pub(super) fn current_name(py: Python<'_>) -> String {
        match Self::current(py) {
            Ok(home) => home.mailbox.name(),
            Err(_) => match thread_name(py) {
                Ok(name) => format!("thread {name}, which runs no event loop"),
                Err(_) => "a thread without an event loop".to_owned(),
            },
        }
    }

    /// The requests that suspended Tasks work for.
    pub fn steps(&self) -> &Rc<Steps> {
        &self.steps
    }

    /// The way in for other threads.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// The turn begins; `waker` wakes the next.
    pub fn begin_turn(&self, waker: &Waker) {
        self.in_turn.set(true);
        if !self.waker.borrow().as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker.replace(Some(waker.clone()));
            self.mailbox.set_waker(waker);
        }
    }

    /// Does what other threads sent, lets go on what was woken; false when there was nothing.
    pub fn open_mail(&self, py: Python<'_>) -> bool {
        let has_mail = self.mailbox.has_mail();
        if has_mail {
            let letters = self.mailbox.take();
            self.read(py, letters);
        }
        self.resume_woken(py) || has_mail
    }

    /// The turn is over; true when there is something that it did not come to.
    pub fn end_turn(&self) -> bool {
        self.in_turn.set(false);
        !self.woken.borrow().is_empty() || self.mailbox.has_mail()
    }

    /// Whether the turn must look before the lane sleeps.
    pub(super) fn look() {
        // A thread that ends runs no lane.
        let _ = CURRENT.try_with(|current| {
            if let Some(home) = current.borrow().as_ref()
                && home.mailbox.has_mail()
            {
                home.wake_turn();
            }
        });
    }

    fn wake_turn(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// The same for a loop of another make, called by it.
    ///
    /// # Errors
    /// `RuntimeError` when the loop runs on another thread than when it met the bridge.
    pub(super) fn deliver_foreign(py: Python<'_>, mailbox: &Arc<Mailbox>) -> PyResult<()> {
        let letters = mailbox.take();
        match foreign::with_mailbox(mailbox) {
            Some(home) => {
                home.read(py, letters);
                Ok(())
            }
            None => mailbox.move_here(py),
        }
    }

    fn read(&self, py: Python<'_>, letters: Vec<Letter>) {
        for letter in letters {
            match letter {
                Letter::Wake(signal) => self.resume(py, &signal),
                Letter::Run(errand) => errand(py, self),
                // What it is may panic as it goes: that is no business of the turn's.
                Letter::Drop(value) => drop(catch_unwind(AssertUnwindSafe(|| drop(value)))),
            }
        }
    }

    /// Takes a signal given on this home's own thread; false when it is not.
    pub(super) fn wake_here(signal: &Arc<Signal>) -> bool {
        let woken = CURRENT.try_with(|current| {
            let current = current.try_borrow().ok()?;
            let home = current.as_ref()?;
            if !Arc::ptr_eq(&home.mailbox, &signal.mailbox) {
                return None;
            }
            home.woken.try_borrow_mut().ok()?.push(signal.clone());
            if !home.in_turn.get() {
                home.wake_turn();
            }
            Some(())
        });
        matches!(woken, Ok(Some(())))
    }

    /// For what must wait until this lane's thread is attached again.
    pub(super) fn when_unparked(errand: Errand) {
        let mailbox =
            CURRENT.try_with(|current| Some(current.try_borrow().ok()?.as_ref()?.mailbox.clone()));
        if let Ok(Some(mailbox)) = mailbox {
            drop(mailbox.send(Letter::Run(errand)));
        }
    }

    fn resume_woken(&self, py: Python<'_>) -> bool {
        if self.woken.borrow().is_empty() {
            return false;
        }
        // Those that are woken meanwhile wait for the next round.
        let mut woken = self.woken.take();
        for signal in woken.drain(..) {
            self.resume(py, &signal);
        }
        let mut later = self.woken.borrow_mut();
        if later.is_empty() {
            *later = woken; // keeps its memory
        }
        true
    }

    fn resume(&self, py: Python<'_>, signal: &Arc<Signal>) {
        signal.reset();
        let awaitable = self
            .waiting
            .borrow()
            .get(signal.place())
            .filter(|waiting| Arc::ptr_eq(&waiting.signal, signal))
            .map(|waiting| waiting.awaitable.clone_ref(py));
        if let Some(awaitable) = awaitable {
            RustAwaitable::resume(awaitable.bind(py));
        }
    }

    /// Keeps an awaitable that a coroutine is suspended on.
    pub(super) fn keep(&self, signal: &Arc<Signal>, awaitable: Py<RustAwaitable>) {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.insert(Waiting { signal: signal.clone(), awaitable });
        signal.set_place(place);
        self.mailbox.count_suspended(waiting.len());
    }

    /// Forgets it.
    pub(super) fn forget(&self, signal: &Arc<Signal>) {
        let waiting = {
            let mut waiting = self.waiting.borrow_mut();
            let known = waiting.get(signal.place());
            if !known.is_some_and(|known| Arc::ptr_eq(&known.signal, signal)) {
                return;
            }
            let forgotten = waiting.try_remove(signal.place());
            self.mailbox.count_suspended(waiting.len());
            forgotten
        };
        drop(waiting);
    }

    /// The loop is closed: whoever waits elsewhere is told, whoever is suspended here is forgotten.
    pub fn close(&self) {
        self.closed.set(true);
        let left = self.mailbox.close();
        drop(self.live.take());
        drop(self.woken.take());
        for (_, waiting) in self.waiting.take() {
            waiting.awaitable.get().forget_task();
        }
        drop(left);
    }

    /// The thread ends. A lane's loop may run on another from then on; what waits for Rust futures
    /// cannot, and the futures go now, with this.
    pub(super) fn thread_ends(&self) {
        self.mailbox.abandon_jobs("lost the thread it ran on");
        if self.mailbox.is_foreign() || self.mailbox.has_suspended() {
            self.close();
        }
    }

    /// Whether the loop was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A loop that was never closed: nobody will take its letters any more.
        self.close();
    }
}

/// To be called after a Tokio task ran Python code: a busy lane has its turn look at what other
/// threads sent meanwhile, which it would else do before it sleeps.
pub fn after_python(_py: Python<'_>) {
    Home::look();
}

/// The name that Python gives the calling thread.
///
/// # Errors
/// When `threading` cannot be imported.
pub fn thread_name(py: Python<'_>) -> PyResult<String> {
    let thread = py.import("threading")?.call_method0("current_thread")?;
    thread.getattr("name")?.extract()
}
