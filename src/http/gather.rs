//! Answers that wait a moment for those behind them.
//!
//! hyper handles the requests of one connection one after the other. When each of them suspends,
//! the connection's poll ends between them, and each answer would cost a system call of its own.
//! So an answer may wait while a further request of its connection is being handled, for what comes
//! first: the connection has nothing more to handle, the gathered bytes are many, the lane has
//! nothing else to do, or [`LONGEST`] has passed since the first answer began to wait. A connection
//! without a further request never waits, nor does a streamed body, nor a request whose client may
//! be waiting for `100 Continue`.
//!
//! Waiting connections stand in one list of the lane. A task of the lane sends what they hold as
//! soon as a pass over all that was ready, and a look at the sockets, has polled no connection: then
//! what they wait for is not about to come. While connections are polled it goes behind them, and
//! minds the time. A socket that takes no more is left to its connection's own task, which alone may
//! wait for it. A connection that ends sends what it holds and leaves the list.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::io::Transport;
use super::lane::HttpLane;

/// The longest that an answer waits while the lane is busy. The lane looks at the time between two
/// steps of its work, so what it is doing at that moment comes on top.
pub(super) const LONGEST: Duration = Duration::from_millis(2);

/// The connections of a lane whose answers wait.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    held: RefCell<Vec<Rc<Transport>>>,
    /// When the first of them began to wait.
    since: Cell<Option<Instant>>,
    is_running: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gathering {
    /// Lets the answers of `transport` wait.
    pub(crate) fn hold(lane: &Rc<HttpLane>, transport: &Rc<Transport>) {
        let this = &lane.gathering;
        if !transport.begins_waiting() {
            // In the list since an earlier answer.
            if this.is_overdue() {
                this.send_all();
            }
            return;
        }
        this.held.borrow_mut().push(Rc::clone(transport));
        if this.since.get().is_none() {
            this.since.set(Some(Instant::now()));
            this.wake();
            if !this.is_running.replace(true) {
                tokio::task::spawn_local(run(Rc::clone(lane)));
            }
        } else if this.is_overdue() {
            this.send_all();
        }
    }

    /// A connection ends: its socket must not be kept open from here.
    pub(crate) fn release(&self, transport: &Rc<Transport>) {
        if transport.ends_waiting() {
            self.held.borrow_mut().retain(|held| !Rc::ptr_eq(held, transport));
            transport.send_gathered();
        }
    }

    /// Has the task look again: something waits, or the lane has become empty.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn is_overdue(&self) -> bool {
        self.since.get().is_some_and(|since| since.elapsed() >= LONGEST)
    }

    fn send_all(&self) {
        self.since.set(None);
        let held = self.held.take();
        for transport in &held {
            transport.ends_waiting();
            transport.send_gathered();
        }
        // The list keeps its memory; nothing was added meanwhile, as sending calls nobody.
        let mut held = held;
        held.clear();
        self.held.replace(held);
    }
}

/// Lets what is ready go first.
async fn go_behind() {
    let mut is_behind = false;
    poll_fn(|cx| {
        if is_behind {
            return Poll::Ready(());
        }
        is_behind = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The task that sends what waits, until the lane has no connection.
async fn run(lane: Rc<HttpLane>) {
    let this = &lane.gathering;
    loop {
        poll_fn(|cx| {
            if this.since.get().is_some() || lane.open() == 0 {
                return Poll::Ready(());
            }
            this.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        if lane.open() == 0 {
            this.is_running.set(false);
            return;
        }
        loop {
            let seen = lane.meter().polls.get();
            // Comes back after all that is ready and a look at the sockets, then goes behind what
            // that has woken (the lane's turn), and behind what those wake (connections).
            tokio::task::yield_now().await;
            go_behind().await;
            go_behind().await;
            if lane.meter().polls.get() == seen || this.is_overdue() {
                break;
            }
        }
        this.send_all();
    }
}
