//! The words that an object of a C class is made of, for the layouts that are found by looking
//! ([`TaskLayout`](super::task_layout::TaskLayout), [`FutureLayout`](super::future_layout::FutureLayout)).
//!
//! A place is counted in words from the start of the object. Callers give places that [`look`] found
//! at an object of the same class.

use std::ffi::c_ulong;
use std::mem::size_of;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;

const WORD: usize = size_of::<usize>();

/// Words of `PyObject` itself: the reference counts change all the time.
const HEAD: usize = size_of::<ffi::PyObject>() / WORD;

/// Where the object's dict and its weak references hang, in words from the object, if CPython
/// manages them: in front of it, beyond the garbage collector's two words where it has them (the
/// builds with the GIL).
const MANAGED: [isize; 2] = if HEAD > 2 { [-2, -1] } else { [-4, -3] };

/// `Py_TPFLAGS_MANAGED_WEAKREF | Py_TPFLAGS_MANAGED_DICT`.
const MANAGED_FLAGS: c_ulong = 1 << 3 | 1 << 4;

/// `Py_TPFLAGS_INLINE_VALUES`: attributes stand behind the object until somebody asks for its
/// dict. What stands there begins with four bytes: room, attributes set, and two flags.
const INLINE_VALUES_FLAG: c_ulong = 1 << 2;

/// Words of an object and what stands in them.
pub(super) struct Pattern {
    /// Those in front of it, which have locks of their own.
    managed: Box<[(isize, usize)]>,
    /// The others: runs of neighbours, each with the place of its first.
    runs: Box<[(isize, Box<[usize]>)]>,
}

impl Pattern {
    /// For words in ascending order; those between them do not matter.
    pub(super) fn new(words: &[(isize, usize)]) -> Self {
        let (managed, own) = words.split_at(words.partition_point(|(place, _)| *place < 0));
        let runs = own.chunk_by(|(before, _), (after, _)| before + 1 == *after);
        let run = |run: &[(isize, usize)]| {
            Some((run.first()?.0, run.iter().map(|(_, word)| *word).collect()))
        };
        Self { managed: managed.into(), runs: runs.filter_map(run).collect() }
    }

    /// Whether `object` has it: at one moment only if it is locked, or nobody else can reach it.
    #[inline]
    pub(super) fn fits(&self, object: &Bound<'_, PyAny>) -> bool {
        let is_as_expected = |(place, word): &(isize, usize)| load(object, *place) == *word;
        self.managed.iter().all(is_as_expected)
            && self.runs.iter().all(|(first, expected)| {
                // SAFETY: `look` found these words at an object of the same class, so all of them are
                // the object's, which is borrowed. Each is loaded as `load` does.
                let found = unsafe {
                    let first = word(object, *first).cast::<AtomicUsize>();
                    std::slice::from_raw_parts(first, expected.len())
                };
                found
                    .iter()
                    .zip(expected)
                    .all(|(found, word)| found.load(Ordering::Relaxed) == *word)
            })
    }
}

/// The one place behind the head where `wanted` stands.
pub(super) fn only(object: &Bound<'_, PyAny>, wanted: usize) -> Option<isize> {
    let (words, _) = look(object);
    let mut places = words.iter().filter(|(_, word)| *word == wanted).map(|(place, _)| *place);
    places.next().filter(|_| places.next().is_none())
}

/// The words that differ: place, before, after. Both looks were at objects of the same class.
pub(super) fn changed(
    before: &[(isize, usize)],
    after: &[(isize, usize)],
) -> Vec<(isize, usize, usize)> {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before != after)
        .map(|(before, after)| (before.0, before.1, after.1))
        .collect()
}

/// Every word of `object` that is its own, and what stands behind it; and where each stands.
#[allow(clippy::type_complexity, reason = "what is in the object and what is behind it")]
pub(super) fn look(object: &Bound<'_, PyAny>) -> (Vec<(isize, usize)>, Option<(isize, [u8; 3])>) {
    // SAFETY: the type of a live object is live.
    let (size, flags) = unsafe {
        let class = object.get_type_ptr();
        ((*class).tp_basicsize, ffi::PyType_GetFlags(class))
    };
    let managed = if flags & MANAGED_FLAGS == MANAGED_FLAGS { &MANAGED[..] } else { &[] };
    let own = HEAD..usize::try_from(size).unwrap_or(0) / WORD;
    let places = managed.iter().copied().chain(own.filter_map(|place| isize::try_from(place).ok()));
    let words = places.map(|place| (place, load(object, place))).collect();
    let behind = (flags & INLINE_VALUES_FLAG != 0).then(|| (size, behind(object, size)));
    (words, behind)
}

/// The bytes after the first, `place` bytes from the start of the object.
pub(super) fn behind(object: &Bound<'_, PyAny>, place: isize) -> [u8; 3] {
    // SAFETY: `place` is the size of an object whose class has the flag: CPython allocates at least
    // the four bytes behind it.
    let [_, rest @ ..] =
        unsafe { object.as_ptr().cast::<u8>().offset(place).cast::<[u8; 4]>().read() };
    rest
}

fn word(object: &Bound<'_, PyAny>, place: isize) -> *mut usize {
    object.as_ptr().cast::<usize>().wrapping_offset(place)
}

#[inline]
pub(super) fn load(object: &Bound<'_, PyAny>, place: isize) -> usize {
    // SAFETY: `place` comes from `look` at an object of the same class: inside the size that the
    // class gives its instances, or one of the words that CPython allocates in front of them for
    // what it manages. Objects are aligned to words. The load is atomic because another thread may
    // write at the same time, while the object is registered.
    unsafe { AtomicUsize::from_ptr(word(object, place)).load(Ordering::Relaxed) }
}

/// Writes a word that is no reference.
pub(super) fn store(object: &Bound<'_, PyAny>, place: isize, value: usize) {
    // SAFETY: as for `load`; `value` is one that the object's own class was seen to write there.
    unsafe { AtomicUsize::from_ptr(word(object, place)).store(value, Ordering::Relaxed) }
}

/// Puts `value` where a reference belongs and none is.
pub(super) fn fill(object: &Bound<'_, PyAny>, place: isize, value: Bound<'_, PyAny>) {
    // SAFETY: the layout found that this word of the class is null or an owned reference, and the
    // caller that it is null now; the object is locked, or nobody else can reach it.
    unsafe {
        word(object, place).cast::<*mut ffi::PyObject>().write(value.into_ptr());
    }
}

/// Takes the reference that is there, if there is one.
pub(super) fn take<'py>(object: &Bound<'py, PyAny>, place: isize) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the layout found that this word of the class is null or an owned reference, which
    // changes hands; the object is locked, or nobody else can reach it.
    unsafe {
        let slot = word(object, place).cast::<*mut ffi::PyObject>();
        Bound::from_owned_ptr_or_opt(object.py(), std::ptr::replace(slot, std::ptr::null_mut()))
    }
}

/// Puts `value` in the place of the reference that is there; gives the one before.
pub(super) fn exchange<'py>(
    object: &Bound<'py, PyAny>,
    place: isize,
    value: Bound<'py, PyAny>,
) -> Bound<'py, PyAny> {
    // SAFETY: the layout found that this word of the class is an owned reference; it is exchanged for
    // another owned one, so every count stays right. What is given back is null only for an object
    // that was cleared by the garbage collector, which our own reference rules out. The layout's doc
    // says why no other thread interferes.
    unsafe {
        let slot = word(object, place).cast::<*mut ffi::PyObject>();
        Bound::from_owned_ptr(object.py(), std::ptr::replace(slot, value.into_ptr()))
    }
}

pub(super) fn references(object: &Bound<'_, PyAny>) -> ffi::Py_ssize_t {
    // SAFETY: a live object.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// Whether the reference at `place` is to an exact `int`.
pub(super) fn is_number(object: &Bound<'_, PyAny>, place: isize) -> bool {
    let value = load(object, place) as *mut ffi::PyObject;
    // SAFETY: the place holds an owned reference or null.
    !value.is_null() && unsafe { ffi::PyLong_CheckExact(value) != 0 }
}

/// Whether the reference at `place` is to an object of that class itself.
pub(super) fn is_of_class(
    object: &Bound<'_, PyAny>,
    place: isize,
    class: &Bound<'_, PyType>,
) -> bool {
    let value = load(object, place) as *mut ffi::PyObject;
    // SAFETY: the place holds an owned reference or null; the object is locked.
    !value.is_null() && unsafe { ffi::Py_TYPE(value) } == class.as_type_ptr()
}
