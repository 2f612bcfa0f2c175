//! What is refused because a limit is reached, said in the log: the first at once, more of them at
//! most once a second, with their number. A refusal is cheap and may come a hundred thousand times
//! a second; its line in a log is not.
//!
//! Any thread may note one. Whoever finds no watch begins one, on its own thread's runtime, and the
//! watch ends with the first second in which there was nothing to say. A refusal that is noted while
//! the watch ends is seen by either: the watch looks again after it said that it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);

/// The refusals of one limit.
#[derive(Debug)]
pub(crate) struct Refusals {
    limit: usize,
    /// One of what is limited.
    what: &'static str,
    option: &'static str,
    total: AtomicU64,
    unsaid: AtomicU64,
    is_watched: AtomicBool,
}

impl Refusals {
    /// Of `limit`, which `option` set, on the number of `what`.
    pub(crate) fn new(limit: usize, what: &'static str, option: &'static str) -> Self {
        let (total, unsaid) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { limit, what, option, total, unsaid, is_watched: AtomicBool::new(false) }
    }

    /// How many there have been.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// One more. To be called inside a Tokio runtime with time.
    #[cold]
    pub(crate) fn note(self: &Arc<Self>) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.unsaid.fetch_add(1, Ordering::SeqCst);
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            self.say();
            tokio::spawn(Arc::clone(self).watch());
        }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if self.say() {
                continue;
            }
            self.is_watched.store(false, Ordering::SeqCst);
            if self.unsaid.load(Ordering::SeqCst) == 0
                || self.is_watched.swap(true, Ordering::SeqCst)
            {
                return;
            }
        }
    }

    /// Whether there was something to say.
    fn say(&self) -> bool {
        let refused = self.unsaid.swap(0, Ordering::SeqCst);
        let Self { limit, what, option, .. } = self;
        let plural = if refused == 1 { "" } else { "s" };
        if refused > 0 {
            tracing::warn!(
                target: "treadle",
                refused,
                "{refused} {what}{plural} refused: {option} {limit} is reached"
            );
        }
        refused > 0
    }
}
