//! Limits of a process, counted over all its lanes.
//!
//! The only state of this layer that threads share. Both counters stay untouched while their limit
//! is unset. What is held is held by a guard, so that a panic, a cancellation or a dropped runtime
//! gives it back as well. Who is refused is told; that there were some, the log ([`Refusals`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::refusals::Refusals;
use crate::config::HttpOptions;

/// The limits of one process; every lane and every acceptor holds the same.
#[derive(Debug, Default)]
pub struct Limits {
    connections: Gauge,
    requests: Gauge,
}

impl Limits {
    /// The limits that `options` set.
    #[must_use]
    pub fn new(options: &HttpOptions) -> Arc<Self> {
        Arc::new(Self {
            connections: Gauge::new(options.limit_connections, "connection", "--limit-connections"),
            requests: Gauge::new(options.limit_concurrency, "request", "--limit-concurrency"),
        })
    }

    /// A place for one more connection, or `None` if all are taken.
    pub(crate) fn admit_connection(self: &Arc<Self>) -> Option<ConnectionPermit> {
        match self.connections.take() {
            Taken::Unlimited => Some(ConnectionPermit(None)),
            Taken::Held => Some(ConnectionPermit(Some(Arc::clone(self)))),
            Taken::Refused => None,
        }
    }

    /// As for a connection; both are asked inside a Tokio runtime.
    pub(crate) fn take_request(&self) -> Taken {
        self.requests.take()
    }

    /// Connections and requests that were refused.
    #[must_use]
    pub fn refused(&self) -> (u64, u64) {
        (self.connections.refused(), self.requests.refused())
    }

    pub(crate) fn release_request(&self) {
        self.requests.release();
    }
}

/// What asking a limit for one more came to, and so what the asker owes it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There is no limit: nothing was counted, nothing must be given back.
    Unlimited,
    /// Counted: to be given back exactly once.
    Held,
    /// The limit is reached.
    Refused,
}

#[derive(Debug, Default)]
struct Gauge {
    limit: Option<usize>,
    held: AtomicUsize,
    /// There if there is a limit.
    refusals: Option<Arc<Refusals>>,
}

impl Gauge {
    fn new(limit: Option<usize>, what: &'static str, option: &'static str) -> Self {
        let refusals = limit.map(|limit| Arc::new(Refusals::new(limit, what, option)));
        Self { limit, held: AtomicUsize::new(0), refusals }
    }

    fn take(&self) -> Taken {
        let Some(limit) = self.limit else { return Taken::Unlimited };
        // Relaxed: the number itself is all that is communicated.
        if self.held.fetch_add(1, Ordering::Relaxed) < limit {
            Taken::Held
        } else {
            self.release();
            if let Some(refusals) = &self.refusals {
                refusals.note();
            }
            Taken::Refused
        }
    }

    fn refused(&self) -> u64 {
        self.refusals.as_ref().map_or(0, |refusals| refusals.total())
    }

    fn release(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection's place within the limit; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Option<Arc<Limits>>);

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(limits) = &self.0 {
            limits.connections.release();
        }
    }
}

/// One connection counted in the load of a lane, from its placement to its end.
#[derive(Debug)]
pub(crate) struct LoadTicket(Arc<AtomicUsize>);

impl LoadTicket {
    pub(crate) fn take(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }
}

impl Drop for LoadTicket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_permit_is_given_back_when_dropped() {
        let options = HttpOptions { limit_connections: Some(1), ..HttpOptions::default() };
        let limits = Limits::new(&options);
        let held = limits.admit_connection().expect("the first fits");
        assert!(limits.admit_connection().is_none());
        drop(held);
        assert!(limits.admit_connection().is_some());
    }

    #[tokio::test]
    async fn a_refusal_holds_nothing() {
        let options = HttpOptions { limit_concurrency: Some(1), ..HttpOptions::default() };
        let limits = Limits::new(&options);
        assert_eq!(limits.take_request(), Taken::Held);
        assert_eq!(limits.take_request(), Taken::Refused);
        limits.release_request();
        assert_eq!(limits.take_request(), Taken::Held);
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let limits = Limits::new(&HttpOptions::default());
        assert_eq!(limits.take_request(), Taken::Unlimited);
        assert_eq!(limits.requests.held.load(Ordering::Relaxed), 0);
    }
}
