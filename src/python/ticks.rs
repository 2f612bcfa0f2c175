//! The processor's time stamp counter, where it can serve as a clock.

use std::fs;

/// Where the kernel says which clock it trusts.
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// Reads the counter; `None` where the kernel itself does not use it to tell the time, because it
/// stops, changes its rate or differs between cores.
pub fn source() -> Option<fn() -> u64> {
    let trusted = fs::read_to_string(CLOCK_SOURCE).is_ok_and(|name| name.trim() == "tsc");
    #[cfg(target_arch = "x86_64")]
    if trusted {
        return Some(time_stamp_counter);
    }
    let _ = trusted;
    None
}

#[cfg(target_arch = "x86_64")]
fn time_stamp_counter() -> u64 {
    // SAFETY: the instruction reads a register into two others and touches no memory. A kernel that
    // forbids it to programs does not tell the time by it in their address space either.
    unsafe { std::arch::x86_64::_rdtsc() }
}
