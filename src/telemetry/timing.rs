//! The stages of one request, stamped as it passes them.
//!
//! A connection has one, used again for each of its requests; those who stamp are all on its lane.
//! What takes up a request later than in the poll that began it (a Task) holds the request's number
//! too: a Task that was given up, and goes on, stamps nothing of the next request.

use std::cell::Cell;

use super::stages::{Stage, Stages};

/// Where a request stands, in ticks.
#[derive(Debug, Default)]
pub struct Timing {
    /// Counts requests: who comes with another number comes too late.
    number: Cell<u64>,
    /// The request's place among its dispatcher's routes, counted from 1; 0 is none.
    route: Cell<u32>,
    /// The request's number in logs.
    id: Cell<u64>,
    began: Cell<u64>,
    /// The end of the last stage.
    last: Cell<u64>,
    stages: Stages,
}

impl Timing {
    /// A request's head was parsed at `now`; the lane could have seen it `wait` ticks ago.
    pub fn begin(&self, now: u64, wait: u64) {
        self.number.set(self.number.get().wrapping_add(1));
        self.route.set(0);
        self.id.set(0);
        self.began.set(now);
        self.last.set(now);
        self.stages.clear();
        self.stages.add(Stage::Wait, wait);
    }

    /// The request in hand.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number.get()
    }

    /// Which route answers it.
    pub fn meets(&self, route: u32) {
        self.route.set(route);
    }

    /// Its route, counted from 1; 0 is none.
    #[must_use]
    pub fn route(&self) -> u32 {
        self.route.get()
    }

    /// What logs call it.
    pub fn is_called(&self, id: u64) {
        self.id.set(id);
    }

    /// What logs call it; 0 if they have no name for it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id.get()
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> u64 {
        self.began.get()
    }

    fn stage(&self, now: u64, stage: Stage) {
        let passed = now.saturating_sub(self.last.replace(now));
        self.stages.add(stage, passed);
    }

    /// Its arguments are there.
    pub fn prepared(&self, now: u64) {
        self.stage(now, Stage::Prepare);
    }

    /// A thread of the pool began it, `waited` ticks after it was submitted, and ran it for `ran`; the
    /// lane goes on with it now, for which it may have waited as well.
    pub fn offloaded(&self, now: u64, waited: u64, ran: u64) {
        let passed = now.saturating_sub(self.last.replace(now));
        self.stages.add(Stage::Wait, waited.max(passed.saturating_sub(ran)));
        self.stages.add(Stage::Run, ran);
    }

    /// Its handler returned, raised or suspended.
    pub fn ran(&self, now: u64) {
        self.stage(now, Stage::Run);
    }

    /// Its handler goes on.
    pub fn resumed(&self, now: u64) {
        self.stage(now, Stage::Suspended);
    }

    /// There is a response.
    pub fn serialized(&self, now: u64) {
        self.stage(now, Stage::Serialize);
    }

    /// The end of the last stage.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.get()
    }

    /// The stages so far.
    #[must_use]
    pub fn stages(&self) -> &Stages {
        &self.stages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_add_up() {
        let timing = Timing::default();
        timing.begin(100, 7);
        timing.prepared(110);
        timing.ran(150);
        timing.resumed(250);
        timing.ran(255);
        timing.serialized(256);
        assert_eq!(timing.last(), 256);
        let mut told = Vec::new();
        timing.stages().each(|_, ticks| told.push(ticks));
        assert_eq!(told, [7, 10, 45, 100, 1]);
    }

    #[test]
    fn an_offloaded_call_waits_for_its_thread_and_then_for_the_lane() {
        let timing = Timing::default();
        timing.begin(100, 7);
        timing.prepared(110);
        timing.offloaded(200, 20, 50);
        timing.serialized(203);
        assert_eq!(timing.last(), 203);
        let stages = timing.stages();
        assert_eq!(stages.get(Stage::Wait), Some(7 + 20 + 20));
        assert_eq!((stages.get(Stage::Run), stages.get(Stage::Serialize)), (Some(50), Some(3)));
    }

    #[test]
    fn a_clock_that_goes_back_makes_a_stage_of_nothing() {
        let timing = Timing::default();
        timing.begin(100, 0);
        timing.ran(90);
        assert_eq!(timing.stages().get(Stage::Run), Some(0));
    }
}
