//! Polling before the lane sleeps.
//!
//! Who sleeps has to be woken, and that takes the system a few microseconds, on virtual machines
//! tens of them. A peer on the same machine often answers sooner. So a loop that has nothing to do
//! may look at its sockets for some microseconds more, its `busy_poll`, before it sleeps. Other threads
//! need no system call to reach it meanwhile.
//!
//! Whether a loop does so is learned ([`Odds`]): nearly every time it must find something, and its
//! core must not be wanted by others. A loop that waits for what is far away sleeps as soon as ever.
//!
//! Between two looks the thread lets go of the interpreter for a moment, for whoever waits for it.
//!
//! All of it is the lane's thread's, from [`begin`] until the guard goes.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// Two looks that are as far apart: somebody else had the core, or the interpreter.
const CROWDED: Duration = Duration::from_micros(20);

thread_local! {
    static POLLING: Polling = const { Polling::new() };
}

/// The polling of the loop that runs on this thread.
struct Polling {
    /// For how long at most; zero: never.
    longest: Cell<Duration>,
    odds: Cell<Odds>,
    /// While it polls.
    looks: Cell<Option<Looks>>,
    /// Polling was in vain: now it sleeps.
    sleeps: Cell<bool>,
    /// Something came that the turn has no part in.
    worked: Cell<bool>,
    /// Wakes the turn.
    turn: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
struct Looks {
    began: Instant,
    last: Instant,
}

/// Whether to go on polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The lane is not polling.
    No,
    /// Look once more.
    Again,
    /// It was in vain.
    Last,
}

impl Polling {
    const fn new() -> Self {
        Self {
            longest: Cell::new(Duration::ZERO),
            odds: Cell::new(Odds::NONE),
            looks: Cell::new(None),
            sleeps: Cell::new(false),
            worked: Cell::new(false),
            turn: RefCell::new(None),
        }
    }

    fn learn(&self, lesson: impl FnOnce(&mut Odds)) {
        let mut odds = self.odds.get();
        lesson(&mut odds);
        self.odds.set(odds);
    }

    fn ends(&self, lesson: impl FnOnce(&mut Odds)) -> Look {
        self.looks.set(None);
        self.sleeps.set(true);
        self.learn(lesson);
        Look::Last
    }
}

/// A loop that may poll runs on this thread.
#[must_use]
pub(super) struct Polls(());

/// The loop that begins to run on this thread may poll for as long before it sleeps.
pub(super) fn begin(longest: Duration) -> Polls {
    POLLING.with(|polling| {
        polling.longest.set(longest);
        polling.odds.set(Odds::NONE);
    });
    Polls(())
}

impl Drop for Polls {
    fn drop(&mut self) {
        // A thread whose locals are gone runs no loop.
        let _ = POLLING.try_with(|polling| {
            polling.longest.set(Duration::ZERO);
            polling.looks.set(None);
            polling.sleeps.set(false);
            polling.turn.take()
        });
    }
}

/// Whether the loop of this thread may poll.
pub(super) fn is_on() -> bool {
    POLLING.with(|polling| !polling.longest.get().is_zero())
}

/// The lane is about to sleep. True when it polls instead: its turn has been woken then.
pub(super) fn before_sleep() -> bool {
    POLLING.with(|polling| {
        if polling.longest.get().is_zero() || polling.sleeps.replace(false) {
            return false;
        }
        let mut odds = polling.odds.get();
        let polls = odds.are_good();
        polling.odds.set(odds);
        let turn = polling.turn.borrow();
        let Some(turn) = turn.as_ref().filter(|_| polls) else { return false };
        let now = Instant::now();
        polling.looks.set(Some(Looks { began: now, last: now }));
        polling.worked.set(false);
        turn.wake_by_ref();
        true
    })
}

/// Something came for the lane that its turn has no part in.
pub fn note_work() {
    POLLING.with(|polling| polling.worked.set(true));
}

/// The turn was woken; says whether that is for one more look.
pub(super) fn look(cx: &Context<'_>) -> Look {
    POLLING.with(|polling| {
        let mut turn = polling.turn.borrow_mut();
        if !turn.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *turn = Some(cx.waker().clone());
        }
        drop(turn);
        let Some(looks) = polling.looks.get() else { return Look::No };
        let now = Instant::now();
        if polling.worked.replace(false) {
            polling.learn(Odds::paid);
            polling.looks.set(Some(Looks { began: now, last: now }));
            return Look::Again;
        }
        if now.duration_since(looks.last) >= CROWDED {
            return polling.ends(Odds::were_crowded);
        }
        if now.duration_since(looks.began) >= polling.longest.get() {
            return polling.ends(Odds::were_vain);
        }
        polling.looks.set(Some(Looks { last: now, ..looks }));
        Look::Again
    })
}

/// A look found something of the system's.
pub(super) fn paid() {
    POLLING.with(|polling| {
        polling.looks.set(None);
        polling.learn(Odds::paid);
    });
}

/// There is something else to do. Nothing is learned from what other threads send: they are spared
/// a system call, but what they send one by one would be done together after a sleep.
pub(super) fn stop() {
    POLLING.with(|polling| polling.looks.set(None));
}

/// Whether polling pays: what it found lately.
///
/// Each time it finds something earns one, each time in vain costs four: to go on, four of five have
/// to find something. With nothing left, only one sleep of [`Odds::PROBE`] is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Odds {
    credit: u8,
    /// Sleeps since the last try without credit.
    sleeps: u8,
}

impl Odds {
    const NONE: Self = Self { credit: 0, sleeps: 0 };
    const MOST: u8 = 16;
    const COST: u8 = 4;
    const PROBE: u8 = 32;

    /// Whether to poll instead of this sleep.
    fn are_good(&mut self) -> bool {
        if self.credit > 0 {
            return true;
        }
        self.sleeps = (self.sleeps + 1) % Self::PROBE;
        self.sleeps == 0
    }

    fn paid(&mut self) {
        self.credit = (self.credit + 1).min(Self::MOST);
    }

    fn were_vain(&mut self) {
        self.credit = self.credit.saturating_sub(Self::COST);
    }

    fn were_crowded(&mut self) {
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeps_before_a_try(odds: &mut Odds) -> u32 {
        (0..).find(|_| odds.are_good()).unwrap_or_default()
    }

    #[test]
    fn one_sleep_of_many_is_tried_without_credit() {
        let mut odds = Odds::NONE;
        for _ in 0..3 {
            assert_eq!(sleeps_before_a_try(&mut odds), u32::from(Odds::PROBE) - 1);
            odds.were_vain();
        }
    }

    #[test]
    fn what_pays_goes_on() {
        let mut odds = Odds::NONE;
        odds.paid();
        for _ in 0..100 {
            assert!(odds.are_good());
            odds.paid();
        }
        // Four of five are enough, for ever.
        for round in 0..1000 {
            assert!(odds.are_good());
            if round % 5 == 0 {
                odds.were_vain();
            } else {
                odds.paid();
            }
        }
    }

    #[test]
    fn what_pays_less_often_than_four_times_in_five_comes_to_an_end() {
        let mut odds = Odds { credit: Odds::MOST, sleeps: 0 };
        let rounds = (0..1000).take_while(|round| {
            if round % 4 == 0 {
                odds.were_vain();
            } else {
                odds.paid();
            }
            odds.credit > 0
        });
        assert!(rounds.count() < 100);
    }

    #[test]
    fn a_core_that_others_want_is_left_to_them_at_once() {
        let mut odds = Odds { credit: Odds::MOST, sleeps: 0 };
        odds.were_crowded();
        assert_eq!(sleeps_before_a_try(&mut odds), u32::from(Odds::PROBE) - 1);
    }
}
