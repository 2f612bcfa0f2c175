//! Requests that have ended, until their times are recorded.
//!
//! A request ends when hyper has taken the last of its response; its last byte goes out with what
//! else the connection wrote, at the end of the poll or later. So requests that end in a poll lie
//! here until that poll is over, when one look at the clock does for all of them. What a client is
//! slow to take waits with its connection. The stages before that are counted at once.
//!
//! Belongs to the lane's thread. Connections are polled one after the other, and each takes what it
//! left here with it.

use std::cell::RefCell;
use std::sync::Arc;

use super::info::ConnectionInfo;
use crate::telemetry::{LaneMeter, RouteMeter, Timing};

/// A request of which only the bytes are left.
#[derive(Debug)]
pub(crate) struct Unsent {
    /// Counted from 1; 0 is none.
    route: u32,
    /// What it was answered with, if it was.
    status: Option<u16>,
    /// When there was a response.
    responded: u64,
    /// The ticks until then.
    spent: u64,
}

/// The requests of one lane that wait to be recorded.
#[derive(Debug)]
pub(crate) struct Reckoning {
    meter: Arc<LaneMeter>,
    /// The first is for requests that met no route.
    routes: Arc<[RouteMeter]>,
    ended: RefCell<Vec<Unsent>>,
}

impl Reckoning {
    pub(crate) fn new(meter: Arc<LaneMeter>, routes: Arc<[RouteMeter]>) -> Self {
        Self { meter, routes, ended: RefCell::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ended.borrow().is_empty()
    }

    /// A request has ended, answered with `status` or not at all.
    pub(crate) fn end(&self, timing: &Timing, status: Option<u16>) {
        let route = timing.route();
        let spent = self.routes.get(route as usize).map_or(0, |meter| {
            meter.in_flight.sub(1);
            meter.spend(timing.stages())
        });
        self.ended.borrow_mut().push(Unsent { route, status, responded: timing.last(), spent });
    }

    pub(crate) fn move_to(&self, unsent: &mut Vec<Unsent>) {
        let mut ended = self.ended.borrow_mut();
        if unsent.is_empty() {
            // The usual case, and no memory is moved.
            std::mem::swap(&mut *ended, unsent);
        } else {
            unsent.append(&mut ended);
        }
    }

    /// Records them: their last bytes have just gone out, or never will.
    pub(crate) fn settle(&self, unsent: &mut Vec<Unsent>, info: &ConnectionInfo) {
        if unsent.is_empty() {
            return;
        }
        let now = self.meter.clock.now();
        info.written.set(now);
        for request in unsent.drain(..) {
            if let Some(meter) = self.routes.get(request.route as usize) {
                let write = now.saturating_sub(request.responded);
                meter.end(request.spent, request.status.map(|status| (status, write)));
            }
        }
        // The memory goes back to the lane.
        let mut ended = self.ended.borrow_mut();
        if ended.capacity() == 0 {
            std::mem::swap(&mut *ended, unsent);
        }
    }
}
