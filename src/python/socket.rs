//! System calls on a socket whose descriptor belongs to a Python object.
//!
//! What a protocol lends to be filled is filled by the system itself, and what Python code wrote is
//! sent from where it lies.

use std::ffi::{c_int, c_void};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::slice;

use pyo3::exceptions::PyOSError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};
use socket2::{MaybeUninitSlice, SockRef};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::{owned_or_raised, take};
use super::room::Room;

// The system's own: a slice would promise that nobody else writes to what a Python object lends.
unsafe extern "C" {
    fn recv(socket: c_int, buffer: *mut c_void, length: usize, flags: c_int) -> isize;
    fn send(socket: c_int, buffer: *const c_void, length: usize, flags: c_int) -> isize;
}

/// A socket's descriptor, kept open by the Python socket it was borrowed from.
#[derive(Clone, Copy, Debug)]
pub struct SocketFd(RawFd);

impl AsRawFd for SocketFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl AsFd for SocketFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: not negative, and open for as long as this value is used: the transport that
        // holds it counts among the users of the Python socket (`_io_refs`), so that `close()`
        // there waits for it, and drops its registration before it gives that up.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl SocketFd {
    /// Borrows the descriptor `fd` of a Python socket that the caller keeps open.
    ///
    /// # Errors
    /// `InvalidInput` for a negative number, which is what a closed socket has.
    pub fn borrow(fd: RawFd) -> io::Result<Self> {
        if fd < 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the socket is closed"));
        }
        Ok(Self(fd))
    }

    /// Registers the socket with the current Tokio runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn register(self, interest: Interest) -> io::Result<AsyncFd<Self>> {
        // SAFETY: open and the same for the life of the registration, as `as_fd` has it.
        unsafe { AsyncFd::register_with_interest(self, interest) }.map_err(io::Error::from)
    }

    /// Whether it is a Unix socket.
    pub fn is_unix(&self) -> bool {
        socket_domain(self).is_ok_and(|domain| domain == AddressFamily::UNIX)
    }

    /// Receives what has arrived, at most `buffer.len()` bytes.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when nothing has arrived.
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*SockRef::from(self)).read(buffer)
    }

    /// The same, and whether something came with the bytes that ends a reception before the socket
    /// is empty: descriptors or credentials of a Unix socket's peer, which are let go of.
    ///
    /// # Errors
    /// As [`SocketFd::recv`].
    pub fn recv_part(&self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut nothing = RecvAncillaryBuffer::default();
        let message = recvmsg(self, &mut parts, &mut nothing, RecvFlags::empty())?;
        Ok((message.bytes, message.flags.contains(ReturnFlags::CTRUNC)))
    }

    /// Receives into a new object what has arrived, at most `expected` bytes and those that fit into
    /// `beyond`. If it is about as many as expected, none is copied.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when nothing has arrived. `MemoryError`.
    pub fn recv_bytes<'py>(
        &self,
        py: Python<'py>,
        expected: usize,
        beyond: &mut [u8],
    ) -> io::Result<Bound<'py, PyBytes>> {
        let mut room = Room::new(py, expected)?;
        // SAFETY: a call that receives writes what it has received and nothing else.
        let rest = unsafe { slice::from_raw_parts_mut(beyond.as_mut_ptr().cast(), beyond.len()) };
        let mut parts = [MaybeUninitSlice::new(room.space()), MaybeUninitSlice::new(rest)];
        let (size, _) = SockRef::from(self).recv_vectored(&mut parts)?;
        // SAFETY: the system has filled the parts in their order, with `size` bytes in all.
        let bytes = unsafe {
            match size.checked_sub(expected) {
                None | Some(0) => room.finish(size),
                Some(more) => room.finish_with(&beyond[..more]),
            }
        };
        Ok(bytes?)
    }

    /// Receives into `buffer`, at most as much as it has room for.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when nothing has arrived. `InvalidInput` for memory that
    /// was not asked for to be written.
    pub fn recv_into(&self, buffer: &Buffer<'_>) -> io::Result<usize> {
        if buffer.view.readonly != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the memory is read-only"));
        }
        // SAFETY: the exporter keeps the memory in place for as long as the view exists, and lets it
        // be written. Other Python code may read and write it meanwhile, as in `socket.recv_into`: it
        // is only handed to the system here.
        let received = unsafe { recv(self.0, buffer.start().cast(), buffer.len(), 0) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the beginning of `bytes`, as much as the system takes.
    ///
    /// # Errors
    /// What the system says; `WouldBlock` when it takes nothing now.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(self).send(bytes)
    }

    /// Sends the beginning of the memory behind `buffer`.
    ///
    /// # Errors
    /// As [`SocketFd::send`].
    pub fn send_buffer(&self, buffer: &Buffer<'_>) -> io::Result<usize> {
        // SAFETY: as in `recv_into`, but for the writing.
        let sent = unsafe { send(self.0, buffer.start().cast(), buffer.len(), 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Sends the beginning of `parts`, one after the other, in one system call.
    ///
    /// # Errors
    /// As [`SocketFd::send`].
    pub fn send_parts(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        SockRef::from(self).send_vectored(parts)
    }

    /// Sends the end of the stream.
    ///
    /// # Errors
    /// What the system says.
    pub fn shut_down_writing(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }
}

/// The `OSError` of the right kind for what the system said.
pub fn os_error(py: Python<'_>, error: io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        return PyErr::from(error);
    };
    let describe =
        || py.import(intern!(py, "os"))?.call_method1(intern!(py, "strerror"), (number,));
    match describe() {
        Ok(words) => PyOSError::new_err((number, words.unbind())),
        Err(failed) => failed,
    }
}

/// Contiguous memory of a Python object, held in place until dropped.
pub struct Buffer<'py> {
    view: Box<ffi::Py_buffer>,
    _py: Python<'py>,
}

impl<'py> Buffer<'py> {
    /// The memory of `object`, to be written if `writable`.
    ///
    /// # Errors
    /// `TypeError` or `BufferError` where the object has no such memory.
    pub fn of(object: &Bound<'py, PyAny>, writable: bool) -> PyResult<Self> {
        let flags = if writable { ffi::PyBUF_WRITABLE } else { ffi::PyBUF_SIMPLE };
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: `object` is live and the thread attached; the view is filled on success and left
        // without a reference on failure. It is boxed: an exporter may point into it.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } < 0 {
            return Err(take(object.py()));
        }
        Ok(Self { view, _py: object.py() })
    }

    /// Bytes of memory.
    pub fn len(&self) -> usize {
        usize::try_from(self.view.len).unwrap_or_default()
    }

    /// Where the memory begins; never null, as memory without a byte may be in C.
    fn start(&self) -> *mut u8 {
        NonNull::new(self.view.buf.cast()).unwrap_or(NonNull::dangling()).as_ptr()
    }

    /// Whether there is no room at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the memory from `start` on.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn copy_from(&self, start: usize) -> PyResult<Bound<'py, PyBytes>> {
        let start = start.min(self.len());
        let size = ffi::Py_ssize_t::try_from(self.len() - start)?;
        // SAFETY: `start + size` is the length of the memory, which the view keeps in place; the
        // result is a new bytes object or null with an exception set.
        unsafe {
            let from = self.start().add(start).cast::<std::ffi::c_char>();
            let bytes = ffi::PyBytes_FromStringAndSize(from, size);
            Ok(owned_or_raised(self._py, bytes)?.cast_into_unchecked())
        }
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        // SAFETY: filled by `of` and released once, here, attached as `_py` proves.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use pyo3::types::PyByteArray;

    use super::*;

    #[test]
    fn what_is_received_is_written_only_where_it_may_be() {
        Python::initialize();
        let (here, mut there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let socket = SocketFd::borrow(here.as_raw_fd()).unwrap();
        there.write_all(b"abc").unwrap();
        Python::attach(|py| {
            let bytes = PyBytes::new(py, b"12345");
            let read_only = Buffer::of(&bytes, false).unwrap();
            let refused = socket.recv_into(&read_only).unwrap_err();
            assert_eq!(
                (refused.kind(), bytes.as_bytes()),
                (io::ErrorKind::InvalidInput, &b"12345"[..])
            );
            let lent = PyByteArray::new(py, b"12345");
            let writable = Buffer::of(&lent, true).unwrap();
            assert_eq!(socket.recv_into(&writable).unwrap(), 3);
            assert_eq!(lent.to_vec(), b"abc45");
            let empty = socket.recv_into(&writable).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(socket.send_buffer(&writable).unwrap(), 5);
        });
    }
}
