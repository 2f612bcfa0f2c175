//! A descriptor that the turn watches, looked at only when the reactor said that something came.
//!
//! Asking Tokio whether a descriptor is ready registers the waker anew, a hundred instructions for an
//! answer that is nearly always no. So each descriptor of the turn has a waker of its own, which
//! takes a note before it wakes the turn's task; without the note the one that was registered still
//! stands.
//!
//! Owned by the turn, on the loop's thread; the reactor may call the waker from any.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::python::fd::{Watched, watch_owned};

/// A descriptor that wakes the turn when it becomes readable.
pub(super) struct Nudging {
    fd: Watched,
    nudge: Option<(Arc<Nudge>, Waker)>,
}

struct Nudge {
    came: AtomicBool,
    turn: Waker,
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.came.store(true, Ordering::Release);
        self.turn.wake_by_ref();
    }
}

impl Nudging {
    /// Watches `fd` from now on.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: watch_owned(fd)?, nudge: None })
    }

    pub(super) fn get_ref(&self) -> &OwnedFd {
        self.fd.get_ref()
    }

    /// Whether it became readable since the last call; wakes the task of `cx` when it does again.
    pub(super) fn came(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        if !self.nudge.as_ref().is_some_and(|(nudge, _)| nudge.turn.will_wake(cx.waker())) {
            let came = AtomicBool::new(true);
            let nudge = Arc::new(Nudge { came, turn: cx.waker().clone() });
            let waker = Waker::from(nudge.clone());
            self.nudge = Some((nudge, waker));
        }
        let Some((nudge, waker)) = &self.nudge else { return Ok(false) };
        if !nudge.came.load(Ordering::Acquire) {
            return Ok(false);
        }
        // Before it looks: what comes from here on is noted for the next time.
        nudge.came.store(false, Ordering::Release);
        let mut came = false;
        while let Poll::Ready(ready) = self.fd.poll_read_ready(&mut Context::from_waker(waker)) {
            ready?.clear_ready();
            came = true;
        }
        Ok(came)
    }
}
