//! What a lane counts: plain cells, written on the lane, read there or copied out.

use std::cell::Cell;

/// A copy of a lane's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// Connections served so far.
    pub connections: u64,
    /// Connections open now.
    pub open: u64,
    /// Requests begun so far.
    pub requests: u64,
    /// Requests in flight now.
    pub in_flight: u64,
    /// Bytes received so far.
    pub bytes_received: u64,
    /// Bytes sent so far.
    pub bytes_sent: u64,
    /// How often bytes were handed to the system so far.
    pub sends: u64,
    /// Times up so far: heads, requests and writes that took too long.
    pub timeouts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: Cell<u64>,
    pub(crate) requests: Cell<u64>,
    pub(crate) in_flight: Cell<u64>,
    pub(crate) bytes_received: Cell<u64>,
    pub(crate) bytes_sent: Cell<u64>,
    pub(crate) sends: Cell<u64>,
    pub(crate) timeouts: Cell<u64>,
}

impl Counters {
    pub(crate) fn request_begins(&self) {
        self.requests.set(self.requests.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
    }

    pub(crate) fn request_ends(&self) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
    }

    pub(crate) fn snapshot(&self, open: usize) -> LaneCounters {
        LaneCounters {
            connections: self.connections.get(),
            open: open as u64,
            requests: self.requests.get(),
            in_flight: self.in_flight.get(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            sends: self.sends.get(),
            timeouts: self.timeouts.get(),
        }
    }
}
