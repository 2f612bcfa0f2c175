//! A run from its connections to its report.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{MissedTickBehavior, interval_at, sleep, sleep_until, timeout};

use super::alarm::Alarm;
use super::client::Client;
use super::job::{Job, LoadError, Plan};
use super::pace::Pace;
use super::report::{Ending, Phase, Progress, Report};
use super::slices::Slices;
use super::stop::Stop;
use super::tally::Tally;
use super::wire::Receiving;
use super::worker::{Reach, Shared, work};

/// How long the connections may take that are made before the clock starts. Who comes later
/// connects within its first request.
const HEAD_START: Duration = Duration::from_secs(1);

/// Does a job on this thread, and returns when it is done.
///
/// `tell` is called about every `job.progress`, between requests: what it takes is missing for
/// them. A `Break` ends the run as a stop does, without further words.
///
/// # Errors
/// A job that cannot be done, or a system without the means to.
pub fn run(
    job: &Job,
    stop: &Stop,
    tell: impl FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, LoadError> {
    let plan = Plan::new(job)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| LoadError::new(format!("no runtime: {error}.")))?;
    // Dropped with all tasks on it: what is left of the workers ends here.
    runtime.block_on(Run { job, stop, tell }.drive(plan))
}

struct Run<'a, T> {
    job: &'a Job,
    stop: &'a Stop,
    tell: T,
}

impl<T: FnMut(Progress) -> ControlFlow<()>> Run<'_, T> {
    async fn drive(mut self, plan: Plan) -> Result<Report, LoadError> {
        let receiving = Receiving::new();
        let reach = Reach::new(self.job.give_up);
        let clients = self.connect(&plan, &receiving, &reach).await;
        let alarm = Alarm::new().map_err(|error| LoadError::new(format!("no timer: {error}.")))?;
        let shared = self.share(plan, receiving, reach)?;
        for client in clients {
            tokio::task::spawn_local(work(shared.clone(), client));
        }
        let ending = self.send(&shared, alarm).await?;
        let now = Instant::now();
        // The end may have come before the pacer had its last turn.
        shared.pace.hand_out(now);
        let sent_until = now.min(shared.pace.end());
        shared.pace.close();
        shared.tally.borrow_mut().slices.end_at(sent_until);
        self.finish(&shared).await;
        report(&shared, ending, sent_until)
    }

    async fn connect(
        &self,
        plan: &Plan,
        receiving: &Rc<Receiving>,
        reach: &Reach,
    ) -> Vec<Option<Client>> {
        let limit = HEAD_START.min(self.job.timeout);
        let connecting = (0..self.job.connections).map(|_| async {
            let connected = timeout(limit, Client::connect(&plan.endpoint, receiving)).await;
            // A failure is told by the first request.
            let client = connected.ok().and_then(Result::ok);
            client.inspect(|_| reach.connected())
        });
        join_all(connecting).await
    }

    fn share(
        &self,
        plan: Plan,
        receiving: Rc<Receiving>,
        reach: Rc<Reach>,
    ) -> Result<Rc<Shared>, LoadError> {
        let (job, is_open) = (self.job, plan.schedule.is_some());
        let pace = Pace::new(plan.schedule, Instant::now(), job.warmup, job.duration);
        let slices = Slices::new(pace.origin(), job.duration, job.slice)?;
        let tally = Tally::new(plan.kinds.len(), is_open, slices)?;
        Ok(Rc::new(Shared {
            plan,
            pace,
            tally: tally.into(),
            receiving,
            reach,
            timeout: job.timeout,
            all_settled: tokio::sync::Notify::new(),
        }))
    }

    /// Lets the workers send until there is a reason to end.
    async fn send(&mut self, shared: &Shared, alarm: Alarm) -> Result<Ending, LoadError> {
        let end = sleep_until(shared.pace.end().into());
        let pacing = async {
            let kept = shared.pace.keep(alarm).await;
            match kept {
                Err(error) => LoadError::new(format!("the timer failed: {error}.")),
                Ok(()) => poll_fn(|_| std::task::Poll::Pending).await,
            }
        };
        tokio::select! {
            error = pacing => Err(error),
            () = end => Ok(Ending::Complete),
            () = self.stop.asked() => Ok(Ending::Stopped),
            () = shared.reach.gone.notified() => Ok(Ending::ServerGone),
            () = talk(&mut self.tell, shared, self.job) => Ok(Ending::Stopped),
        }
    }

    /// Waits for what is under way, as long as that is granted.
    async fn finish(&mut self, shared: &Shared) {
        let is_settled = shared.tally.borrow().settled().0 == shared.pace.issued().0;
        if is_settled {
            return;
        }
        tokio::select! {
            () = shared.all_settled.notified() => {}
            () = sleep(self.job.grace) => {}
            () = self.stop.asked() => {}
            () = talk(&mut self.tell, shared, self.job) => {}
        }
    }
}

/// Tells the progress until nobody listens.
async fn talk(tell: &mut impl FnMut(Progress) -> ControlFlow<()>, shared: &Shared, job: &Job) {
    let planned = (job.warmup + job.duration).as_secs_f64();
    let mut before = Instant::now();
    let mut ticks = interval_at((before + job.progress).into(), job.progress);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let phase = if shared.pace.is_over() {
            Phase::Finish
        } else if shared.pace.counts(now) {
            Phase::Measure
        } else {
            Phase::Warmup
        };
        let mut tally = shared.tally.borrow_mut();
        let (rate, p50, p99) = tally.recent.look(now - before);
        before = now;
        let progress = Progress {
            phase,
            elapsed: shared.pace.elapsed(now).as_secs_f64(),
            planned,
            completed: tally.recent.completed,
            failed: tally.recent.failed,
            rate,
            p50,
            p99,
        };
        drop(tally);
        if tell(progress).is_break() {
            return;
        }
    }
}

fn report(shared: &Shared, ending: Ending, sent_until: Instant) -> Result<Report, LoadError> {
    let mut tally = shared.tally.borrow_mut();
    let tally = &mut *tally;
    let (completed, failed) = tally.completed_and_failed();
    let (latency, service) = tally.over_all()?;
    let bytes = shared.receiving.bytes();
    let origin = shared.pace.origin();
    let slices = tally.slices.finish(sent_until, bytes);
    let last = tally.last.map_or(sent_until, |last| last.max(sent_until));
    Ok(Report {
        ending,
        reason: shared.reach.reason(),
        seconds: last.saturating_duration_since(origin).as_secs_f64(),
        completed,
        failed,
        unsent: shared.pace.unsent(sent_until),
        unfinished: shared.pace.issued().1 - tally.settled().1,
        connections: shared.reach.connections(),
        bytes: slices.iter().map(|slice| slice.bytes).sum(),
        latency,
        service,
        requests: tally.requests(),
        failures: tally.failures(),
        slices,
    })
}
