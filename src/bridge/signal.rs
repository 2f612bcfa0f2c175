//! The waker of a Rust future that a coroutine awaits.
//!
//! A waker may be called and dropped on any thread, also on a lane's own while it is detached
//! inside the reactor. So it holds no Python object: only the number of the place where its home
//! keeps the awaitable.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Wake;

use super::home::Home;
use super::mailbox::{Letter, Mailbox};

/// Says to one awaitable's home that it can go on.
pub(super) struct Signal {
    pub(super) mailbox: Arc<Mailbox>,
    /// Given, and not yet delivered: further ones say nothing new.
    given: AtomicBool,
    /// Where the home keeps the awaitable; the home's thread alone reads and writes it.
    place: AtomicUsize,
}

impl Signal {
    pub(super) fn new(mailbox: Arc<Mailbox>) -> Arc<Self> {
        Arc::new(Self {
            mailbox,
            given: AtomicBool::new(false),
            place: AtomicUsize::new(usize::MAX),
        })
    }

    pub(super) fn place(&self) -> usize {
        self.place.load(Ordering::Relaxed)
    }

    pub(super) fn set_place(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    /// Delivered: the next one counts again. Called before the future is polled.
    pub(super) fn reset(&self) {
        self.given.store(false, Ordering::Release);
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.given.swap(true, Ordering::AcqRel) || Home::wake_here(self) {
            return;
        }
        // Refused by a closed loop: nobody waits any more.
        drop(self.mailbox.send(Letter::Wake(self.clone())));
    }
}
