//! The fields of a C `asyncio.Task` that a lane reaches without asyncio's methods: two that have no
//! setter, which coroutine the Task steps and in which context; and two that every request uses,
//! its first callback and its result.
//!
//! Where they are is not assumed but found: [`TaskLayout::probe`] makes Tasks with objects that
//! nothing else refers to, looks for the one word of the Task that holds each, exchanges coroutine
//! and context and asks the Task's own methods whether they see the exchange. A Task class for
//! which that fails has no layout, and the lane then uses it only through its methods.
//!
//! The layout also knows what a Task looks like that nobody has noticed: word for word like a new
//! one, and referred to by its owner alone. A name that was asked for, a callback, a request to
//! cancel, an attribute, a weak reference, an awaiter: each changes a word. Such a Task may stand
//! for another coroutine, because nobody can tell.
//!
//! # Threads
//!
//! A Task is exchanged only by the thread that owns the layout. Another thread can come by a
//! reference while the Task is registered with asyncio (`all_tasks`), so the coroutine is exchanged
//! under the object's lock, as asyncio reads it; the context, which asyncio reads without, is
//! exchanged only while the Task is not registered and its owner holds all references.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyDict, PyString, PyType, PyTypeMethods};

use super::words::{
    Pattern, behind, changed, exchange, fill, is_number, load, look, only, references,
};

/// Which word holds what, counted from the start of the object.
pub struct TaskLayout {
    class: Py<PyType>,
    coroutine: isize,
    context: isize,
    /// The first callback and its context, null while there is none.
    callback: Option<(isize, isize)>,
    /// `None` where a Task cannot be told from a new one.
    pristine: Option<Pristine>,
}

/// What a Task looks like that is not registered and that nobody noticed.
struct Pristine {
    new: Pattern,
    /// What of it is the same in a Task that is registered.
    registered: Pattern,
    /// The same for what stands behind the object, without its first byte: the room differs.
    behind: Option<(isize, [u8; 3])>,
    /// The word of the name: a number until somebody asks for it.
    name: isize,
    references: ffi::Py_ssize_t,
    /// `None` where a Task that returned cannot be told from one that did more.
    returned: Option<Returned>,
}

/// What a Task differs in once its coroutine returned.
struct Returned {
    all: Pattern,
    /// The word of the result, otherwise null.
    result: isize,
    /// The word of the state, and what it is before.
    state: (isize, usize),
}

/// A Task whose class the layout fits.
pub struct PlainTask(Py<PyAny>);

impl PlainTask {
    /// The Task.
    pub fn bind<'py>(&self, py: Python<'py>) -> &Bound<'py, PyAny> {
        self.0.bind(py)
    }

    /// The Task, in nobody's hand any more.
    pub fn into_inner(self) -> Py<PyAny> {
        self.0
    }
}

/// A Task made for the probe, and what its maker holds of it beside the Task itself.
pub type Probe<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

impl TaskLayout {
    /// Looks how instances of `class` are laid out; `None` when that cannot be told.
    ///
    /// `make` makes a pending Task for a coroutine and a context; `coroutines` are two that it
    /// takes, the first of which returns `result` when it is stepped; `unregister` takes a Task out
    /// of asyncio's registers. No Task is current.
    ///
    /// # Errors
    /// What `make`, `unregister` and asyncio raise.
    pub fn probe<'py>(
        class: &Bound<'py, PyType>,
        coroutines: [Bound<'py, PyAny>; 2],
        result: &Bound<'py, PyAny>,
        mut make: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<Option<Probe<'py>>>,
        unregister: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Self>> {
        let py = class.py();
        let [first, second] = coroutines;
        let new_context = py.import("contextvars")?.getattr("Context")?;
        let (context, other) = (new_context.call0()?, new_context.call0()?);
        let Some((task, _held)) = make(&first, &context)? else {
            return Ok(None);
        };
        task.setattr("_log_destroy_pending", false)?;
        if !task.get_type().is(class) {
            return Ok(None);
        }
        let find = |object: &Bound<'py, PyAny>| only(&task, object.as_ptr().addr());
        let (Some(coroutine), Some(place)) = (find(&first), find(&context)) else {
            return Ok(None);
        };
        let mut layout = Self {
            class: class.clone().unbind(),
            coroutine,
            context: place,
            callback: None,
            pristine: None,
        };
        let plain = layout.admit(task.clone())?;
        drop(layout.replace_coroutine(py, &plain, second.clone()));
        drop(layout.replace_context(py, &plain, other.clone()));
        let seen = (task.call_method0("get_coro")?, task.call_method0("get_context")?);
        if !seen.0.is(&second) || !seen.1.is(&other) {
            return Ok(None);
        }
        unregister.call1((&task,))?;
        layout.callback = callback(&task, [&second, &other])?;
        let differ = [coroutine, place];
        layout.pristine =
            pristine(&task, &mut make, [&first, &context, result], differ, unregister)?;
        Ok(Some(layout))
    }

    /// Takes a Task in hand.
    ///
    /// # Errors
    /// `TypeError` for an object of any other class, a subclass included.
    pub fn admit(&self, task: Bound<'_, PyAny>) -> PyResult<PlainTask> {
        if self.fits(&task) {
            Ok(PlainTask(task.unbind()))
        } else {
            Err(PyTypeError::new_err("a Task of asyncio's own class was expected"))
        }
    }

    /// Exchanges the coroutine that `task` steps; gives the one before.
    pub fn replace_coroutine<'py>(
        &self,
        py: Python<'py>,
        task: &PlainTask,
        coroutine: Bound<'py, PyAny>,
    ) -> Bound<'py, PyAny> {
        with_critical_section(task.bind(py), || exchange(task.bind(py), self.coroutine, coroutine))
    }

    /// Runs `act` while `task` has `stand_in` for its coroutine, which no other thread sees: what
    /// asyncio gives of a Task's coroutine, it gives under the Task's lock, and that is held.
    pub fn with_stand_in<'py, R>(
        &self,
        py: Python<'py>,
        task: &PlainTask,
        stand_in: Bound<'py, PyAny>,
        act: impl FnOnce() -> R,
    ) -> R {
        let task = task.bind(py);
        with_critical_section(task, || {
            let coroutine = exchange(task, self.coroutine, stand_in);
            let result = act();
            drop(exchange(task, self.coroutine, coroutine));
            result
        })
    }

    /// Whether only its owner refers to `task`, which is not registered. Somebody who looks through
    /// all objects could have come by it otherwise.
    pub fn is_alone(&self, py: Python<'_>, task: &PlainTask) -> bool {
        let pristine = self.pristine.as_ref();
        pristine.is_some_and(|pristine| references(task.bind(py)) == pristine.references)
    }

    /// Exchanges coroutine and context of a Task that nobody else can reach; gives those before.
    pub fn replace_both<'py>(
        &self,
        py: Python<'py>,
        task: &PlainTask,
        coroutine: Bound<'py, PyAny>,
        context: Bound<'py, PyAny>,
    ) -> (Bound<'py, PyAny>, Bound<'py, PyAny>) {
        let task = task.bind(py);
        (exchange(task, self.coroutine, coroutine), exchange(task, self.context, context))
    }

    /// Exchanges the context that `task` runs in; gives the one before. For a Task that no other
    /// thread can reach.
    pub fn replace_context<'py>(
        &self,
        py: Python<'py>,
        task: &PlainTask,
        context: Bound<'py, PyAny>,
    ) -> Bound<'py, PyAny> {
        exchange(task.bind(py), self.context, context)
    }

    /// Has `callback` called in `context` when `task` is done, as its first callback; false when it
    /// has one already, or the place is not known: `add_done_callback` does it then.
    pub fn set_callback(
        &self,
        task: &Bound<'_, PyAny>,
        callback: Bound<'_, PyAny>,
        context: Bound<'_, PyAny>,
    ) -> bool {
        let Some((first, its_context)) = self.callback.filter(|_| self.fits(task)) else {
            return false;
        };
        with_critical_section(task, || {
            let free = load(task, first) == 0 && load(task, its_context) == 0;
            if free {
                fill(task, first, callback);
                fill(task, its_context, context);
            }
            free
        })
    }

    /// What the coroutine of `task` returned, if it did.
    pub fn result<'py>(&self, task: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        let place = self.pristine.as_ref()?.returned.as_ref().filter(|_| self.fits(task))?.result;
        // SAFETY: this word of a Task is null or its reference to the result, which stays as long
        // as the Task.
        unsafe { Bound::from_borrowed_ptr_or_opt(task.py(), load(task, place) as *mut _) }
    }

    fn fits(&self, task: &Bound<'_, PyAny>) -> bool {
        task.get_type_ptr() == self.class.bind(task.py()).as_type_ptr()
    }

    /// The context that `task` runs in.
    pub fn context<'py>(&self, py: Python<'py>, task: &PlainTask) -> Bound<'py, PyAny> {
        // SAFETY: `probe` found that this word of a Task is its reference to the context, which is
        // never null once the Task is made, and `PlainTask` is of the class that was probed.
        unsafe { Bound::from_borrowed_ptr(py, load(task.bind(py), self.context) as *mut _) }
    }

    /// The coroutine that `task` steps.
    pub fn coroutine<'py>(&self, py: Python<'py>, task: &PlainTask) -> Bound<'py, PyAny> {
        // SAFETY: as for `context`; only this thread exchanges it, and it is there until the Task
        // is done.
        unsafe { Bound::from_borrowed_ptr(py, load(task.bind(py), self.coroutine) as *mut _) }
    }

    /// Whether `task`, registered and not done, waits for nothing and was not asked to cancel: as
    /// little as that is what may have happened to it.
    pub fn may_be_stepped(&self, py: Python<'_>, task: &PlainTask) -> bool {
        let task = task.bind(py);
        self.pristine.as_ref().is_some_and(|pristine| pristine.registered.fits(task))
    }

    /// Whether `task`, pending and not registered, is as it was made, and only its owner (who
    /// holds what the probe's maker held) refers to it.
    pub fn is_unnoticed(&self, py: Python<'_>, task: &PlainTask) -> bool {
        let Some(pristine) = &self.pristine else {
            return false;
        };
        let task = task.bind(py);
        references(task) == pristine.references
            && pristine.new.fits(task)
            && pristine.behind.is_none_or(|(place, expected)| behind(task, place) == expected)
            && is_number(task, pristine.name)
    }

    /// Makes `task`, whose coroutine returned and which is not registered, pending again as it was
    /// made, if that was all that happened to it ([`TaskLayout::is_unnoticed`]).
    ///
    /// Gives the result it had; `None` leaves the Task as it is.
    pub fn renew<'py>(&self, py: Python<'py>, task: &PlainTask) -> Option<Bound<'py, PyAny>> {
        let pristine = self.pristine.as_ref()?;
        let returned = pristine.returned.as_ref()?;
        let task = task.bind(py);
        let unnoticed = references(task) == pristine.references
            && load(task, returned.result) != 0
            && returned.all.fits(task)
            && pristine.behind.is_none_or(|(place, expected)| behind(task, place) == expected)
            && is_number(task, pristine.name);
        let (state, pending) = returned.state;
        unnoticed.then(|| {
            // SAFETY: nobody but the caller refers to the Task, so nobody reads it meanwhile. The
            // word of the state is no reference (`probe` saw a number change), and the reference
            // to the result is taken over. After both every word is that of a pending Task.
            unsafe {
                let words = task.as_ptr().cast::<usize>();
                words.offset(state).write(pending);
                let result = words.offset(returned.result).cast::<*mut ffi::PyObject>();
                Bound::from_owned_ptr(py, std::ptr::replace(result, std::ptr::null_mut()))
            }
        })
    }
}

/// Where a Task keeps its first callback and that one's context.
fn callback<'py>(
    task: &Bound<'py, PyAny>,
    [function, context]: [&Bound<'py, PyAny>; 2],
) -> PyResult<Option<(isize, isize)>> {
    let py = task.py();
    let function = function.getattr("send")?;
    let context = context.call_method0("copy")?;
    let (before, _) = look(task);
    let keywords = PyDict::new(py);
    keywords.set_item("context", &context)?;
    task.call_method("add_done_callback", (&function,), Some(&keywords))?;
    let places = (only(task, function.as_ptr().addr()), only(task, context.as_ptr().addr()));
    let (after, _) = look(task);
    let changes = changed(&before, &after);
    task.call_method1("remove_done_callback", (&function,))?;
    Ok(match (places, &changes[..]) {
        // Both were null, and nothing else says that there is a callback.
        ((Some(function), Some(context)), [(a, 0, _), (b, 0, _)])
            if [*a, *b] == [function, context] || [*b, *a] == [function, context] =>
        {
            Some((function, context))
        }
        _ => None,
    })
}

/// Learns what a new Task looks like; `None` where a change that matters would not show.
///
/// `noticed` may be spoilt in the course of it. The words at `differ` are another Task's own.
fn pristine<'py>(
    noticed: &Bound<'py, PyAny>,
    make: &mut impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> PyResult<Option<Probe<'py>>>,
    [coroutine, context, result]: [&Bound<'py, PyAny>; 3],
    differ: [isize; 2],
    unregister: &Bound<'py, PyAny>,
) -> PyResult<Option<Pristine>> {
    let py = noticed.py();
    let name = PyString::new(py, "a name that nothing else refers to");
    noticed.call_method1("set_name", (&name,))?;
    let Some(name) = only(noticed, name.as_ptr().addr()) else {
        return Ok(None);
    };
    let before = look(noticed);
    noticed.setattr("an_attribute", 1)?;
    let with_attribute = look(noticed);
    let reference = py.import("weakref")?.call_method1("ref", (noticed,))?;
    let with_reference = look(noticed);
    drop(reference);
    if before == with_attribute || with_attribute == with_reference {
        return Ok(None);
    }
    let Some((task, step)) = make(coroutine, context)? else {
        return Ok(None);
    };
    let (mut registered, _) = look(&task);
    unregister.call1((&task,))?;
    let (mut words, behind) = look(&task);
    registered.retain(|word| words.contains(word));
    let references = references(&task);
    step.call0()?;
    let (mut after, _) = look(&task);
    let returned = returned(&words, &after, &task, result);
    for words in [&mut words, &mut after, &mut registered] {
        words.retain(|(place, _)| *place != name && !differ.contains(place));
    }
    let new = Pattern::new(&words);
    let returned = returned.map(|(result, state)| {
        after.retain(|(place, _)| *place != result);
        Returned { all: Pattern::new(&after), result, state }
    });
    let pristine =
        Pristine { new, registered: Pattern::new(&registered), behind, name, references, returned };
    Ok(is_number(&task, name).then_some(pristine))
}

/// The word of the result, and the word of the state and what it was before, if the return of its
/// coroutine changed nothing else in a Task.
fn returned(
    before: &[(isize, usize)],
    after: &[(isize, usize)],
    task: &Bound<'_, PyAny>,
    result: &Bound<'_, PyAny>,
) -> Option<(isize, (isize, usize))> {
    let result = only(task, result.as_ptr().addr())?;
    let [a, b] = changed(before, after)[..] else { return None };
    let (own, (state, pending, finished)) = if a.0 == result { (a, b) } else { (b, a) };
    // Two addresses would differ in more than their lowest bits, or not at all.
    let is_number = pending ^ finished < 1 << 3;
    (own.0 == result && own.1 == 0 && is_number).then_some((result, (state, pending)))
}
