//! All lanes of the process, for whoever reads them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::meter::LaneMeter;

static LANES: Mutex<Vec<Weak<LaneMeter>>> = Mutex::new(Vec::new());

fn lanes() -> MutexGuard<'static, Vec<Weak<LaneMeter>>> {
    LANES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has a lane read with the others, until it is dropped.
pub fn enroll(meter: &Arc<LaneMeter>) {
    let mut lanes = lanes();
    if lanes.len() == lanes.capacity() {
        // Before it grows: loops come and go.
        lanes.retain(|lane| lane.strong_count() > 0);
    }
    lanes.push(Arc::downgrade(meter));
}

/// The lanes that have run and are still there, in the order they were made.
#[must_use]
pub fn enrolled() -> Vec<Arc<LaneMeter>> {
    lanes().iter().filter_map(Weak::upgrade).filter(|lane| lane.thread.get() != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Clock;

    #[test]
    fn a_lane_is_read_while_it_lives_and_once_it_has_run() {
        let meter = Arc::new(LaneMeter::new(4711, Clock::of_process(|| None)));
        let is_there = || enrolled().iter().any(|lane| lane.index == 4711);
        enroll(&meter);
        assert!(!is_there());
        meter.arrives(1);
        assert!(is_there());
        drop(meter);
        assert!(!is_there());
    }
}
