//! A worker: one connection, and the requests that it sends one after the other.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

use super::client::{Answer, Broken, Client};
use super::failure::{Failure, FailureKind};
use super::job::{Kind, Plan};
use super::pace::{Pace, Seat};
use super::tally::{Settled, Tally};
use super::wire::Receiving;

/// How long a worker keeps off a server that refuses it or hangs up on it: at first, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));

/// What the workers of a run share, on its thread.
pub(crate) struct Shared {
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) receiving: Rc<Receiving>,
    pub(crate) reach: Rc<Reach>,
    pub(crate) timeout: Duration,
    /// Told when the sending is over and nothing is under way.
    pub(crate) all_settled: Notify,
}

/// Whether the server is there.
#[derive(Debug)]
pub(crate) struct Reach {
    give_up: Duration,
    connections: Cell<u64>,
    /// Since when no connection has come about and no answer has come.
    lost: Cell<Option<Instant>>,
    reason: RefCell<String>,
    is_gone: Cell<bool>,
    /// Told when it is gone for good.
    pub(crate) gone: Notify,
}

impl Reach {
    pub(crate) fn new(give_up: Duration) -> Rc<Self> {
        Rc::new(Self {
            give_up,
            connections: Cell::new(0),
            lost: Cell::new(None),
            reason: RefCell::default(),
            is_gone: Cell::new(false),
            gone: Notify::new(),
        })
    }

    pub(crate) fn connected(&self) {
        self.connections.set(self.connections.get() + 1);
        self.lost.set(None);
    }

    fn answered(&self) {
        self.lost.set(None);
    }

    pub(crate) fn failed(&self, text: &str) {
        let now = Instant::now();
        let lost = self.lost.get().unwrap_or(now);
        self.lost.set(Some(lost));
        if now.saturating_duration_since(lost) >= self.give_up && !self.is_gone.replace(true) {
            text.clone_into(&mut self.reason.borrow_mut());
            self.gone.notify_one();
        }
    }

    /// Connections made.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// The failure that told that it is gone.
    pub(crate) fn reason(&self) -> String {
        self.reason.borrow().clone()
    }
}

/// Sends until the sending is over. `client` is a connection that is there already.
pub(crate) async fn work(shared: Rc<Shared>, mut client: Option<Client>) {
    let seat = Rc::new(Seat::default());
    let mut patience = Patience::new(shared.timeout);
    let mut backoff = BACKOFF.0;
    while let Some(ticket) = poll_fn(|cx| shared.pace.poll_next(&seat, cx)).await {
        let sent = Instant::now();
        let index = shared.plan.choice.pick(ticket.number);
        let kind = &shared.plan.kinds[index];
        let exchange = patience.wait(sent + shared.timeout, attempt(&shared, &mut client, kind));
        let outcome = exchange.await;
        let settled = Settled {
            ticket,
            kind: index,
            counts: shared.pace.counts(ticket.due),
            sent,
            at: Instant::now(),
            bytes: shared.receiving.bytes(),
        };
        let has_answered = shared.settle(&settled, kind, outcome, client.is_some());
        if has_answered {
            backoff = BACKOFF.0;
        } else {
            client = None;
            sleep(backoff).await;
            backoff = (2 * backoff).min(BACKOFF.1);
        }
    }
}

async fn attempt(
    shared: &Shared,
    client: &mut Option<Client>,
    kind: &Kind,
) -> Result<Answer, Failure> {
    loop {
        // A server may close a connection between two requests.
        let usable = match client {
            Some(client) => poll_fn(|cx| client.poll_usable(cx)).await,
            None => false,
        };
        if !usable {
            *client = None;
        }
        let current = match client {
            Some(current) => current,
            None => {
                let connected = Client::connect(&shared.plan.endpoint, &shared.receiving).await;
                client.insert(connected.inspect(|_| shared.reach.connected())?)
            }
        };
        let wants_excerpt =
            |status| !kind.is_expected(status) && shared.tally.borrow().lacks(FailureKind::Status);
        match current.exchange(kind, wants_excerpt).await {
            Ok(answer) => return Ok(answer),
            Err(Broken::Failed(failure)) => return Err(failure),
            // Closed since it was looked at: no request was lost.
            Err(Broken::Unsent) if usable => *client = None,
            Err(Broken::Unsent) => {
                let text = "the connection was closed before the request was written".to_owned();
                return Err(Failure { kind: FailureKind::Closed, text });
            }
        }
    }
}

impl Shared {
    /// Takes note of an outcome; true if it is an answer.
    fn settle(
        &self,
        settled: &Settled,
        kind: &Kind,
        outcome: Option<Result<Answer, Failure>>,
        is_connected: bool,
    ) -> bool {
        let mut tally = self.tally.borrow_mut();
        let has_answered = match outcome {
            Some(Ok(answer)) => {
                self.reach.answered();
                if kind.is_expected(answer.status) {
                    tally.completed(settled, answer.status);
                } else {
                    let text = if tally.lacks(FailureKind::Status) {
                        kind.unexpected(answer.status, &answer.excerpt)
                    } else {
                        String::new()
                    };
                    let failure = Failure { kind: FailureKind::Status, text };
                    tally.failed(settled, failure, Some(answer.status));
                }
                true
            }
            failed => {
                let failure = failed.and_then(Result::err).unwrap_or_else(|| Failure {
                    kind: FailureKind::Timeout,
                    text: format!("no whole answer within {:?}", self.timeout),
                });
                if !is_connected {
                    self.reach.failed(&failure.text);
                }
                let text = kind.failed(&failure.text);
                tally.failed(settled, Failure { text, ..failure }, None);
                false
            }
        };
        if self.pace.is_over() && tally.settled().0 == self.pace.issued().0 {
            self.all_settled.notify_one();
        }
        has_answered
    }
}

/// A worker's time limit. Limits only ever move forward, so the timer is set when it fires, not
/// for each request.
struct Patience(Pin<Box<Sleep>>);

impl Patience {
    fn new(timeout: Duration) -> Self {
        Self(Box::pin(sleep(timeout)))
    }

    /// What `future` becomes, or `None` if it has not by `limit`.
    async fn wait<T>(&mut self, limit: Instant, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while self.0.as_mut().poll(cx).is_ready() {
                if Instant::now() >= limit {
                    return Poll::Ready(None);
                }
                self.0.as_mut().reset(limit.into());
            }
            Poll::Pending
        })
        .await
    }
}
