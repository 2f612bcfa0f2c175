//! Requests that have ended, until their times are recorded.
//!
//! A request ends when hyper has taken the last of its response; its last byte goes out with what
//! else the connection wrote, at the end of the poll or later. So requests that end in a poll lie
//! here until that poll is over, when one look at the clock does for all of them. What a client is
//! slow to take waits with its connection.
//!
//! Belongs to the lane's thread. Connections are polled one after the other, and each takes what it
//! left here with it.

use std::cell::RefCell;
use std::sync::Arc;

use super::info::ConnectionInfo;
use crate::telemetry::{LaneMeter, RouteMeter, Stage, Stages};

/// A request of which only the bytes are left.
#[derive(Debug)]
pub(crate) struct Unsent {
    /// Counted from 1; 0 is none.
    pub(crate) route: u32,
    pub(crate) stages: Stages,
    /// When there was a response.
    pub(crate) responded: u64,
    /// What it was answered with, if it was.
    pub(crate) status: Option<u16>,
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

    /// A request has ended.
    pub(crate) fn end(&self, request: Unsent) {
        if let Some(route) = self.routes.get(request.route as usize) {
            route.in_flight.sub(1);
        }
        self.ended.borrow_mut().push(request);
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
        for request in unsent.iter_mut() {
            if request.status.is_some() {
                request.stages.add(Stage::Write, now.saturating_sub(request.responded));
            }
            if let Some(meter) = self.routes.get(request.route as usize) {
                meter.record(&request.stages, request.status);
            }
        }
        unsent.clear();
        // The memory goes back to the lane.
        let mut ended = self.ended.borrow_mut();
        if ended.capacity() == 0 {
            std::mem::swap(&mut *ended, unsent);
        }
    }
}
