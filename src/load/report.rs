//! What a run tells: while it goes on, and at its end.

use super::failure::FailureKind;
use super::slices::Slice;
use super::timing::Distribution;

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time was over.
    Complete,
    /// It was asked to stop.
    Stopped,
    /// No connection came about for too long.
    ServerGone,
}

impl Ending {
    /// The word that reports have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Stopped => "stopped",
            Self::ServerGone => "server gone",
        }
    }
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Sending, not counted yet.
    Warmup,
    /// Sending.
    Measure,
    /// Waiting for the last answers.
    Finish,
}

impl Phase {
    /// The word that reports have for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warmup => "warmup",
            Self::Measure => "measure",
            Self::Finish => "finish",
        }
    }
}

/// A look at a run that goes on. Times are seconds.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Where it is.
    pub phase: Phase,
    /// Since the first request, the warm-up included.
    pub elapsed: f64,
    /// How long it is to send, the warm-up included.
    pub planned: f64,
    /// Expected answers so far, those of the warm-up included.
    pub completed: u64,
    /// Failures so far, those of the warm-up included.
    pub failed: u64,
    /// Expected answers a second since the last look.
    pub rate: f64,
    /// The median latency since the last look.
    pub p50: f64,
    /// The 99th percentile since the last look.
    pub p99: f64,
}

/// All failures of one kind.
#[derive(Clone, Debug)]
pub struct FailureReport {
    /// The kind.
    pub kind: FailureKind,
    /// How many.
    pub count: u64,
    /// The first one, in words.
    pub example: String,
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct RequestReport {
    /// Expected answers.
    pub completed: u64,
    /// Failures of all kinds.
    pub failed: u64,
    /// Answers by status, ascending, the unexpected ones included.
    pub statuses: Vec<(u16, u64)>,
    /// From when the request was due to the last byte of its expected answer.
    pub latency: Distribution,
    /// From when it was sent; open loop only, else it is the same.
    pub service: Option<Distribution>,
}

/// The result of a run. Its size does not depend on the run's length.
#[derive(Clone, Debug)]
pub struct Report {
    /// Why it ended; all but `Complete` means that the result is partial.
    pub ending: Ending,
    /// For a server that is gone the last failure to connect, else empty.
    pub reason: String,
    /// Seconds from the end of the warm-up to the end of sending, or to the last answer that counts
    /// if that came later.
    pub seconds: f64,
    /// Expected answers.
    pub completed: u64,
    /// Failures of all kinds.
    pub failed: u64,
    /// Requests that were due and never sent; open loop only.
    pub unsent: u64,
    /// Requests that were still under way at the end of the grace period.
    pub unfinished: u64,
    /// Connections made, those before and during the warm-up included.
    pub connections: u64,
    /// Bytes received while it was measured, heads and bodies.
    pub bytes: u64,
    /// As in [`RequestReport`], over all kinds.
    pub latency: Distribution,
    /// As in [`RequestReport`], over all kinds.
    pub service: Option<Distribution>,
    /// In the order of the job.
    pub requests: Vec<RequestReport>,
    /// The kinds of failure that occurred.
    pub failures: Vec<FailureReport>,
    /// From the end of the warm-up to the end of sending, without gaps.
    pub slices: Vec<Slice>,
}
