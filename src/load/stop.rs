//! How another thread ends a run early.

use std::sync::Arc;

use tokio::sync::Notify;

/// Asks a run to end. Clones ask the same run.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Notify>);

impl Stop {
    /// Ends the sending; asked once more, also the wait for the answers that are under way. From
    /// any thread, at any time, before the run too.
    pub fn stop(&self) {
        self.0.notify_one();
    }

    pub(crate) async fn asked(&self) {
        self.0.notified().await;
    }
}
