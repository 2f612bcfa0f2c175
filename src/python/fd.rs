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

/// Watches a descriptor of Python's for readability.
///
/// A duplicate is registered, so Python may close its own at any time.
///
/// # Errors
/// A number that is not open, or what the reactor says.
pub fn watch(fd: RawFd) -> io::Result<Watched> {
    // SAFETY: borrowed for the length of this call, in which the Python caller, who passed the
    // number, waits; a number that is not open makes the duplication fail with EBADF.
    let own = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` gives the same open descriptor until it is dropped, and the
    // registration owns it.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(io::Error::from)
}
