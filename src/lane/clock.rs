//! What time it is for a loop.
//!
//! Loop time is the system's monotonic clock, unless a class derived from the loop's, or the loop
//! itself, was given another `time`: a virtual clock for tests, say. That one is asked wherever
//! asyncio asks it: what a delay is counted from, whether a timer is due, and how long to wait for
//! the next, which is a time of the system's again.

use std::sync::atomic::Ordering;

use pyo3::intern;
use pyo3::prelude::*;

use super::alarm;
use super::loop_core::LoopCore;
use crate::python::call::call_method;

/// Loop time, seconds.
///
/// # Errors
/// What a `time` of the loop's own raises.
pub(super) fn now(event_loop: &Bound<'_, LoopCore>) -> PyResult<f64> {
    if is_systems(event_loop) { Ok(alarm::now()) } else { ask(event_loop) }
}

/// Timers of that loop time or earlier are due, for a loop with a clock of its own.
///
/// # Errors
/// What a `time` of the loop's own raises.
pub(super) fn due_by(event_loop: &Bound<'_, LoopCore>) -> PyResult<f64> {
    let now = ask(event_loop)?;
    // As in asyncio: what is less than the clock's resolution away is due. The sum may be the same
    // number as `now`; what is due now is due still.
    let resolution = intern!(event_loop.py(), "_clock_resolution");
    let soon = now + event_loop.getattr(resolution)?.extract::<f64>()?;
    Ok(now.max(soon.next_down()))
}

/// The time of the system's clock when it will be `when` for the loop, should the loop's clock go
/// like the system's until then.
///
/// # Errors
/// What a `time` of the loop's own raises.
pub(super) fn on_system_clock(
    event_loop: &Bound<'_, LoopCore>,
    when: Option<f64>,
) -> PyResult<Option<f64>> {
    match when {
        Some(when) if !is_systems(event_loop) => {
            let wait = when - ask(event_loop)?;
            Ok(Some(alarm::now() + wait))
        }
        when => Ok(when),
    }
}

/// Whether the loop's clock is the system's.
pub(super) fn is_systems(event_loop: &Bound<'_, LoopCore>) -> bool {
    event_loop.get().has_own_time.load(Ordering::Relaxed)
}

#[cold]
fn ask(event_loop: &Bound<'_, LoopCore>) -> PyResult<f64> {
    call_method(event_loop, intern!(event_loop.py(), "time"))?.extract()
}
