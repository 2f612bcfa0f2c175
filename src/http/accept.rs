//! Accepting connections, and handing each to where it will live.
//!
//! One loop a listener, on the lane itself or on a thread of its own. A connection that is to be
//! served on another thread is first taken from this one's runtime ([`Accepted::place_on`]). What
//! the system refuses never ends the loop: an
//! aborted connection is skipped, and out of descriptors it waits and tries again, as the kernel
//! keeps the connection in its queue meanwhile.
//!
//! Stopping: the signal may come from any thread and at any time. The loop then takes what waits in
//! the queue, once, since those clients have been told that they are connected, and closes the
//! listener.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::limits::{ConnectionPermit, Limits, LoadTicket};
use super::problem;
use super::stream::{Listener, Peer, RegisteredListener, Socket, Stream};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Between two lines in the log that accepting fails.
const SILENCE: Duration = Duration::from_secs(10);
/// After so many connections in a row, others on this thread get their turn.
const BATCH: usize = 64;
/// What is taken from the queue at the end: more than a usual backlog, but not without end.
const LAST_CALL: usize = 4096;
/// How long a refused client may take to read why.
const REFUSAL: Duration = Duration::from_secs(1);
/// Refusals under way at once; beyond it, clients are cut off without a word.
const MOST_REFUSALS: usize = 256;

/// A connection on its way to its lane.
#[derive(Debug)]
pub struct Accepted {
    pub(super) socket: Socket,
    pub(super) peer: Peer,
    pub(super) permit: ConnectionPermit,
    pub(super) ticket: Option<LoadTicket>,
}

impl Accepted {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends the connection off to a lane of another thread, and counts it in that lane's load from
    /// now until it ends: the next choice must see it. To be called by the thread that accepted it.
    pub fn place_on(mut self, load: &Arc<AtomicUsize>) -> io::Result<Self> {
        self.socket = self.socket.loosen()?;
        self.ticket = Some(LoadTicket::take(load));
        Ok(self)
    }
}

/// Tells accept loops to stop; any thread may hold it, and it may be cloned.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Stops them. Again is allowed and does nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// The loop's end of a [`StopHandle`].
#[derive(Clone, Debug)]
pub struct StopSignal(watch::Receiver<bool>);

impl StopSignal {
    /// Completes when it is time to stop; a handle that is gone counts as stopped.
    pub async fn stopped(&mut self) {
        // An error says that the handle is gone.
        let _ = self.0.wait_for(|stopped| *stopped).await;
    }
}

/// A switch, and the signal that it gives.
#[must_use]
pub fn stop_signal() -> (StopHandle, StopSignal) {
    let (sender, receiver) = watch::channel(false);
    (StopHandle(sender), StopSignal(receiver))
}

/// Accepts connections until `stop`, and gives each to `place`.
///
/// Must run inside a Tokio runtime with I/O and time. Fails only if the listener cannot be
/// registered with it.
pub async fn accept_loop(
    listener: Listener,
    limits: Arc<Limits>,
    mut stop: StopSignal,
    mut place: impl FnMut(Accepted),
) -> io::Result<()> {
    listener.set_nonblocking()?;
    let registered = RegisteredListener::register(&listener)?;
    let gate = Gate { limits, refusals: Arc::new(()) };
    let mut pause = FIRST_PAUSE;
    let mut told: Option<Instant> = None;
    loop {
        let batch = async {
            for _ in 0..BATCH {
                let (socket, peer) = registered.accept().await?;
                gate.pass(socket, peer, &mut place);
            }
            io::Result::Ok(())
        };
        let outcome = tokio::select! {
            biased;
            () = stop.stopped() => break,
            outcome = batch => outcome,
        };
        match outcome {
            Ok(()) => {
                pause = FIRST_PAUSE;
                tokio::task::yield_now().await;
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if told.is_none_or(|at| at.elapsed() >= SILENCE) {
                    tracing::warn!(target: "treadle", "accepting fails and is tried again: {error}");
                    told = Some(Instant::now());
                }
                tokio::select! {
                    () = stop.stopped() => break,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    for _ in 0..LAST_CALL {
        match listener.accept_waiting() {
            Ok((socket, peer)) => gate.pass(socket, peer, &mut place),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => break,
        }
    }
    Ok(())
}

/// Whether `error` concerns only the connection that was to be accepted: it was gone before, or
/// its network was.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;

    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::PermissionDenied
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
    )
}

/// The limit of connections, applied.
struct Gate {
    limits: Arc<Limits>,
    /// Held once for each refusal that is being said.
    refusals: Arc<()>,
}

impl Gate {
    fn pass(&self, socket: Socket, peer: Peer, place: &mut impl FnMut(Accepted)) {
        match self.limits.admit_connection() {
            Some(permit) => place(Accepted { socket, peer, permit, ticket: None }),
            None if Arc::strong_count(&self.refusals) <= MOST_REFUSALS => {
                let held = Arc::clone(&self.refusals);
                tokio::spawn(async move {
                    let said = refuse(socket).await;
                    // It was refused either way.
                    drop((said, held));
                });
            }
            None => {}
        }
    }
}

/// Answers 503 and closes, once the client has had time to see it.
async fn refuse(socket: Socket) -> io::Result<()> {
    match socket.register()? {
        Stream::Tcp(stream) => talk(stream).await,
        Stream::Unix(stream) => talk(stream).await,
    }
}

async fn talk(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let talk = async {
        stream.write_all(&problem::raw(StatusCode::SERVICE_UNAVAILABLE, "")).await?;
        stream.shutdown().await?;
        // Bytes that nobody has read would turn the close into a reset.
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::time::timeout(REFUSAL, talk).await?
}
