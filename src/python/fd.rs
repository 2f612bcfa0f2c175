//! Taking over a file descriptor that Python code detached for us.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Owns `fd` from now on.
///
/// # Errors
/// `InvalidInput` for a negative number.
pub fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "negative file descriptor"));
    }
    // SAFETY: the caller passes the result of `socket.detach()`: nobody else closes it. A number
    // that is not open makes the first system call fail with EBADF, it does not break memory.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor registered with the current Tokio runtime.
pub type Watched = AsyncFd<OwnedFd>;

/// Watches a descriptor for readability from now on.
///
/// # Errors
/// What the reactor says.
pub fn watch_owned(fd: OwnedFd) -> io::Result<Watched> {
    // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, and the
    // registration owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Lends a number that Python code calls a descriptor to `body`, for one system call.
pub fn with_borrowed<R>(fd: RawFd, body: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
    // SAFETY: lent for the length of the call only, in which `body` passes it to the kernel: a
    // number that is not open, or another descriptor's, gives an error or the wrong events, and
    // breaks no memory. -1, which `borrow_raw` forbids, is replaced by the largest number, which
    // is as little a descriptor.
    body(unsafe { BorrowedFd::borrow_raw(if fd < 0 { RawFd::MAX } else { fd }) })
}
