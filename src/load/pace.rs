//! Hands out the numbers of the requests: when each is due, and who sends it.
//!
//! A worker that is free asks for the next number. In the closed loop it gets one at once. In the
//! open loop it gets one that is due already, or waits on its *seat*; the pacer wakes for each
//! number that comes due and gives it to the worker that has waited longest, so that all
//! connections are used. While every worker is busy nothing is kept: numbers and times follow from
//! the schedule.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::alarm::Alarm;
use super::schedule::Schedule;

/// The right to send one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    /// When it was to be sent.
    pub(crate) due: Instant,
}

/// Where a worker waits.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    ticket: Cell<Option<Ticket>>,
    waker: RefCell<Option<Waker>>,
    is_queued: Cell<bool>,
}

#[derive(Debug)]
pub(crate) struct Pace {
    schedule: Option<Schedule>,
    start: Instant,
    /// When the warm-up is over.
    origin: Instant,
    end: Instant,
    issued: Cell<u64>,
    issued_in_warmup: Cell<u64>,
    is_over: Cell<bool>,
    waiting: RefCell<VecDeque<Rc<Seat>>>,
    came_free: Notify,
}

impl Pace {
    pub(crate) fn new(
        schedule: Option<Schedule>,
        start: Instant,
        warmup: Duration,
        duration: Duration,
    ) -> Self {
        let origin = start + warmup;
        Self {
            schedule,
            start,
            origin,
            end: origin + duration,
            issued: Cell::new(0),
            issued_in_warmup: Cell::new(0),
            is_over: Cell::new(false),
            waiting: RefCell::default(),
            came_free: Notify::new(),
        }
    }

    /// The next number, if it is due now.
    fn take(&self, now: Instant) -> Option<Ticket> {
        let number = self.issued.get();
        let due = self.due(number, now);
        if due > now || due >= self.end {
            return None;
        }
        self.issued.set(number + 1);
        if !self.counts(due) {
            self.issued_in_warmup.set(number + 1);
        }
        Some(Ticket { number, due })
    }

    /// Whether a request that was due then counts.
    pub(crate) fn counts(&self, due: Instant) -> bool {
        due >= self.origin
    }

    pub(crate) fn origin(&self) -> Instant {
        self.origin
    }

    /// When the sending ends, if nobody ends it before.
    pub(crate) fn end(&self) -> Instant {
        self.end
    }

    /// Since the first request, the warm-up included.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.start)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// Requests handed out, and those of them that count.
    pub(crate) fn issued(&self) -> (u64, u64) {
        let issued = self.issued.get();
        (issued, issued - self.issued_in_warmup.get())
    }

    fn due(&self, number: u64, now: Instant) -> Instant {
        match self.schedule {
            None => now,
            // What is never due within a clock's range is not due before the end either.
            Some(schedule) => self.start.checked_add(schedule.at(number)).unwrap_or(self.end),
        }
    }

    /// Ready with the next request to send, or with none when the sending is over.
    pub(crate) fn poll_next(&self, seat: &Rc<Seat>, cx: &Context<'_>) -> Poll<Option<Ticket>> {
        if let Some(ticket) = seat.ticket.take() {
            return Poll::Ready(Some(ticket));
        }
        if self.is_over.get() {
            return Poll::Ready(None);
        }
        if !seat.is_queued.get() {
            let now = Instant::now();
            if let Some(ticket) = self.take(now) {
                return Poll::Ready(Some(ticket));
            }
            if now >= self.end {
                return Poll::Ready(None);
            }
            seat.is_queued.set(true);
            self.waiting.borrow_mut().push_back(seat.clone());
            self.came_free.notify_one();
        }
        let mut waker = seat.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Ends the sending; a worker that waits gets nothing more.
    pub(crate) fn close(&self) {
        self.is_over.set(true);
        for seat in self.waiting.take() {
            seat.wake();
        }
    }

    /// How many requests that count came due by then and were not handed out; none in the closed
    /// loop.
    pub(crate) fn unsent(&self, by: Instant) -> u64 {
        let Some(schedule) = self.schedule else {
            return 0;
        };
        let before = |moment: Instant| {
            schedule.before(moment.min(self.end).saturating_duration_since(self.start))
        };
        before(by).saturating_sub(before(self.origin).max(self.issued.get()))
    }

    /// The pacer: gives what comes due to those who wait. Ends with the schedule.
    pub(crate) async fn keep(&self, mut alarm: Alarm) -> io::Result<()> {
        while self.schedule.is_some() && !self.is_over.get() {
            if self.waiting.borrow().is_empty() {
                // Whoever comes free takes what is due by then itself.
                self.came_free.notified().await;
                continue;
            }
            let due = self.due(self.issued.get(), self.start);
            if due >= self.end {
                break;
            }
            alarm.until(due).await?;
            self.hand_out(Instant::now());
        }
        Ok(())
    }

    /// Gives what is due to those who wait.
    pub(crate) fn hand_out(&self, now: Instant) {
        while let Some(seat) = self.front() {
            let Some(ticket) = self.take(now) else {
                break;
            };
            self.waiting.borrow_mut().pop_front();
            seat.give(ticket);
        }
    }

    fn front(&self) -> Option<Rc<Seat>> {
        self.waiting.borrow().front().cloned()
    }
}

impl Seat {
    fn give(&self, ticket: Ticket) {
        self.ticket.set(Some(ticket));
        self.is_queued.set(false);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn poll(pace: &Pace, seat: &Rc<Seat>) -> Poll<Option<Ticket>> {
        pace.poll_next(seat, &Context::from_waker(Waker::noop()))
    }

    fn number(polled: Poll<Option<Ticket>>) -> Option<u64> {
        match polled {
            Poll::Ready(ticket) => ticket.map(|ticket| ticket.number),
            Poll::Pending => panic!("nothing is due"),
        }
    }

    #[test]
    fn the_closed_loop_sends_at_once_until_the_end() {
        let pace = Pace::new(None, Instant::now(), Duration::ZERO, Duration::from_secs(60));
        let seat = Rc::new(Seat::default());
        assert_eq!(number(poll(&pace, &seat)), Some(0));
        assert_eq!(number(poll(&pace, &seat)), Some(1));
        pace.close();
        assert_eq!(number(poll(&pace, &seat)), None);
        assert_eq!((pace.issued(), pace.unsent(pace.end())), ((2, 2), 0));
    }

    #[test]
    fn what_is_overdue_goes_out_at_once_with_the_time_it_was_due() {
        // Began 10 ms ago with one request a millisecond: eleven are due, the first five in the
        // warm-up.
        let start = Instant::now().checked_sub(10 * MILLI).unwrap();
        let rate = Some(Schedule::new(1000.0));
        let pace = Pace::new(rate, start, 5 * MILLI, Duration::from_secs(1));
        let seat = Rc::new(Seat::default());
        for expected in 0..10 {
            let Poll::Ready(Some(ticket)) = poll(&pace, &seat) else { panic!("{expected}") };
            assert_eq!(
                (ticket.number, ticket.due),
                (expected, start + ticket.number as u32 * MILLI)
            );
        }
        assert_eq!(pace.issued(), (10, 5));
        assert_eq!(pace.unsent(start + 20 * MILLI), 10);
        assert_eq!(pace.unsent(pace.end()), 1005 - 10);
    }

    #[test]
    fn who_waits_longest_is_served_first_and_the_end_wakes_all() {
        let rate = Some(Schedule::new(0.001));
        let pace = Pace::new(rate, Instant::now(), Duration::ZERO, Duration::from_secs(60));
        let seats: Vec<_> = (0..3).map(|_| Rc::new(Seat::default())).collect();
        assert_eq!(number(poll(&pace, &seats[0])), Some(0));
        for seat in &seats {
            assert!(poll(&pace, seat).is_pending());
            assert!(poll(&pace, seat).is_pending());
        }
        assert_eq!(pace.waiting.borrow().len(), 3);
        assert!(Rc::ptr_eq(&pace.front().unwrap(), &seats[0]));
        pace.close();
        for seat in &seats {
            assert_eq!(number(poll(&pace, seat)), None);
        }
    }
}
