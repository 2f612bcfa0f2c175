//! How long each stage of one request took.

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

/// The ticks of each stage that a request has had. Small: it is handed on for every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    ticks: [u64; STAGES],
    /// A bit for each stage there was.
    had: u8,
}

impl Stages {
    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.had = 0;
    }

    /// The request spent some more ticks in a stage.
    #[inline]
    pub fn add(&mut self, stage: Stage, ticks: u64) {
        let (at, bit) = (stage as usize, 1 << stage as u8);
        let before = if self.had & bit == 0 { 0 } else { self.ticks[at] };
        self.ticks[at] = before + ticks;
        self.had |= bit;
    }

    /// The ticks of a stage, if there was one.
    #[must_use]
    pub fn get(&self, stage: Stage) -> Option<u64> {
        (self.had & (1 << stage as u8) != 0).then_some(self.ticks[stage as usize])
    }

    /// Calls `with` for each stage there was: its place, and its ticks.
    #[inline]
    pub fn each(&self, mut with: impl FnMut(usize, u64)) {
        let mut left = self.had;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            left &= left - 1;
            with(at, self.ticks[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_of_the_last_request_is_not_there_after_clearing() {
        let mut stages = Stages::default();
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
        let mut stages = Stages::default();
        stages.add(Stage::Write, 3);
        stages.add(Stage::Wait, 1);
        let mut told = Vec::new();
        stages.each(|at, ticks| told.push((at, ticks)));
        assert_eq!(told, [(0, 1), (5, 3)]);
    }
}
