//! What is counted of one lane.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::clock::Clock;
use super::histogram::Durations;
use super::tally::Tally;

/// A number that one thread changes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Nothing so far.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds; to be called by the counter's thread alone.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.set(self.get().wrapping_add(amount));
    }

    /// Takes away, down to nothing; to be called by the counter's thread alone.
    #[inline]
    pub fn sub(&self, amount: u64) {
        self.set(self.get().saturating_sub(amount));
    }

    /// Sets.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// As it stands.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds one when what it counts is written: who reads it with [`Counter::complete`] then reads
    /// that as well.
    #[inline]
    pub fn add_complete(&self) {
        self.0.store(self.get().wrapping_add(1), Ordering::Release);
    }

    /// As it stands, to be read before what it counts.
    #[must_use]
    pub fn complete(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What a lane's thread is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// Its loop does not run.
    Away,
    /// It works.
    Awake,
    /// It sleeps until something happens.
    Parked,
    /// It has woken and waits for the interpreter.
    Attaching,
}

/// One lane's counters. Times are ticks.
#[derive(Debug)]
pub struct LaneMeter {
    /// Position in its pool.
    pub index: usize,
    /// What the stamps are taken with.
    pub clock: Clock,
    /// Whether requests are stamped.
    is_on: AtomicBool,
    /// The identifier of the thread that runs the loop, as Python's `get_ident` has it; or 0.
    pub thread: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Polls of connections.
    pub polls: Counter,
    /// Callbacks called.
    pub callbacks: Counter,
    /// Coroutines started in Tasks by the lane.
    pub tasks_started: Counter,
    /// Those that did not end in their first step.
    pub tasks_suspended: Counter,
    /// Handlers' Tasks that ended cancelled.
    pub tasks_cancelled: Counter,
    /// Callbacks that waited when the last turn began.
    pub ready: Counter,
    /// The most that `ready` has been.
    pub ready_max: Counter,
    /// Running turns and handlers that are over.
    running: Counter,
    /// When the turn or handler that runs now began; or 0.
    busy_since: Counter,
    /// Awake.
    pub awake: Counter,
    /// Asleep.
    pub parked: Counter,
    /// Waiting for the interpreter.
    pub attach_wait: Counter,
    /// Connections served so far.
    pub connections: Counter,
    /// Connections open now.
    pub open: Counter,
    /// Requests begun so far.
    pub requests: Counter,
    /// Requests in flight now.
    pub in_flight: Counter,
    /// Bytes received so far.
    pub bytes_received: Counter,
    /// Bytes sent so far.
    pub bytes_sent: Counter,
    /// How often bytes were handed to the system so far.
    pub sends: Counter,
    /// Times up so far: heads, requests and writes that took too long.
    pub timeouts: Counter,
    /// Changes whenever the lane comes to something new: a turn, a request, a step, a sleep.
    pub beat: Counter,
    /// When the lane last woke, or looked at its sockets in between.
    pub looked: Counter,
    /// When the wake-up of the turn was given that has not run yet.
    pub called: Counter,
    attendance: AtomicU8,
    /// When the attendance last changed.
    since: Counter,
    route: AtomicU32,
    request: Counter,
    /// In nanoseconds: timers are set in seconds.
    timer_lag: Tally,
    callback_lag: Tally,
}

impl LaneMeter {
    /// For the lane of that number.
    #[must_use]
    pub fn new(index: usize, clock: Clock) -> Self {
        Self {
            index,
            clock,
            is_on: AtomicBool::new(true),
            thread: Counter::default(),
            turns: Counter::default(),
            polls: Counter::default(),
            callbacks: Counter::default(),
            tasks_started: Counter::default(),
            tasks_suspended: Counter::default(),
            tasks_cancelled: Counter::default(),
            ready: Counter::default(),
            ready_max: Counter::default(),
            running: Counter::default(),
            busy_since: Counter::default(),
            awake: Counter::default(),
            parked: Counter::default(),
            attach_wait: Counter::default(),
            connections: Counter::default(),
            open: Counter::default(),
            requests: Counter::default(),
            in_flight: Counter::default(),
            bytes_received: Counter::default(),
            bytes_sent: Counter::default(),
            sends: Counter::default(),
            timeouts: Counter::default(),
            beat: Counter::default(),
            looked: Counter::default(),
            called: Counter::default(),
            attendance: AtomicU8::new(0),
            since: Counter::default(),
            route: AtomicU32::new(0),
            request: Counter::default(),
            timer_lag: Tally::default(),
            callback_lag: Tally::default(),
        }
    }

    /// Has requests not stamped: only what costs nothing is counted.
    pub fn turn_off(&self) {
        self.is_on.store(false, Ordering::Relaxed);
    }

    /// Whether requests are stamped.
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// What the thread is doing.
    #[must_use]
    pub fn attendance(&self) -> Attendance {
        match self.attendance.load(Ordering::Acquire) {
            1 => Attendance::Awake,
            2 => Attendance::Parked,
            3 => Attendance::Attaching,
            _ => Attendance::Away,
        }
    }

    /// The thread goes over to something else; gives the stamp.
    fn becomes(&self, attendance: Attendance) -> u64 {
        let now = self.clock.now();
        let spent = now.saturating_sub(self.since.get());
        match self.attendance() {
            Attendance::Away => {}
            Attendance::Awake => self.awake.add(spent),
            Attendance::Parked => self.parked.add(spent),
            Attendance::Attaching => self.attach_wait.add(spent),
        }
        self.since.set(now);
        self.beat.add(1);
        let code = match attendance {
            Attendance::Away => 0,
            Attendance::Awake => 1,
            Attendance::Parked => 2,
            Attendance::Attaching => 3,
        };
        self.attendance.store(code, Ordering::Release);
        now
    }

    /// The loop starts to run on the calling thread.
    pub fn arrives(&self, thread: u64) {
        self.thread.set(thread);
        let now = self.becomes(Attendance::Awake);
        self.looked.set(now);
    }

    /// The loop has ended its run.
    pub fn goes(&self) {
        self.becomes(Attendance::Away);
        self.called.set(0);
    }

    /// The thread goes to sleep.
    pub fn parks(&self) {
        self.becomes(Attendance::Parked);
    }

    /// Something happened.
    pub fn wakes(&self) {
        let now = self.becomes(Attendance::Attaching);
        self.looked.set(now);
    }

    /// The interpreter is there again.
    pub fn attached(&self) {
        self.becomes(Attendance::Awake);
    }

    /// How long the thread has been doing what it does, in ticks.
    #[must_use]
    pub fn for_how_long(&self) -> u64 {
        self.clock.now().saturating_sub(self.since.get())
    }

    /// Python runs for this request: its route, counted from 1, and what logs call it.
    #[inline]
    pub fn attends(&self, route: u32, request: u64) {
        self.beat.add(1);
        self.request.set(request);
        self.route.store(route, Ordering::Relaxed);
    }

    /// Python runs for no request.
    #[inline]
    pub fn attends_nothing(&self) {
        self.beat.add(1);
        self.route.store(0, Ordering::Relaxed);
    }

    /// Whom the lane runs Python for: the route, counted from 1, and the request; zeros for nobody.
    #[must_use]
    pub fn attended(&self) -> (u32, u64) {
        (self.route.load(Ordering::Relaxed), self.request.get())
    }

    /// A turn, or a handler outside of one, began at `began`.
    #[inline]
    pub fn works(&self, began: u64) {
        self.busy_since.set(began);
    }

    /// It is over, and took that many ticks.
    #[inline]
    pub fn worked(&self, ticks: u64) {
        self.running.add(ticks);
        self.busy_since.set(0);
    }

    /// Ticks spent in turns and handlers, what runs now included.
    #[must_use]
    pub fn running(&self) -> u64 {
        // Between the two of them, what runs may have ended.
        let mut since = self.busy_since.get();
        loop {
            let over = self.running.get();
            let again = self.busy_since.get();
            if again == since {
                let now = if since == 0 { 0 } else { self.clock.now().saturating_sub(since) };
                return over + now;
            }
            since = again;
        }
    }

    /// The turn was called for; by any thread.
    pub fn calls_turn(&self) {
        self.called.set(self.clock.now());
    }

    /// A turn begins at `now`; `ready` callbacks wait for it.
    pub fn turn_begins(&self, now: u64, ready: usize) {
        self.turns.add(1);
        self.beat.add(1);
        self.works(now);
        let ready = ready as u64;
        self.ready.set(ready);
        if ready > self.ready_max.get() {
            self.ready_max.set(ready);
        }
        let called = self.called.get();
        if called != 0 {
            self.called.set(0);
            self.callback_lag.record(now.saturating_sub(called));
        }
    }

    /// The turn that began at `began` is over.
    pub fn turn_ends(&self, began: u64) {
        self.worked(self.clock.now().saturating_sub(began));
    }

    /// A timer ran this many seconds late.
    pub fn timer_ran_late(&self, seconds: f64) {
        self.timer_lag.record(nanoseconds(seconds));
    }

    /// How late timers ran, in nanoseconds.
    #[must_use]
    pub fn timer_lag(&self) -> Durations {
        self.timer_lag.read()
    }

    /// How long the first callback of each turn had waited.
    #[must_use]
    pub fn callback_lag(&self) -> Durations {
        self.callback_lag.read()
    }
}

/// As many as there are whole ones; none of a time that is no number or negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::of_process(|| None)
    }

    #[test]
    fn the_time_of_a_lane_is_shared_out_without_a_gap() {
        let meter = LaneMeter::new(0, clock());
        meter.arrives(1);
        let start = meter.since.get();
        for _ in 0..100 {
            meter.parks();
            meter.wakes();
            meter.attached();
        }
        meter.goes();
        let all = meter.awake.get() + meter.parked.get() + meter.attach_wait.get();
        assert_eq!(all, meter.since.get() - start);
    }

    #[test]
    fn what_runs_now_counts_as_running() {
        let meter = LaneMeter::new(0, clock());
        let began = meter.clock.now();
        meter.turn_begins(began, 1);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let inside = meter.running();
        assert!(inside > 0);
        meter.turn_ends(began);
        let after = meter.running();
        assert!(after >= inside);
        assert_eq!(meter.running(), after);
    }

    #[test]
    fn a_turn_that_nobody_called_for_has_no_lag() {
        let meter = LaneMeter::new(0, clock());
        meter.turn_begins(meter.clock.now(), 3);
        assert_eq!(meter.callback_lag().count(), 0);
        meter.calls_turn();
        meter.turn_begins(meter.clock.now(), 2);
        assert_eq!(meter.callback_lag().count(), 1);
        assert_eq!((meter.ready.get(), meter.ready_max.get()), (2, 3));
    }
}
