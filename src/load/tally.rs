//! What was seen so far. Its size depends on the kinds of requests, not on their number.

use std::time::{Duration, Instant};

use http::StatusCode;

use super::failure::{Failure, FailureKind};
use super::job::LoadError;
use super::pace::Ticket;
use super::report::{FailureReport, RequestReport};
use super::slices::Slices;
use super::timing::{Distribution, Timing};

#[derive(Debug)]
pub(crate) struct Tally {
    kinds: Vec<KindTally>,
    /// By `FailureKind`, in its order.
    failures: [FailureTally; FailureKind::ALL.len()],
    pub(crate) slices: Slices,
    pub(crate) recent: Recent,
    /// Answers and failures, those of the warm-up included, and those that count.
    settled: (u64, u64),
    /// When the last one that counts was settled.
    pub(crate) last: Option<Instant>,
}

#[derive(Debug)]
struct KindTally {
    completed: u64,
    failed: u64,
    statuses: Vec<(u16, u64)>,
    latency: Timing,
    service: Option<Timing>,
}

#[derive(Debug, Default)]
struct FailureTally {
    count: u64,
    example: String,
}

/// What progress is told from.
#[derive(Debug)]
pub(crate) struct Recent {
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Of the expected answers since the last look.
    pub(crate) latency: Timing,
}

/// One request that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) ticket: Ticket,
    pub(crate) kind: usize,
    /// Whether it counts.
    pub(crate) counts: bool,
    pub(crate) sent: Instant,
    pub(crate) at: Instant,
    /// Bytes that the run had received by then.
    pub(crate) bytes: u64,
}

impl Tally {
    pub(crate) fn new(kinds: usize, is_open: bool, slices: Slices) -> Result<Self, LoadError> {
        let timing = Timing::new()?;
        let kind = || KindTally {
            completed: 0,
            failed: 0,
            statuses: Vec::new(),
            latency: timing.clone(),
            service: is_open.then(|| timing.clone()),
        };
        Ok(Self {
            kinds: std::iter::repeat_with(kind).take(kinds).collect(),
            failures: Default::default(),
            slices,
            recent: Recent { completed: 0, failed: 0, latency: timing.clone() },
            settled: (0, 0),
            last: None,
        })
    }

    /// An expected answer.
    pub(crate) fn completed(&mut self, settled: &Settled, status: StatusCode) {
        let latency = settled.at.saturating_duration_since(settled.ticket.due);
        self.recent.completed += 1;
        self.recent.latency.record(latency);
        self.slices.completed(settled.at, latency, settled.bytes);
        self.settled.0 += 1;
        if settled.counts {
            self.settled.1 += 1;
            self.last = Some(settled.at);
            let kind = &mut self.kinds[settled.kind];
            kind.completed += 1;
            kind.count_status(status);
            kind.latency.record(latency);
            if let Some(service) = &mut kind.service {
                service.record(settled.at.saturating_duration_since(settled.sent));
            }
        }
    }

    /// A failure; `status` where it is an answer.
    pub(crate) fn failed(
        &mut self,
        settled: &Settled,
        failure: Failure,
        status: Option<StatusCode>,
    ) {
        self.recent.failed += 1;
        self.slices.failed(settled.at, settled.bytes);
        self.settled.0 += 1;
        if settled.counts {
            self.settled.1 += 1;
            self.last = Some(settled.at);
            let kind = &mut self.kinds[settled.kind];
            kind.failed += 1;
            if let Some(status) = status {
                kind.count_status(status);
            }
            let of_kind = &mut self.failures[failure.kind as usize];
            if of_kind.count == 0 {
                of_kind.example = failure.text;
            }
            of_kind.count += 1;
        }
    }

    /// Whether no failure of the kind has been counted yet.
    pub(crate) fn lacks(&self, kind: FailureKind) -> bool {
        self.failures[kind as usize].count == 0
    }

    /// Answers and failures so far, and those that count.
    pub(crate) fn settled(&self) -> (u64, u64) {
        self.settled
    }

    pub(crate) fn completed_and_failed(&self) -> (u64, u64) {
        let kinds = self.kinds.iter();
        kinds.fold((0, 0), |sum, kind| (sum.0 + kind.completed, sum.1 + kind.failed))
    }

    /// Latency and service time over all kinds.
    pub(crate) fn over_all(&self) -> Result<(Distribution, Option<Distribution>), LoadError> {
        let (mut latency, mut service) = (Timing::new()?, None);
        for kind in &self.kinds {
            latency.add(&kind.latency);
            if let Some(of_kind) = &kind.service {
                service.get_or_insert(Timing::new()?).add(of_kind);
            }
        }
        Ok((latency.distribution(), service.as_ref().map(Timing::distribution)))
    }

    pub(crate) fn requests(&mut self) -> Vec<RequestReport> {
        let report = |kind: &mut KindTally| {
            kind.statuses.sort_unstable();
            RequestReport {
                completed: kind.completed,
                failed: kind.failed,
                statuses: kind.statuses.clone(),
                latency: kind.latency.distribution(),
                service: kind.service.as_ref().map(Timing::distribution),
            }
        };
        self.kinds.iter_mut().map(report).collect()
    }

    pub(crate) fn failures(&self) -> Vec<FailureReport> {
        let pairs = FailureKind::ALL.into_iter().zip(&self.failures);
        pairs
            .filter(|(_, tally)| tally.count > 0)
            .map(|(kind, tally)| FailureReport {
                kind,
                count: tally.count,
                example: tally.example.clone(),
            })
            .collect()
    }
}

impl KindTally {
    fn count_status(&mut self, status: StatusCode) {
        let status = status.as_u16();
        match self.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, count)) => *count += 1,
            None => self.statuses.push((status, 1)),
        }
    }
}

impl Recent {
    /// The expected answers in a second of `span`, which is over, and p50 and p99 of it.
    pub(crate) fn look(&mut self, span: Duration) -> (f64, f64, f64) {
        let (p50, p99) = (self.latency.quantile(0.5), self.latency.quantile(0.99));
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let count = self.latency.count() as f64;
        self.latency.clear();
        (if span.is_zero() { 0.0 } else { count / span.as_secs_f64() }, p50, p99)
    }
}
