//! The answers of one pass over what is ready, sent together.
//!
//! Tokio polls the connections that are ready one after the other. An answer that is complete is
//! not sent in the poll that made it but when all of them have had theirs: then the lane parses and
//! calls handlers in a row, and sends in a row, and whoever holds several of these connections at
//! the other end is woken once, not for each. Waking a process that sleeps is the dearest part of a
//! send; where there are no others, nothing waits.
//!
//! Connections whose answers wait stand in a list of the lane. A task of the lane sends them: the
//! first of them wakes it, so it comes behind everything that was ready then. A pass that takes
//! longer than [`LONGEST`] sends on the way. Nobody can look into a handler, though: one that keeps
//! the lane busy would keep the answers of others, too. So a lane that meets a step longer than
//! [`LONGEST_STEP`] lets answers go at once for a while ([`LEAST_REST`]), and longer each time it
//! does not help.
//!
//! A socket that takes no more is left to its connection's own task, which alone may wait for it. A
//! connection that ends sends what it holds and leaves the list. All of it belongs to the lane's
//! thread; the list is not borrowed while anything is sent.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::io::Transport;
use super::lane::HttpLane;
use crate::telemetry::Clock;

/// Answers go out on the way once the first of them has waited for so long. Waking who sleeps costs
/// some ten microseconds on a virtual machine: no more than a small part of this.
const LONGEST: Duration = Duration::from_micros(250);

/// The longest that one of them may take.
const LONGEST_STEP: Duration = Duration::from_micros(100);

/// For how long answers go at once after a step that took longer.
const LEAST_REST: Duration = Duration::from_millis(5);
/// The same, after many.
const MOST_REST: Duration = Duration::from_secs(1);

/// The durations above in ticks of the lane's clock.
#[derive(Clone, Copy, Debug)]
struct Ticks {
    longest: u64,
    longest_step: u64,
    least_rest: u64,
    most_rest: u64,
}

impl Ticks {
    fn of(clock: Clock) -> Option<Self> {
        Some(Self {
            longest: clock.ticks_in(LONGEST)?,
            longest_step: clock.ticks_in(LONGEST_STEP)?,
            least_rest: clock.ticks_in(LEAST_REST)?,
            most_rest: clock.ticks_in(MOST_REST)?,
        })
    }
}

/// The connections of a lane whose answers wait for the end of the pass.
#[derive(Debug, Default)]
pub(crate) struct PassEnd {
    held: RefCell<Vec<Rc<Transport>>>,
    /// When the first of them, and the last, began to wait.
    first: Cell<u64>,
    last: Cell<u64>,
    /// Nothing waits before this moment.
    rests_until: Cell<u64>,
    rest: Cell<u64>,
    ticks: Cell<Option<Ticks>>,
    is_running: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl PassEnd {
    /// Lets what `transport` has gathered wait for the end of the pass; false if it is not to wait.
    #[inline]
    pub(crate) fn hold(lane: &Rc<HttpLane>, transport: &Rc<Transport>) -> bool {
        if lane.open() == 1 {
            return false; // for whom?
        }
        let this = &lane.pass_end;
        let clock = lane.meter().clock;
        let Some(ticks) = this.ticks(clock) else { return false };
        let now = clock.now();
        if now < this.rests_until.get() {
            return false;
        }
        if this.held.borrow().is_empty() {
            this.first.set(now);
            this.begin(lane);
        } else if now.saturating_sub(this.first.get()) >= ticks.longest {
            this.send_all(now, ticks);
            return false;
        }
        this.last.set(now);
        if transport.joins_pass() {
            this.held.borrow_mut().push(Rc::clone(transport));
        }
        true
    }

    fn ticks(&self, clock: Clock) -> Option<Ticks> {
        if self.ticks.get().is_none() {
            self.ticks.set(Ticks::of(clock));
        }
        self.ticks.get()
    }

    /// The first of a pass waits: has the task come behind what is ready now.
    fn begin(&self, lane: &Rc<HttpLane>) {
        if self.is_running.replace(true) {
            self.wake();
        } else {
            tokio::task::spawn_local(run(Rc::clone(lane)));
        }
    }

    /// Has the task look again: something waits, or the lane has become empty.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// A connection ends: its socket must not be kept open from here.
    pub(crate) fn release(&self, transport: &Rc<Transport>) {
        if transport.leaves_pass() {
            self.held.borrow_mut().retain(|held| !Rc::ptr_eq(held, transport));
            transport.send_gathered();
        }
    }

    fn send_all(&self, now: u64, ticks: Ticks) {
        let mut held = self.held.take();
        if !held.is_empty() && now.saturating_sub(self.last.get()) > ticks.longest_step {
            self.rest_from(now, ticks);
        }
        for transport in held.drain(..) {
            transport.leaves_pass();
            transport.send_gathered();
        }
        // The list keeps its memory; nothing was added meanwhile, as sending calls nobody.
        self.held.replace(held);
    }

    /// A step took so long that answers had better not waited for it.
    fn rest_from(&self, now: u64, ticks: Ticks) {
        let rest = self.rest.get();
        let goes_on = now.saturating_sub(self.rests_until.get()) < rest;
        let rest = if goes_on { (rest * 2).min(ticks.most_rest) } else { ticks.least_rest };
        self.rest.set(rest);
        self.rests_until.set(now + rest);
    }
}

/// The task that sends what waits, until the lane has no connection.
async fn run(lane: Rc<HttpLane>) {
    let this = &lane.pass_end;
    poll_fn(|cx| {
        let clock = lane.meter().clock;
        if let Some(ticks) = this.ticks(clock) {
            this.send_all(clock.now(), ticks);
        }
        if lane.open() == 0 {
            this.waker.take();
            this.is_running.set(false);
            return Poll::Ready(());
        }
        let mut waker = this.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    })
    .await;
}
