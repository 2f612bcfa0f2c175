//! A bare lane: a thread that drives a Tokio runtime of its own and never touches Python.
//!
//! For work that must go on while every lane is busy in a handler, such as accepting.

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::Builder;

/// Starts a thread that ends when the future made on it is done.
///
/// # Errors
/// What the system says when it has no thread or no descriptor left.
pub fn spawn_bare<F>(
    name: &str,
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    F: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || runtime.block_on(async { make().await }))
}
