//! The homes of loops that are not lanes: asyncio's own, uvloop's.
//!
//! # Who owns what
//!
//! The thread keeps the home of each of its loops until that loop is closed, or until the thread
//! ends. A home and what is suspended on it own each other (the home roots an awaitable, which
//! knows its home), so a home does not go by being let go of: whoever takes one from the list
//! closes it.
//!
//! # How a closed loop is noticed
//!
//! Such a loop tells nobody that it was closed, but it lets go of its readers. So each has one more
//! ([`CloseNotice`]), of a descriptor from which nothing ever is to be read. It costs that
//! descriptor, and the loop nothing while it runs.
//!
//! # Races that end well
//!
//! * Closed by its own thread: whoever waits is told there and then.
//! * Closed by another: the same, but without the GIL the interpreter gives the reader up on the
//!   thread that left it, when that next runs Python code, or ends.
//! * A reader that goes while its loop lives (somebody took it away) says nothing; the thread looks
//!   for closed loops whenever it meets a new one.
//! * The thread ends with the loop open: whoever waits elsewhere is told, and what is suspended is
//!   dropped. What Python code does then finds no list any more, and no running loop.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::{self, Arc};

use pyo3::intern;
use pyo3::prelude::*;
use rustix::event::{EventfdFlags, eventfd};

use super::factory::TaskFactory;
use super::home::{Home, thread_name};
use super::mailbox::Mailbox;
use crate::python::lane_bound::LaneBound;
use crate::python::socket::os_error;

thread_local! {
    /// Homes of this thread's loops that are not closed.
    static FOREIGN: RefCell<Foreign> = const { RefCell::new(Foreign(Vec::new())) };
}

struct Foreign(Vec<Rc<Home>>);

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let homes = std::mem::take(&mut self.0);
        let close = || homes.iter().for_each(|home| home.thread_ends());
        // Attached, for what is suspended can be dropped on this thread only. When the interpreter
        // is gone, whoever waits is told all the same.
        if Python::try_attach(|_| close()).is_none() {
            close();
        }
    }
}

/// The first home that `is_it`; none on a thread that ends.
fn find(is_it: impl Fn(&Home) -> bool) -> Option<Rc<Home>> {
    let found = FOREIGN.try_with(|known| known.borrow().0.iter().find(|home| is_it(home)).cloned());
    found.ok().flatten()
}

/// The home of the loop that runs on the calling thread; made when they meet first.
pub(super) fn current(py: Python<'_>) -> PyResult<Rc<Home>> {
    let running =
        py.import(intern!(py, "asyncio"))?.call_method0(intern!(py, "get_running_loop"))?;
    let known = find(|home| home.live().is_ok_and(|live| live.event_loop().bind(py).is(&running)));
    known.map_or_else(|| meet(&running), Ok)
}

/// The home with this mailbox, if it is of the calling thread.
pub(super) fn with_mailbox(mailbox: &Arc<Mailbox>) -> Option<Rc<Home>> {
    find(|home| Arc::ptr_eq(home.mailbox(), mailbox))
}

fn meet(event_loop: &Bound<'_, PyAny>) -> PyResult<Rc<Home>> {
    let py = event_loop.py();
    let name = format!("event loop {} at {:p}", event_loop.get_type().name()?, event_loop.as_ptr());
    let mailbox = Mailbox::foreign(name, event_loop.clone().unbind());
    mailbox.set_thread(thread_name(py)?);
    let home = Home::make(mailbox);
    home.settle(py, Rc::new(TaskFactory::new(event_loop, None, None)?))?;
    let known = FOREIGN.try_with(|known| known.borrow().0.clone()).unwrap_or_default();
    for former in known.iter().filter(|former| former.mailbox().is_deserted(py)) {
        let_go(former);
    }
    // A thread that ends has no list any more: such a home goes with who asked for it.
    let _ = FOREIGN.try_with(|known| known.borrow_mut().0.push(home.clone()));
    // A loop that has no readers is found closed later.
    drop(CloseNotice::leave(event_loop, &home));
    Ok(home)
}

/// Closes a home of the calling thread.
fn let_go(home: &Rc<Home>) {
    let _ = FOREIGN.try_with(|known| known.borrow_mut().0.retain(|each| !Rc::ptr_eq(each, home)));
    home.close();
}

/// A reader that is never called; when its loop is closed, it goes, and closes the home.
#[pyclass(frozen, module = "treadle._treadle")]
pub(super) struct CloseNotice {
    home: LaneBound<Weak<Home>>,
    /// Not what keeps the loop alive, which keeps this.
    mailbox: sync::Weak<Mailbox>,
    /// Open for as long as the loop may watch it.
    _silent: OwnedFd,
}

impl CloseNotice {
    fn leave(event_loop: &Bound<'_, PyAny>, home: &Rc<Home>) -> PyResult<()> {
        let py = event_loop.py();
        let silent = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| os_error(py, error.into()))?;
        let fd = silent.as_raw_fd();
        let notice = Self {
            home: LaneBound::new(Rc::downgrade(home)),
            mailbox: Arc::downgrade(home.mailbox()),
            _silent: silent,
        };
        // A reader keeps the context it was added in: an empty one, not that of whoever is first.
        let nowhere =
            py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "Context"))?;
        let add = event_loop.getattr(intern!(py, "add_reader"))?;
        nowhere.call_method1(intern!(py, "run"), (add, fd, Py::new(py, notice)?)).map(drop)
    }
}

#[pymethods]
impl CloseNotice {
    fn __call__(&self) {}
}

impl Drop for CloseNotice {
    fn drop(&mut self) {
        let Some(mailbox) = self.mailbox.upgrade() else { return };
        // Dropped as a Python object is, attached.
        Python::try_attach(|py| {
            if !mailbox.is_deserted(py) {
                return;
            }
            match self.home.get().and_then(Weak::upgrade) {
                Some(home) => let_go(&home),
                None => mailbox.shut(),
            }
        });
    }
}
