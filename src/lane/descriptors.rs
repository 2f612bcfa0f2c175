//! The file descriptors that Python code watches: `add_reader` and `add_writer`.
//!
//! They sit in an epoll of the loop's own, level-triggered, whose descriptor Tokio watches: a
//! reader that takes one byte at a time is called again for the next. A descriptor that was closed
//! leaves the epoll by itself; if its number comes back as another, the table notices that the
//! kernel does not know it and registers it anew.
//!
//! The table belongs to the loop's thread, as in asyncio; the lock makes a call from another thread
//! merely useless. Nothing of Python runs while it is held.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use super::handle::Handle;
use super::ready::{Entry, Ready};
use crate::python::fd::with_borrowed;

/// Events taken in one look; more are taken in the next turn.
const AT_ONCE: usize = 256;

/// What is waited for on a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// A watched descriptor: its number, the handle that reads, the one that writes.
pub(super) type Watched = (RawFd, Option<Py<Handle>>, Option<Py<Handle>>);

/// Who watches a descriptor.
pub(super) struct Watcher {
    pub(super) handle: Py<Handle>,
    /// What has the descriptor, unless that was told by its number.
    pub(super) object: Option<Py<PyAny>>,
}

impl Watcher {
    fn has(&self, object: &Bound<'_, PyAny>) -> bool {
        self.object.as_ref().is_some_and(|known| known.is(object))
    }
}

#[derive(Default)]
struct Watchers {
    reader: Option<Watcher>,
    writer: Option<Watcher>,
}

impl Watchers {
    fn slot(&mut self, direction: Direction) -> &mut Option<Watcher> {
        match direction {
            Direction::Read => &mut self.reader,
            Direction::Write => &mut self.writer,
        }
    }

    fn flags(&self) -> epoll::EventFlags {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, self.reader.is_some());
        flags.set(epoll::EventFlags::OUT, self.writer.is_some());
        flags
    }
}

#[derive(Default)]
struct Table {
    epoll: Option<OwnedFd>,
    watchers: HashMap<RawFd, Watchers>,
}

impl Table {
    /// Tells the kernel what is waited for on `fd`; `known` says that it has been told before.
    fn register(&self, fd: RawFd, known: bool, flags: epoll::EventFlags) -> io::Result<()> {
        let Some(epoll) = &self.epoll else {
            return Err(io::Error::other("the event loop is closed"));
        };
        let Ok(number) = u64::try_from(fd) else {
            return Err(Errno::BADF.into());
        };
        let data = epoll::EventData::new_u64(number);
        with_borrowed(fd, |fd: BorrowedFd<'_>| {
            if !known {
                return match epoll::add(epoll, fd, data, flags) {
                    Err(Errno::EXIST) => epoll::modify(epoll, fd, data, flags),
                    outcome => outcome,
                };
            }
            match epoll::modify(epoll, fd, data, flags) {
                // Closed meanwhile, and the number is another descriptor's now.
                Err(Errno::NOENT) => epoll::add(epoll, fd, data, flags),
                outcome => outcome,
            }
        })?;
        Ok(())
    }

    fn forget(&self, fd: RawFd) {
        if let Some(epoll) = &self.epoll {
            // One that was closed is gone already.
            let _ = with_borrowed(fd, |fd: BorrowedFd<'_>| epoll::delete(epoll, fd));
        }
    }
}

/// The watched descriptors of one loop.
pub(super) struct Descriptors {
    table: Mutex<Table>,
}

impl Descriptors {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { table: Mutex::new(Table { epoll: Some(epoll), watchers: HashMap::new() }) })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A descriptor that is readable when one of the watched ones is ready.
    pub(super) fn share(&self) -> io::Result<OwnedFd> {
        match &self.table().epoll {
            Some(epoll) => epoll.as_fd().try_clone_to_owned(),
            None => Err(io::Error::other("the event loop is closed")),
        }
    }

    /// Watches `fd`; gives who was watching before.
    pub(super) fn add(
        &self,
        fd: RawFd,
        direction: Direction,
        watcher: Watcher,
    ) -> io::Result<Option<Watcher>> {
        let mut table = self.table();
        let known = table.watchers.contains_key(&fd);
        let watchers = table.watchers.entry(fd).or_default();
        let before = watchers.slot(direction).replace(watcher);
        let flags = watchers.flags();
        if let Err(error) = table.register(fd, known, flags) {
            let refused = match table.watchers.get_mut(&fd) {
                Some(watchers) => std::mem::replace(watchers.slot(direction), before),
                None => None,
            };
            if !known {
                table.watchers.remove(&fd);
            }
            drop(table);
            drop(refused);
            return Err(error);
        }
        Ok(before)
    }

    /// The number by which `object` is watched.
    pub(super) fn number_of(&self, object: &Bound<'_, PyAny>) -> Option<RawFd> {
        let table = self.table();
        let mut watched = table.watchers.iter();
        watched
            .find(|(_, w)| [&w.reader, &w.writer].into_iter().flatten().any(|w| w.has(object)))
            .map(|(fd, _)| *fd)
    }

    /// Whether `fd` is watched there as the number of `object`.
    pub(super) fn is_watched_as(
        &self,
        fd: RawFd,
        direction: Direction,
        object: &Bound<'_, PyAny>,
    ) -> bool {
        let mut table = self.table();
        let watchers = table.watchers.get_mut(&fd);
        watchers.and_then(|w| w.slot(direction).as_ref()).is_some_and(|w| w.has(object))
    }

    /// Stops watching `fd`; gives who did.
    pub(super) fn remove(&self, fd: RawFd, direction: Direction) -> io::Result<Option<Watcher>> {
        let mut table = self.table();
        let Some(watchers) = table.watchers.get_mut(&fd) else {
            return Ok(None);
        };
        let Some(before) = watchers.slot(direction).take() else {
            return Ok(None);
        };
        let flags = watchers.flags();
        if flags.is_empty() {
            table.watchers.remove(&fd);
            table.forget(fd);
        } else if let Err(error) = table.register(fd, true, flags) {
            drop(table);
            drop(before);
            return Err(error);
        }
        Ok(Some(before))
    }

    /// Makes the callbacks of ready descriptors ready; whether there were any.
    pub(super) fn collect(&self, py: Python<'_>, ready: &Ready) -> io::Result<bool> {
        let mut entries = Vec::new();
        let found = {
            let table = self.table();
            let Some(epoll) = &table.epoll else {
                return Ok(false);
            };
            let mut events = [const {
                epoll::Event {
                    flags: epoll::EventFlags::empty(),
                    data: epoll::EventData::new_u64(0),
                }
            }; AT_ONCE];
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let found = match epoll::wait(epoll, &mut events[..], Some(&zero)) {
                Ok(found) => found,
                Err(Errno::INTR) => return Ok(true),
                Err(error) => return Err(error.into()),
            };
            for event in &events[..found] {
                let (flags, data) = (event.flags, event.data);
                let fd = RawFd::try_from(data.u64()).unwrap_or(-1);
                let Some(watchers) = table.watchers.get(&fd) else {
                    continue;
                };
                // An error or a hang-up is told to both.
                let reads = !(flags & !epoll::EventFlags::OUT).is_empty();
                let writes = !(flags & !epoll::EventFlags::IN).is_empty();
                let reader = watchers.reader.as_ref().filter(|_| reads);
                let writer = watchers.writer.as_ref().filter(|_| writes);
                entries.extend(reader.map(|watcher| Entry::Native(watcher.handle.clone_ref(py))));
                entries.extend(writer.map(|watcher| Entry::Native(watcher.handle.clone_ref(py))));
            }
            found > 0
        };
        ready.extend(entries.into_iter());
        Ok(found)
    }

    /// What is watched: the number, who reads, who writes.
    pub(super) fn watched(&self, py: Python<'_>) -> Vec<Watched> {
        let table = self.table();
        let handle = |watcher: &Option<Watcher>| watcher.as_ref().map(|w| w.handle.clone_ref(py));
        table.watchers.iter().map(|(fd, w)| (*fd, handle(&w.reader), handle(&w.writer))).collect()
    }

    /// Closes the epoll and drops everything.
    pub(super) fn close(&self) {
        let left = std::mem::take(&mut *self.table());
        drop(left);
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Whoever holds the lock now is inside one of the methods above and keeps all alive.
        if let Ok(table) = self.table.try_lock() {
            for watchers in table.watchers.values() {
                for watcher in [&watchers.reader, &watchers.writer].into_iter().flatten() {
                    visit.call(&watcher.handle)?;
                    visit.call(&watcher.object)?;
                }
            }
        }
        Ok(())
    }
}
