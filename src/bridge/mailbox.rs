//! The way into a loop's thread from any other: one queue, and at most one wake-up.
//!
//! # Who owns what
//!
//! A [`Mailbox`] is shared by everyone who may have something for a loop; only the loop's thread
//! takes letters from it. It also keeps the Tasks that other threads wait for, so that whoever closes
//! the loop, wherever that is, can tell those who wait; what lies in it then is dropped there.
//!
//! # Why no letter is left behind, and most need no system call
//!
//! A lane that is awake looks into its mailbox before it sleeps, so only a sleeping lane has to be
//! woken. The lane says "asleep", *then* looks; a sender puts its letter down, *then* reads
//! "asleep". Both look at the queue under its lock, so either the lane sees the letter or the
//! sender sees the lane asleep and wakes it. The first sender takes the word back, so a burst wakes
//! once.
//!
//! A loop that is not a lane (asyncio's own, uvloop) is woken by its `call_soon_threadsafe`, once a
//! burst too.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use slab::Slab;

use super::home::{Home, thread_name};
use super::remote::Job;
use super::signal::Signal;
use crate::python::park::is_parked;

/// Work for a loop's thread, done there inside the turn.
pub(super) type Errand = Box<dyn FnOnce(Python<'_>, &Home) + Send>;

/// What a mailbox takes.
pub(super) enum Letter {
    /// A suspended awaitable can go on.
    Wake(Arc<Signal>),
    /// To be done.
    Run(Errand),
    /// To be dropped where it belongs.
    Drop(Box<dyn Send>),
}

/// The part of a loop that any thread may touch.
pub struct Mailbox {
    name: String,
    /// The name of the thread that the loop ran on last.
    thread: Mutex<String>,
    shared: Mutex<Shared>,
    /// Nobody looks until woken. Set when the loop does not run, too.
    asleep: AtomicBool,
    /// There may be letters, or something else that the turn must look at.
    mail: AtomicBool,
    /// How many Rust futures coroutines are suspended on; counted by the loop's thread.
    suspended: AtomicUsize,
    /// A loop that is not ours.
    foreign: Option<Py<PyAny>>,
}

#[derive(Default)]
struct Shared {
    /// The turn's, once the loop ran.
    waker: Option<Waker>,
    letters: Vec<Letter>,
    jobs: Jobs,
    closed: bool,
}

/// What other threads wait for, with the Tasks that work for it.
type Jobs = Slab<(Arc<Job>, Py<PyAny>)>;

/// What a closed loop does not come to. Dropped, it tells those who wait.
#[must_use]
#[derive(Default)]
pub(super) struct Left {
    letters: Vec<Letter>,
    jobs: Jobs,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.letters.clear();
        abandon(&mut self.jobs, "was closed");
    }
}

/// Tells whoever waits; the Tasks are let go of first.
fn abandon(jobs: &mut Jobs, why: &str) {
    for (job, task) in jobs.drain() {
        drop(task);
        job.abandon(why);
    }
}

impl Mailbox {
    /// The mailbox of a lane; errors call the lane `name`.
    #[must_use]
    pub fn new(name: String) -> Arc<Self> {
        Self::with(name, None)
    }

    /// The mailbox of a loop that is not a lane.
    pub(super) fn foreign(name: String, event_loop: Py<PyAny>) -> Arc<Self> {
        Self::with(name, Some(event_loop))
    }

    fn with(name: String, foreign: Option<Py<PyAny>>) -> Arc<Self> {
        Arc::new(Self {
            name,
            thread: Mutex::default(),
            shared: Mutex::default(),
            asleep: AtomicBool::new(true),
            mail: AtomicBool::new(false),
            suspended: AtomicUsize::new(0),
            foreign,
        })
    }

    /// What errors call the loop: "lane 0 (thread treadle-lane-0)", "lane 0 of loop 2 (thread
    /// MainThread)".
    #[must_use]
    pub fn name(&self) -> String {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_empty() {
            self.name.clone()
        } else {
            format!("{} (thread {thread})", self.name)
        }
    }

    pub(super) fn set_thread(&self, name: String) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    pub(super) fn count_suspended(&self, count: usize) {
        self.suspended.store(count, Ordering::Relaxed);
    }

    /// Whether coroutines are suspended on Rust futures.
    pub fn has_suspended(&self) -> bool {
        self.suspended.load(Ordering::Relaxed) > 0
    }

    /// The loop is to run on the calling thread. What Rust futures did on the one it ran on before
    /// cannot go on here; whoever waits for coroutines that did without is told that nobody can
    /// tell him how they end.
    ///
    /// # Errors
    /// `RuntimeError` when there are such futures; it names both threads.
    pub fn move_here(&self, py: Python<'_>) -> PyResult<()> {
        match self.suspended.load(Ordering::Relaxed) {
            0 => {
                self.abandon_jobs("runs on another thread now");
                Ok(())
            }
            count => Err(PyRuntimeError::new_err(format!(
                "{count} Rust future(s) are suspended on {}, where the event loop ran: it cannot run \
                 on thread {} before they are done",
                self.name(),
                thread_name(py)?
            ))),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whom to wake.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let former = self.lock().waker.replace(waker.clone());
        drop(former);
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> Vec<Letter> {
        let mut shared = self.lock();
        self.mail.store(false, Ordering::Relaxed);
        std::mem::take(&mut shared.letters)
    }

    /// The lane is about to sleep; true when it must not, because there is mail. Its turn has been
    /// woken then.
    pub fn before_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        let waker = {
            let shared = self.lock();
            if !self.mail.load(Ordering::SeqCst) {
                return false;
            }
            shared.waker.clone()
        };
        self.asleep.store(false, Ordering::Relaxed);
        let Some(waker) = waker else { return false };
        waker.wake();
        true
    }

    /// Has the lane's turn run.
    pub fn wake_turn(&self) {
        let waker = self.lock().waker.clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The lane is awake: it looks by itself.
    pub fn after_sleep(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }

    /// Whether the turn must look.
    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Relaxed)
    }

    /// The loop does not run any more. Letters wait for the next run.
    pub fn end(&self) {
        let mut shared = self.lock();
        shared.waker = None;
        self.asleep.store(true, Ordering::SeqCst);
    }

    /// The loop is closed: letters are refused from now on. Gives what nobody will take.
    pub(super) fn close(&self) -> Left {
        let mut shared = self.lock();
        shared.closed = true;
        shared.waker = None;
        Left {
            letters: std::mem::take(&mut shared.letters),
            jobs: std::mem::take(&mut shared.jobs),
        }
    }

    /// Keeps a Task that another thread waits for; `None` when the loop is closed.
    pub(super) fn add_job(&self, job: Arc<Job>, task: Py<PyAny>) -> Option<usize> {
        let mut shared = self.lock();
        (!shared.closed).then(|| shared.jobs.insert((job, task)))
    }

    /// Lets go of it, if it still is there.
    pub(super) fn take_job(&self, place: usize, job: &Arc<Job>) -> Option<Py<PyAny>> {
        let mut shared = self.lock();
        if !shared.jobs.get(place).is_some_and(|(known, _)| Arc::ptr_eq(known, job)) {
            return None;
        }
        shared.jobs.try_remove(place).map(|(_, task)| task)
    }

    /// The loop left its thread, and so what ran there and could tell who waits.
    pub(super) fn abandon_jobs(&self, why: &str) {
        let mut jobs = std::mem::take(&mut self.lock().jobs);
        abandon(&mut jobs, why);
    }

    /// The loop is closed, on a thread that has nothing of it.
    pub fn shut(&self) {
        drop(self.close());
    }

    /// Hands a letter over; gives it back when the loop is closed.
    pub(super) fn send(self: &Arc<Self>, letter: Letter) -> Result<(), Letter> {
        let waker = {
            let mut shared = self.lock();
            if shared.closed {
                return Err(letter);
            }
            shared.letters.push(letter);
            let first = !self.mail.swap(true, Ordering::SeqCst);
            if self.foreign.is_some() {
                drop(shared);
                if first {
                    self.wake_foreign();
                }
                return Ok(());
            }
            if !self.asleep.swap(false, Ordering::SeqCst) {
                return Ok(());
            }
            shared.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Whether this is the mailbox of a loop that is not a lane.
    pub(super) fn is_foreign(&self) -> bool {
        self.foreign.is_some()
    }

    /// Whether this is the mailbox of a foreign loop that was closed.
    pub(super) fn is_deserted(&self, py: Python<'_>) -> bool {
        self.foreign.as_ref().is_some_and(|event_loop| {
            let closed = event_loop.call_method0(py, pyo3::intern!(py, "is_closed"));
            closed.and_then(|closed| closed.is_truthy(py)).unwrap_or(true)
        })
    }

    /// Has a foreign loop look, by its own means. A closed loop, or an interpreter that is going
    /// down, does not look any more: nobody waits there.
    fn wake_foreign(self: &Arc<Self>) {
        if is_parked() {
            // A lane's thread, detached, inside its reactor: the lane passes it on when it is back.
            let mailbox = self.clone();
            Home::when_unparked(Box::new(move |_, _| mailbox.wake_foreign()));
            return;
        }
        Python::try_attach(|py| {
            let Some(event_loop) = &self.foreign else { return };
            let mailbox = self.clone();
            let look = PyCFunction::new_closure(py, None, None, move |args, _| {
                Home::deliver_foreign(args.py(), &mailbox)
            });
            let told = look.and_then(|look| {
                let call = pyo3::intern!(py, "call_soon_threadsafe");
                event_loop.bind(py).call_method1(call, (look,))
            });
            if told.is_err() {
                drop(self.close());
            }
        });
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        // PyO3 would give the reference back as if the thread were attached.
        if is_parked() {
            std::mem::forget(self.foreign.take());
        }
    }
}
