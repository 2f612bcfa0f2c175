//! The fields by which a Task waits for a C `asyncio.Future`, written as asyncio writes them.
//!
//! A coroutine that awaits a future yields it, marked as asked for; its Task then takes back the
//! mark, puts a callback into the future and the future into itself, for `Task.cancel`. On CPython
//! 3.14 and later the future also says who awaits it (`asyncio.capture_call_graph`). Where these
//! words are is found by letting a Task wait and looking what changed ([`FutureLayout::probe`]).
//! Where something else changes too, or something is missing, there is no layout, and asyncio's own
//! step does it.
//!
//! Only the usual case is handled: a pending future of the class itself, on the loop's own, that
//! nobody else waits for yet; and a Task of which nobody asked anything. All others are asyncio's.
//!
//! # Threads
//!
//! Task and future are written with both locked, as asyncio has them locked in a step: whoever calls
//! `Task.cancel` on another thread finds the Task before it waits, which shows, or waiting.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section2;
use pyo3::types::{PyDict, PyType};

use super::task_layout::{PlainTask, TaskLayout};
use super::words::{Pattern, changed, fill, load, look, only, references, store, take};

/// Which word of a future, and of a Task that waits for it, holds what.
pub struct FutureLayout {
    class: Py<PyType>,
    /// The loop's place, and the address of the loop whose futures these are.
    event_loop: (isize, usize),
    /// A pending future that was just yielded and that nobody waits for; without its loop.
    yielded: Pattern,
    /// The word with the mark, and what it is without.
    unmarked: (isize, usize),
    callback: isize,
    context: isize,
    /// Since CPython 3.14.
    awaited_by: Option<isize>,
    result: isize,
    /// The Task's.
    waits_for: isize,
}

/// What a Task finds that waited for a future.
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Woken {
    /// The future has a result, and nothing else happened: the coroutine can go on.
    Plain,
    /// The rest is asyncio's business: the Task is to wait for the future once more.
    Otherwise,
    /// It does not wait for this future.
    Stale,
}

/// A Task made for the probe: pending, registered and not stepped yet.
pub struct Waiter<'a, 'py> {
    /// The Task.
    pub task: &'a Bound<'py, PyAny>,
    /// The context that it runs in.
    pub context: &'a Bound<'py, PyAny>,
}

impl FutureLayout {
    /// Looks how a Task waits for a future of `event_loop`; `None` when that cannot be told.
    ///
    /// `step` has the Task of `waiter` take a step in which its coroutine yields the future, `end`
    /// cancels the future and has the Task take its last. No Task is current.
    ///
    /// # Errors
    /// What asyncio raises.
    pub fn probe<'py>(
        class: &Bound<'py, PyType>,
        event_loop: &Bound<'py, PyAny>,
        waiter: &Waiter<'_, 'py>,
        step: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<()>,
        end: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<Option<Self>> {
        let py = class.py();
        let Waiter { task, context } = *waiter;
        let keywords = PyDict::new(py);
        keywords.set_item("loop", event_loop)?;
        let make = || class.call((), Some(&keywords));
        let future = make()?;
        let fresh = own(&future);
        future.setattr(intern!(py, "_asyncio_future_blocking"), true)?;
        let yielded = own(&future);
        let before = (own(task), references(&future), references(context));
        step(&future)?;
        let waiting = (own(task), references(&future), references(context));
        let after = own(&future);
        end(&future)?;
        let ended = (own(task), own(&future));

        let loops = event_loop.as_ptr().addr();
        let (Some(its_loop), [(mark, unmarked, _)], [(waits_for, 0, waited)]) = (
            only(&future, loops),
            &changed(&fresh, &yielded)[..],
            &changed(&before.0, &waiting.0)[..],
        ) else {
            return Ok(None);
        };
        let Some((callback, its_context, awaited_by)) = registered(&fresh, &after, waiter) else {
            return Ok(None);
        };
        let is_null = |words: &[(isize, usize)], place| words.contains(&(place, 0));
        let is_right = *waited == future.as_ptr().addr()
            && (waiting.1, waiting.2) == (before.1 + 1, before.2 + 1)
            && is_null(&ended.0, *waits_for)
            && awaited_by.is_none_or(|place| is_null(&ended.1, place));
        let other = make()?;
        let value = PyDict::new(py).into_any();
        other.call_method1(intern!(py, "set_result"), (&value,))?;
        let (true, Some(result)) = (is_right, only(&other, value.as_ptr().addr())) else {
            return Ok(None);
        };
        let words: Vec<_> =
            yielded.iter().filter(|(place, _)| *place != its_loop).copied().collect();
        Ok(Some(Self {
            class: class.clone().unbind(),
            event_loop: (its_loop, loops),
            yielded: Pattern::new(&words),
            unmarked: (*mark, *unmarked),
            callback,
            context: its_context,
            awaited_by,
            result,
            waits_for: *waits_for,
        }))
    }

    /// Whether `object` is of the class itself.
    #[inline]
    pub fn is_future(&self, object: &Bound<'_, PyAny>) -> bool {
        object.get_type_ptr() == self.class.bind(object.py()).as_type_ptr()
    }

    /// Lets `task`, whose coroutine yielded `future`, wait for it, and has `callback` called in
    /// `context` when it is done. Where that is not the usual case, nothing is changed, and the
    /// answer is false.
    pub fn wait<'py>(
        &self,
        layout: &TaskLayout,
        task: &PlainTask,
        future: &Bound<'py, PyAny>,
        callback: Bound<'py, PyAny>,
        context: Bound<'py, PyAny>,
    ) -> bool {
        let py = future.py();
        let object = task.bind(py);
        if !self.is_future(future) {
            return false;
        }
        let (place, loops) = self.event_loop;
        with_critical_section2(object, future, || {
            let is_usual = load(future, place) == loops
                && self.yielded.fits(future)
                && layout.may_be_stepped(py, task);
            if is_usual {
                let (mark, unmarked) = self.unmarked;
                store(future, mark, unmarked);
                fill(future, self.callback, callback);
                fill(future, self.context, context);
                if let Some(awaited_by) = self.awaited_by {
                    fill(future, awaited_by, object.clone());
                }
                fill(object, self.waits_for, future.clone());
            }
            is_usual
        })
    }

    /// Ends what [`FutureLayout::wait`] began: the callback was called.
    pub fn wake(&self, layout: &TaskLayout, task: &PlainTask, future: &Bound<'_, PyAny>) -> Woken {
        let py = future.py();
        let object = task.bind(py);
        if !self.is_future(future) {
            return Woken::Stale;
        }
        // What is taken is dropped when nothing is locked.
        let (woken, _taken) = with_critical_section2(object, future, || {
            if load(object, self.waits_for) != future.as_ptr().addr() {
                return (Woken::Stale, [None, None]);
            }
            let waited = take(object, self.waits_for);
            let (is_alone, awaiter) = match self.awaited_by {
                None => (true, None),
                Some(place) if load(future, place) == object.as_ptr().addr() => {
                    (true, take(future, place))
                }
                // Others await it, too: asyncio keeps all of them in a set.
                Some(_) => (false, None),
            };
            let is_plain =
                is_alone && load(future, self.result) != 0 && layout.may_be_stepped(py, task);
            (if is_plain { Woken::Plain } else { Woken::Otherwise }, [waited, awaiter])
        });
        woken
    }
}

/// The words of the object itself.
fn own(object: &Bound<'_, PyAny>) -> Vec<(isize, usize)> {
    let (mut words, _) = look(object);
    words.retain(|(place, _)| *place > 0);
    words
}

/// Where a future has the callback that wakes a Task, its context, and the Task, by what a Task's
/// waiting changed in a future that was null there.
fn registered(
    fresh: &[(isize, usize)],
    after: &[(isize, usize)],
    waiter: &Waiter<'_, '_>,
) -> Option<(isize, isize, Option<isize>)> {
    let changes = changed(fresh, after);
    let place = |wanted: usize| {
        changes.iter().find(|(_, before, after)| (*before, *after) == (0, wanted)).map(|it| it.0)
    };
    let context = place(waiter.context.as_ptr().addr())?;
    let awaited_by = place(waiter.task.as_ptr().addr());
    let mut rest =
        changes.iter().filter(|(place, ..)| *place != context && Some(*place) != awaited_by);
    let (callback, before, _) = rest.next()?;
    (*before == 0 && rest.next().is_none()).then_some((*callback, context, awaited_by))
}
