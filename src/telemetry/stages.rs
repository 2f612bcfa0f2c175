//! How long each stage of one request took.

use std::cell::Cell;

/// The stages of a request, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the moment the lane could have seen it to its plan, in the queue of the pool, and until
    /// the lane goes on with what the pool ran.
    Wait,
    /// Its arguments, its body included.
    Prepare,
    /// Python in its handler.
    Run,
    /// Its handler's Task waited.
    Suspended,
    /// From the handler's result to a response.
    Serialize,
    /// From the last of the others to its last byte in the system's hands.
    Write,
}

/// How many stages there are.
pub const STAGES: usize = 6;

/// The ticks of each stage that a request has had.
#[derive(Debug, Default)]
pub struct Stages {
    /// Zeros for those it did not have.
    ticks: [Cell<u64>; STAGES],
    /// A bit for each stage there was.
    had: Cell<u8>,
}

impl Stages {
    /// Forgets all.
    #[inline]
    pub fn clear(&self) {
        self.ticks.iter().for_each(|ticks| ticks.set(0));
        self.had.set(0);
    }

    /// The request spent some more ticks in a stage.
    #[inline]
    pub fn add(&self, stage: Stage, ticks: u64) {
        let of_stage = &self.ticks[stage as usize];
        of_stage.set(of_stage.get().wrapping_add(ticks));
        self.had.set(self.had.get() | 1 << stage as u8);
    }

    /// The ticks of a stage, if there was one.
    #[must_use]
    pub fn get(&self, stage: Stage) -> Option<u64> {
        (self.had.get() & (1 << stage as u8) != 0).then(|| self.ticks[stage as usize].get())
    }

    /// Calls `with` for each stage there was: its place, and its ticks.
    #[inline]
    pub fn each(&self, mut with: impl FnMut(usize, u64)) {
        let mut left = self.had.get();
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            with(at, self.ticks[at].get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_of_the_last_request_is_not_there_after_clearing() {
        let stages = Stages::default();
        stages.add(Stage::Run, 5);
        stages.add(Stage::Run, 6);
        assert_eq!(stages.get(Stage::Run), Some(11));
        stages.clear();
        assert_eq!(stages.get(Stage::Run), None);
        stages.add(Stage::Run, 1);
        assert_eq!(stages.get(Stage::Run), Some(1));
    }

    #[test]
    fn each_stage_is_told_once_and_in_order() {
        let stages = Stages::default();
        stages.add(Stage::Write, 3);
        stages.add(Stage::Wait, 1);
        let mut told = Vec::new();
        stages.each(|at, ticks| told.push((at, ticks)));
        assert_eq!(told, [(0, 1), (5, 3)]);
    }
}
