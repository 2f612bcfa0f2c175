//! What asyncio keeps for each thread, reached without calling it: which Task is current, and the
//! list of the Tasks that are registered.
//!
//! A coroutine that ends in its first step costs four calls of `_asyncio` for these, a third of what
//! it takes to run it in a Task at all. CPython 3.14 has both in the thread's state, one behind the
//! other: the running loop, the current Task (both owned) and the head of a doubly linked list, whose
//! links are two words in each Task. Where they are is found and then tried
//! ([`AsyncioThread::probe`]): what asyncio writes must appear there, and what is written there
//! asyncio must give. Any other version, and one that fails the trial, has none; asyncio is called
//! there.
//!
//! # Threads
//!
//! Only the thread whose state it is writes it, attached to the interpreter. Other threads look
//! while the world stands still (`asyncio.all_tasks`, `asyncio.current_task` of another thread's
//! loop); it never does between the words written here, for nothing here can stop.

use pyo3::ffi;
use pyo3::prelude::*;

use super::task_layout::PlainTask;

const WORD: usize = size_of::<usize>();

/// How far into a thread's state the list may begin, in bytes.
const FARTHEST: usize = 4096;

/// Where a thread's state has what, in words.
#[derive(Clone, Copy)]
pub struct AsyncioThread {
    running_loop: usize,
    current_task: usize,
    /// The list's head: the first Task, then the last.
    tasks: usize,
    /// In a Task: the next in the list, then the one before.
    links: isize,
}

/// asyncio's own functions for it, called by the trial.
pub struct Functions<'a, 'py> {
    /// `swap_current_task(loop, task)`
    pub swap: &'a Bound<'py, PyAny>,
    /// `current_task(loop)`
    pub current: &'a Bound<'py, PyAny>,
    /// `all_tasks(loop)`
    pub all: &'a Bound<'py, PyAny>,
    /// `unregister_task(task)`
    pub unregister: &'a Bound<'py, PyAny>,
}

/// The calling thread's state, as words.
fn state(_py: Python<'_>) -> *mut usize {
    // SAFETY: the thread is attached (`_py`), so it has a state.
    unsafe { ffi::PyThreadState_Get().cast() }
}

fn read(object: &Bound<'_, PyAny>, at: isize) -> usize {
    // SAFETY: callers give a word of the object's own, below the size of its class.
    unsafe { object.as_ptr().cast::<usize>().offset(at).read() }
}

impl AsyncioThread {
    /// Looks where they are; `None` when that cannot be told.
    ///
    /// `task` is pending, of asyncio's own class, the last one registered by this thread, and
    /// nobody else knows it; it is not registered afterwards. `event_loop` runs on this thread, and
    /// no Task is current.
    ///
    /// # Errors
    /// What asyncio raises.
    pub fn probe<'py>(
        task: &PlainTask,
        event_loop: &Bound<'py, PyAny>,
        asyncio: &Functions<'_, 'py>,
    ) -> PyResult<Option<Self>> {
        let py = event_loop.py();
        let plain = task;
        let task = task.bind(py);
        let Some(found) = Self::find(task, event_loop, asyncio)? else {
            return Ok(None);
        };
        let is_right = found.try_current(task, event_loop, asyncio)?
            && found.try_list(py, plain, event_loop, asyncio)?;
        Ok(is_right.then_some(found))
    }

    /// By what leaving the list changes in a Task, which is in none afterwards.
    fn find<'py>(
        task: &Bound<'py, PyAny>,
        event_loop: &Bound<'py, PyAny>,
        asyncio: &Functions<'_, 'py>,
    ) -> PyResult<Option<Self>> {
        let py = task.py();
        // SAFETY: the type of a live object is live.
        let size = unsafe { (*task.get_type_ptr()).tp_basicsize };
        let head = isize::try_from(size_of::<ffi::PyObject>() / WORD).unwrap_or(0);
        let words = head..size / isize::try_from(WORD).unwrap_or(1);
        let before: Vec<_> = words.clone().map(|at| read(task, at)).collect();
        asyncio.unregister.call1((task,))?;
        let changed: Vec<_> = words
            .zip(before)
            .map(|(at, before)| (at, before, read(task, at)))
            .filter(|(_, before, after)| before != after)
            .collect();
        if py.version_info() < (3, 14) || py.version_info() >= (3, 15) {
            return Ok(None);
        }
        let [(links, next, 0), (last, _, 0)] = changed[..] else { return Ok(None) };
        let tasks = next.wrapping_sub(state(py).addr());
        if last != links + 1
            || !(2 * WORD..=FARTHEST).contains(&tasks)
            || !tasks.is_multiple_of(WORD)
        {
            return Ok(None);
        }
        let tasks = tasks / WORD;
        let found = Self { running_loop: tasks - 2, current_task: tasks - 1, tasks, links };
        Ok(Self::runs(found.slots(py)[0], event_loop).then_some(found))
    }

    /// Where the running loop and the current Task stand.
    fn slots(&self, py: Python<'_>) -> [*mut *mut ffi::PyObject; 2] {
        let state = state(py);
        // SAFETY: `find` found the list behind these words, and all of it in the thread's state.
        unsafe { [state.add(self.running_loop).cast(), state.add(self.current_task).cast()] }
    }

    fn runs(slot: *mut *mut ffi::PyObject, event_loop: &Bound<'_, PyAny>) -> bool {
        // SAFETY: the state of an attached thread stays, and only the thread writes to it.
        (unsafe { slot.read() }) == event_loop.as_ptr()
    }

    /// Whether asyncio's current Task is the one in its place, which owns it.
    fn try_current<'py>(
        &self,
        task: &Bound<'py, PyAny>,
        event_loop: &Bound<'py, PyAny>,
        asyncio: &Functions<'_, 'py>,
    ) -> PyResult<bool> {
        let py = task.py();
        // SAFETY: a live object.
        let references = || unsafe { ffi::Py_REFCNT(task.as_ptr()) };
        // SAFETY: `find` found the place.
        let current = || unsafe { self.slots(py)[1].read() };
        let before = (current(), references());
        asyncio.swap.call1((event_loop, task))?;
        let inside = (current(), references());
        asyncio.swap.call1((event_loop, py.None()))?;
        let after = (current(), references());
        if before != (std::ptr::null_mut(), inside.1 - 1)
            || inside.0 != task.as_ptr()
            || after != before
        {
            return Ok(false);
        }
        drop(self.swap(event_loop, Some(task.clone())));
        let is_seen = asyncio.current.call1((event_loop,))?.is(task);
        let given = self.swap(event_loop, None).flatten();
        let is_gone = asyncio.current.call1((event_loop,))?.is_none();
        Ok(is_seen && is_gone && given.is_some_and(|given| given.is(task)))
    }

    /// Whether asyncio sees a Task that is put into the list, and not one that is taken out.
    fn try_list<'py>(
        &self,
        py: Python<'py>,
        task: &PlainTask,
        event_loop: &Bound<'py, PyAny>,
        asyncio: &Functions<'_, 'py>,
    ) -> PyResult<bool> {
        let sees = || asyncio.all.call1((event_loop,))?.contains(task.bind(py));
        self.register(py, task);
        let with = sees()?;
        self.unregister(py, task);
        let without = sees()?;
        self.register(py, task);
        asyncio.unregister.call1((task.bind(py),))?;
        Ok(with && !without && read(task.bind(py), self.links) == 0 && !sees()?)
    }

    /// Makes `task` the current one of this thread's loop, or none; gives the one before. `None`
    /// when `event_loop` is not the one that runs on this thread.
    #[inline]
    #[allow(clippy::option_option, reason = "no Task is current | the loop does not run")]
    pub fn swap<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        task: Option<Bound<'py, PyAny>>,
    ) -> Option<Option<Bound<'py, PyAny>>> {
        let py = event_loop.py();
        let [running, current] = self.slots(py);
        if !Self::runs(running, event_loop) {
            return None;
        }
        let task = task.map_or(std::ptr::null_mut(), Bound::into_ptr);
        // SAFETY: the word is null or an owned reference, and is exchanged for one of these; only
        // this thread writes it.
        Some(unsafe { Bound::from_owned_ptr_or_opt(py, current.replace(task)) })
    }

    /// Registers `task`, made on this thread, as its first step has begun; as often as one likes.
    #[inline]
    pub fn register(&self, py: Python<'_>, task: &PlainTask) {
        let task = task.bind(py);
        if read(task, self.links) != 0 {
            return;
        }
        // SAFETY: `probe` found the two words in Tasks of this class that link them, null in one
        // that is in no list, and the head of this thread's list. The head and the last Task are
        // alive: who leaves, or ends, takes itself out of the list. Only this thread changes it.
        unsafe {
            let links = task.as_ptr().cast::<*mut usize>().offset(self.links);
            let head = state(py).add(self.tasks).cast::<*mut usize>();
            let last = head.add(1).read();
            links.write(head.cast());
            links.add(1).write(last);
            last.cast::<*mut usize>().write(links.cast());
            head.add(1).write(links.cast());
        }
    }

    /// Takes `task`, made on this thread, out of the list, if it is there.
    #[inline]
    pub fn unregister(&self, py: Python<'_>, task: &PlainTask) {
        let task = task.bind(py);
        if read(task, self.links) == 0 {
            return;
        }
        // SAFETY: as for `register`: its neighbours in the list are alive, or the head.
        unsafe {
            let links = task.as_ptr().cast::<*mut *mut usize>().offset(self.links);
            let (next, before) = (links.read(), links.add(1).read());
            before.cast::<*mut usize>().write(next.cast());
            next.cast::<*mut usize>().add(1).write(before.cast());
            links.write(std::ptr::null_mut());
            links.add(1).write(std::ptr::null_mut());
        }
    }
}
