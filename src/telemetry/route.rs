//! What is known of the requests that one route answered on one lane.

use std::sync::OnceLock;

use super::histogram::Durations;
use super::meter::Counter;
use super::stages::{STAGES, Stage, Stages};
use super::tally::Tally;

/// The stages of all requests, as they are read.
#[derive(Clone, Debug, Default)]
pub struct RouteTimes {
    /// In the order of [`Stage`](super::Stage).
    stages: [Durations; STAGES],
    total: Durations,
    /// Answers by the first digit of their status, from 1xx.
    pub statuses: [u64; 5],
    /// Requests that ended without an answer.
    pub cancelled: u64,
    /// Requests that ended.
    pub requests: u64,
}

impl RouteTimes {
    /// The durations of each stage, in the order of [`Stage`](super::Stage).
    #[must_use]
    pub fn stages(&self) -> &[Durations; STAGES] {
        &self.stages
    }

    /// The durations of all stages together.
    #[must_use]
    pub fn total(&self) -> &Durations {
        &self.total
    }
}

/// What the lane counts of a route that had a request.
#[derive(Debug, Default)]
struct Counted {
    stages: [Tally; STAGES],
    total: Tally,
    statuses: [Counter; 5],
    cancelled: Counter,
    /// Counted last: a request that a reader sees here has all its times.
    requests: Counter,
}

/// One route on one lane.
#[derive(Debug, Default)]
pub struct RouteMeter {
    /// Requests that have met the route and not ended.
    pub in_flight: Counter,
    counted: OnceLock<Box<Counted>>,
}

impl RouteMeter {
    /// A request has had all its stages but [`Stage::Write`]; gives their sum, for [`Self::end`].
    /// Both are to be called by the lane's thread alone.
    pub fn spend(&self, stages: &Stages) -> u64 {
        let counted = self.counted.get_or_init(Box::default);
        let mut spent = 0_u64;
        stages.each(|at, ticks| {
            counted.stages[at].record(ticks);
            spent = spent.wrapping_add(ticks);
        });
        spent
    }

    /// A request has ended that had `spent` so many ticks: its answer had this status, and took so
    /// long to write; or there was none.
    pub fn end(&self, spent: u64, answer: Option<(u16, u64)>) {
        let counted = self.counted.get_or_init(Box::default);
        let mut total = spent;
        let mut class = None;
        if let Some((status, write)) = answer {
            counted.stages[Stage::Write as usize].record(write);
            total = total.wrapping_add(write);
            class = counted.statuses.get(usize::from(status / 100).wrapping_sub(1));
        }
        class.unwrap_or(&counted.cancelled).add(1);
        counted.total.record(total);
        counted.requests.add_complete();
    }

    /// A copy; `None` if there was no request.
    #[must_use]
    pub fn read(&self) -> Option<RouteTimes> {
        let counted = self.counted.get()?;
        let requests = counted.requests.complete();
        (requests > 0).then(|| RouteTimes {
            requests,
            stages: counted.stages.each_ref().map(Tally::read),
            total: counted.total.read(),
            statuses: counted.statuses.each_ref().map(Counter::get),
            cancelled: counted.cancelled.get(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Scale;

    #[test]
    fn a_route_without_requests_has_nothing_to_read() {
        assert!(RouteMeter::default().read().is_none());
    }

    #[test]
    fn answers_are_counted_by_class_and_the_rest_as_cancelled() {
        let meter = RouteMeter::default();
        for status in [Some(200), Some(204), Some(404), Some(599), None, Some(700)] {
            meter.end(0, status.map(|status| (status, 1)));
        }
        let times = meter.read().unwrap_or_default();
        assert_eq!(times.statuses, [0, 2, 0, 1, 1]);
        assert_eq!((times.requests, times.cancelled), (6, 2));
    }

    #[test]
    fn a_stage_that_no_request_had_is_not_there() {
        let meter = RouteMeter::default();
        let stages = Stages::default();
        stages.add(Stage::Run, 5);
        let spent = meter.spend(&stages);
        assert!(meter.read().is_none(), "it has not ended");
        meter.end(spent, None);
        let times = meter.read().unwrap_or_default();
        assert_eq!(times.total().count(), 1);
        let counts = times.stages().each_ref().map(Durations::count);
        assert_eq!(counts, [0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn the_total_is_that_of_all_stages() {
        let meter = RouteMeter::default();
        let stages = Stages::default();
        stages.add(Stage::Wait, 1000);
        stages.add(Stage::Run, 50_000);
        let spent = meter.spend(&stages);
        meter.end(spent, Some((200, 400)));
        let times = meter.read().unwrap_or_default();
        let scale = Scale::of_nanoseconds();
        let sums = times.stages().each_ref().map(|times| times.sum(scale) * 1e9);
        assert_eq!(sums.map(f64::round), [1000.0, 0.0, 50_000.0, 0.0, 0.0, 400.0]);
        assert_eq!((times.total().sum(scale) * 1e9).round(), 51_400.0);
    }
}
