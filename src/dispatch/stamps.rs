//! The stages of the request in hand, stamped where the dispatcher passes them.
//!
//! A lane does one thing at a time, so one request is in hand at most: the one whose head came in,
//! whose Task completes, whose body or job is there. Its connection begins no other meanwhile. Who
//! takes it up again later keeps the [`InHand`] of the first time, which says whether it did.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::telemetry::{LaneMeter, RouteMeter, Steps, Timing};

/// A request that is stamped.
#[derive(Clone)]
pub(super) struct InHand {
    timing: Rc<Timing>,
    number: u64,
}

impl InHand {
    fn timing(&self) -> Option<&Rc<Timing>> {
        (self.timing.number() == self.number).then_some(&self.timing)
    }
}

/// Stamps the request in hand.
pub(super) struct Stamps {
    meter: Arc<LaneMeter>,
    /// The first is for requests that meet no route.
    routes: Arc<[RouteMeter]>,
    steps: Rc<Steps>,
    in_hand: RefCell<Option<Rc<Timing>>>,
    /// When it was taken up.
    since: Cell<u64>,
}

impl Stamps {
    pub(super) fn new(meter: Arc<LaneMeter>, routes: Arc<[RouteMeter]>, steps: Rc<Steps>) -> Self {
        Self { meter, routes, steps, in_hand: RefCell::new(None), since: Cell::new(0) }
    }

    /// A request has come in.
    pub(super) fn take_up(&self, timing: &Rc<Timing>) {
        if self.meter.is_on() {
            self.since.set(timing.began());
            self.meter.works(timing.began());
            self.in_hand.replace(Some(Rc::clone(timing)));
        }
    }

    /// A request goes on.
    pub(super) fn resume(&self, request: &Option<InHand>) {
        let timing = request.as_ref().and_then(InHand::timing);
        if let Some(timing) = timing {
            self.since.set(self.meter.clock.now());
            self.meter.attends(timing.route(), timing.id());
        }
        self.in_hand.replace(timing.cloned());
    }

    /// For who goes on with the request later.
    pub(super) fn in_hand(&self) -> Option<InHand> {
        let in_hand = self.in_hand.borrow();
        in_hand.as_ref().map(|timing| InHand { timing: Rc::clone(timing), number: timing.number() })
    }

    /// The request is out of hand: what was done for it since it was taken up counts as running.
    pub(super) fn put_down(&self) {
        self.meter.attends_nothing();
        let until = self.in_hand.take().map_or(0, |timing| timing.last());
        self.meter.worked(until.saturating_sub(self.since.get()));
    }

    /// The step in which it was taken up again is not over; its time is the turn's.
    pub(super) fn forget(&self) {
        self.in_hand.take();
    }

    /// It meets the route of that index, and logs call it `id`.
    pub(super) fn meets(&self, index: usize, id: u64) {
        let route = u32::try_from(index + 1).unwrap_or(0);
        self.meter.attends(route, id);
        self.with(|timing, _| {
            timing.meets(route);
            if let Some(route) = self.routes.get(route as usize) {
                route.in_flight.add(1);
            }
            timing.is_called(id);
        });
    }

    fn with(&self, stamp: impl FnOnce(&Timing, &LaneMeter)) {
        if let Some(timing) = &*self.in_hand.borrow() {
            stamp(timing, &self.meter);
        }
    }

    /// Its arguments are there.
    pub(super) fn prepared(&self) {
        self.with(|timing, meter| timing.prepared(meter.clock.now()));
    }

    /// Its handler returned, raised or suspended.
    pub(super) fn ran(&self) {
        self.with(|timing, meter| timing.ran(meter.clock.now()));
    }

    /// There is a response.
    pub(super) fn serialized(&self) {
        self.with(|timing, meter| timing.serialized(meter.clock.now()));
    }

    /// The pool ran it.
    pub(super) fn offloaded(&self, waited: u64, ran: u64) {
        self.with(|timing, meter| timing.offloaded(meter.clock.now(), waited, ran));
    }

    /// Its handler suspended.
    pub(super) fn suspended(&self) {
        self.with(|timing, meter| timing.ran(meter.clock.now()));
    }

    /// From now on the handler's Task, whose context is at that address, takes steps that nobody
    /// tells of.
    pub(super) fn follow(&self, request: &Option<InHand>, context: usize) {
        if let Some(timing) = request.as_ref().and_then(InHand::timing) {
            self.steps.suspend(context, timing, &self.meter);
        }
    }

    /// The Task with that context has ended.
    pub(super) fn ended(&self, context: usize) {
        self.steps.forget(context);
    }

    /// A further step of a handler that the lane takes.
    pub(super) fn steps(&self, request: &Option<InHand>) {
        if let Some(timing) = request.as_ref().and_then(InHand::timing) {
            timing.resumed(self.meter.clock.now());
            self.meter.attends(timing.route(), timing.id());
        }
    }

    /// Such a step is over; the handler's last or not.
    pub(super) fn stepped(&self, request: &Option<InHand>, last: bool) {
        self.meter.attends_nothing();
        if let Some(timing) = request.as_ref().and_then(InHand::timing)
            && !last
        {
            timing.ran(self.meter.clock.now());
        }
    }

    /// One of the lane's handlers was cancelled.
    pub(super) fn cancelled(&self) {
        self.meter.tasks_cancelled.add(1);
    }

    /// What the stamps are taken with.
    pub(super) fn meter(&self) -> &Arc<LaneMeter> {
        &self.meter
    }
}
