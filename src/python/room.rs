//! A `bytes` object on its way: memory that the system fills before Python sees it.

use std::mem::MaybeUninit;
use std::{ptr, slice};

use pyo3::ffi;
use pyo3::ffi::compat;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::error::{owned_or_raised, take};

/// Room for some bytes, which become an object without being copied.
pub struct Room<'py> {
    writer: *mut compat::PyBytesWriter,
    size: usize,
    py: Python<'py>,
}

impl<'py> Room<'py> {
    /// Room for `size` bytes, none of which is set.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(py: Python<'py>, size: usize) -> PyResult<Self> {
        let length = ffi::Py_ssize_t::try_from(size)?;
        // SAFETY: the thread is attached; the result is null with an exception set, or ours.
        let writer = unsafe { compat::PyBytesWriter_Create(length) };
        if writer.is_null() { Err(take(py)) } else { Ok(Self { writer, size, py }) }
    }

    fn start(&self) -> *mut u8 {
        // SAFETY: made by `new`, and given back only by `finish` and `drop`, which take `self`.
        unsafe { compat::PyBytesWriter_GetData(self.writer) }.cast()
    }

    /// All of it, to be written.
    pub fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: `new` asked for as many bytes; nobody else knows them, and they stay where they
        // are for as long as `self` is borrowed.
        unsafe { slice::from_raw_parts_mut(self.start().cast(), self.size) }
    }

    /// The object, of the first `size` bytes.
    ///
    /// An object of nearly the size of the room stays where it is, which leaves some memory unused;
    /// a smaller one is a copy.
    ///
    /// # Safety
    /// They have been written.
    ///
    /// # Errors
    /// `MemoryError`.
    pub(super) unsafe fn finish(self, size: usize) -> PyResult<Bound<'py, PyBytes>> {
        let size = size.min(self.size);
        if size < self.size - self.size / 4 {
            // SAFETY: inside the room, and written as the caller promises.
            let bytes = unsafe { slice::from_raw_parts(self.start(), size) };
            return Ok(PyBytes::new(self.py, bytes));
        }
        let length = ffi::Py_ssize_t::try_from(size)?;
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: it takes the writer, whether it succeeds or not, and is called once, because
        // `self` is gone. The result is a new bytes object, or null with an exception set.
        unsafe {
            let object = compat::PyBytesWriter_FinishWithSize(this.writer, length);
            Ok(owned_or_raised(this.py, object)?.cast_into_unchecked())
        }
    }

    /// The object of all bytes of the room, and then of `rest`.
    ///
    /// # Safety
    /// The room is full.
    ///
    /// # Errors
    /// `MemoryError`.
    pub(super) unsafe fn finish_with(self, rest: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let all = Self::new(self.py, self.size + rest.len())?;
        // SAFETY: the new room has as many bytes as are copied into it and is nobody else's; those
        // of the old one are written, as the caller promises; afterwards it is full.
        unsafe {
            ptr::copy_nonoverlapping(self.start(), all.start(), self.size);
            ptr::copy_nonoverlapping(rest.as_ptr(), all.start().add(self.size), rest.len());
            let size = all.size;
            all.finish(size)
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, attached as `py` proves, and given back once: `finish` does not drop.
        unsafe { compat::PyBytesWriter_Discard(self.writer) }
    }
}
