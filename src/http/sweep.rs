//! The watch over a lane's connections: one task and one timer for all of them.
//!
//! Every tick the sweep looks at the connections that are due. Each has a tick at which to look
//! again, in a dense table, so the many that have nothing to expect cost one comparison and are not
//! touched. What is found is left as an [`Order`] for the connection's own task, which alone may
//! change the connection; then the task is woken.
//!
//! A connection changes its phase without telling the table. So no look is further off than the
//! shortest timeout (the horizon), except while a connection sleeps: it cannot go on without
//! telling the table that it woke up.
//!
//! The task starts with the first connection and ends with the last: an idle lane has no timer.

use std::rc::Rc;

use slab::Slab;

use super::info::{NEVER, Order, Phase};
use super::io::Transport;
use super::lane::HttpLane;

/// The connections of a lane, and when to look at each.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    entries: Slab<Entry>,
}

#[derive(Debug)]
struct Entry {
    due: u32,
    transport: Rc<Transport>,
}

impl Registry {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn insert(&mut self, transport: &Rc<Transport>, due: u32) -> usize {
        self.entries.insert(Entry { due, transport: Rc::clone(transport) })
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<Rc<Transport>> {
        self.entries.try_remove(key).map(|entry| entry.transport)
    }

    pub(crate) fn get(&self, key: usize) -> Option<&Transport> {
        self.entries.get(key).map(|entry| &*entry.transport)
    }

    /// Looks at a connection at tick `due` at the latest.
    pub(crate) fn look_by(&mut self, key: usize, due: u32) {
        if let Some(entry) = self.entries.get_mut(key)
            && is_before(due, entry.due)
        {
            entry.due = due;
        }
    }

    #[cfg(test)]
    pub(crate) fn are_all_asleep(&self) -> bool {
        self.entries.iter().all(|(_, entry)| entry.transport.info.asleep.get())
    }

    pub(crate) fn wake_all(&self) {
        for (_, entry) in &self.entries {
            entry.transport.wake();
        }
    }

    pub(crate) fn give_order_to_all(&self, order: Order) {
        for (_, entry) in &self.entries {
            entry.transport.info.order.set(order);
            entry.transport.wake();
        }
    }

    pub(super) fn sweep(&mut self, now: u32, limits: &Ticks) -> u64 {
        let mut timeouts = 0;
        for (_, entry) in &mut self.entries {
            if is_before(now, entry.due) {
                continue;
            }
            let verdict = examine(&entry.transport, limits);
            let next = match verdict {
                Verdict::LookAgain(ticks) => ticks,
                Verdict::Give(order) => {
                    entry.transport.info.order.set(order);
                    entry.transport.wake();
                    limits.horizon
                }
                Verdict::TimeIsUp(order) => {
                    timeouts += 1;
                    entry.transport.info.order.set(order);
                    entry.transport.wake();
                    limits.horizon
                }
            };
            entry.due = now.wrapping_add(next.clamp(1, i32::MAX.unsigned_abs()));
        }
        timeouts
    }
}

/// Ticks wrap around after some years; of two, the earlier is the one less than half a round back.
fn is_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

/// The options' times in ticks.
#[derive(Debug)]
pub(crate) struct Ticks {
    pub(crate) header: u32,
    /// The same for a lane that is on its way to its end.
    pub(crate) last_header: u32,
    pub(crate) keep_alive: u32,
    pub(crate) request: u32,
    pub(crate) write: u32,
    pub(crate) hibernate: u32,
    pub(crate) linger: u32,
    /// How far off the next look at a connection that is awake may be.
    pub(crate) horizon: u32,
}

#[must_use]
enum Verdict {
    /// All is well for this many ticks.
    LookAgain(u32),
    /// The connection has something to do, through no fault of its client.
    Give(Order),
    /// A timeout has struck.
    TimeIsUp(Order),
}

fn examine(transport: &Transport, limits: &Ticks) -> Verdict {
    let info = &transport.info;
    if transport.stalled_for().is_some_and(|stalled| stalled > limits.write) {
        return Verdict::TimeIsUp(Order::Close);
    }
    let age = info.age();
    let wait = |limit: u32| (limit.saturating_sub(age).saturating_add(1)).min(limits.horizon);
    match info.phase() {
        // Half a head is no request: nothing is owed for it, and a stop does not wait for the rest.
        Phase::New | Phase::Head if info.is_draining() => {
            if age > limits.last_header {
                Verdict::Give(Order::Close)
            } else {
                Verdict::LookAgain(wait(limits.last_header))
            }
        }
        Phase::New | Phase::Head if age > limits.header => Verdict::TimeIsUp(Order::RefuseHead),
        Phase::New | Phase::Head => Verdict::LookAgain(wait(limits.header)),
        Phase::Idle if age > limits.keep_alive => Verdict::Give(Order::EndIdle),
        Phase::Idle if info.asleep.get() => {
            Verdict::LookAgain(limits.keep_alive.saturating_sub(age).saturating_add(1))
        }
        Phase::Idle if age > limits.hibernate => Verdict::Give(Order::Hibernate),
        Phase::Idle => Verdict::LookAgain(wait(limits.hibernate.min(limits.keep_alive))),
        // An answer that has begun may take for ever, but the client may not keep it waiting for ever.
        Phase::Responding if info.starved_for().is_some_and(|starved| starved > limits.request) => {
            Verdict::TimeIsUp(Order::Close)
        }
        Phase::Handling | Phase::Responding
            if !transport.is_read_waiting()
                && transport.is_read_closed()
                && !info.ignores_end() =>
        {
            Verdict::Give(Order::Close)
        }
        // Said once; the answer may have to wait for earlier ones.
        Phase::Handling if info.expired.get() => Verdict::LookAgain(limits.horizon),
        Phase::Handling if info.patience.get() != NEVER && age > info.patience.get() => {
            Verdict::TimeIsUp(Order::GiveUp)
        }
        // Nobody reads, so nobody but the sweep would see the client leave.
        Phase::Handling | Phase::Responding if !transport.is_read_waiting() => {
            Verdict::LookAgain(1)
        }
        Phase::Handling => Verdict::LookAgain(wait(info.patience.get())),
        Phase::Responding => {
            let starved = info.starved_for().unwrap_or(0);
            let left = limits.request.saturating_sub(starved).saturating_add(1);
            Verdict::LookAgain(left.min(limits.horizon))
        }
        Phase::Closing if age > limits.linger => Verdict::Give(Order::Close),
        Phase::Closing => Verdict::LookAgain(wait(limits.linger)),
    }
}

/// The task that sweeps while there are connections.
pub(crate) async fn run(lane: Rc<HttpLane>) {
    while !lane.ends_sweeping() {
        tokio::time::sleep(lane.clock.tick()).await;
        let now = lane.clock.advance();
        let timeouts = lane.registry.borrow_mut().sweep(now, &lane.ticks);
        let total = &lane.meter().timeouts;
        total.set(total.get() + timeouts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_compare_across_the_wrap() {
        assert!(is_before(1, 2));
        assert!(!is_before(2, 2));
        assert!(is_before(u32::MAX, 3));
        assert!(!is_before(3, u32::MAX));
    }
}
