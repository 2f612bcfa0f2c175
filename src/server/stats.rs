//! What is counted, as Python reads it: plain dicts in the shapes of `treadle.stats`.
//!
//! Any thread may read; nothing here waits for a lane.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::telemetry::{Attendance, Durations, LaneMeter, RouteMeter, Scale, enrolled};

/// The names of the stages, in the order of `RouteTimes::stages`.
const STAGES: [&str; 6] = ["wait", "prepare", "run", "suspended", "serialize", "write"];
/// The names of the classes of statuses, from 1xx.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// What is counted of one lane.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Meter(Arc<LaneMeter>);

#[pymethods]
impl Meter {
    /// Position of the lane in its pool.
    #[getter]
    fn index(&self) -> usize {
        self.0.index
    }

    /// All counters; times are seconds.
    fn read<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let meter = &*self.0;
        let scale = py.detach(Scale::measure);
        let dict = PyDict::new(py);
        dict.set_item("index", meter.index)?;
        let numbers = [
            ("thread", &meter.thread),
            ("turns", &meter.turns),
            ("polls", &meter.polls),
            ("callbacks", &meter.callbacks),
            ("tasks_started", &meter.tasks_started),
            ("tasks_suspended", &meter.tasks_suspended),
            ("tasks_cancelled", &meter.tasks_cancelled),
            ("ready", &meter.ready),
            ("ready_max", &meter.ready_max),
            ("connections", &meter.connections),
            ("open", &meter.open),
            ("requests", &meter.requests),
            ("in_flight", &meter.in_flight),
            ("bytes_received", &meter.bytes_received),
            ("bytes_sent", &meter.bytes_sent),
        ];
        for (name, counter) in numbers {
            dict.set_item(name, counter.get())?;
        }
        let running = meter.running();
        // A lane that works, or sleeps, right now has done so for a while that is not added yet.
        let (mut awake, mut parked) = (meter.awake.get(), meter.parked.get());
        match meter.attendance() {
            Attendance::Awake => awake += meter.for_how_long(),
            Attendance::Parked => parked += meter.for_how_long(),
            Attendance::Away | Attendance::Attaching => {}
        }
        dict.set_item("running", scale.seconds(running))?;
        dict.set_item("polling", scale.seconds(awake.saturating_sub(running)))?;
        dict.set_item("parked", scale.seconds(parked))?;
        dict.set_item("attach_wait", scale.seconds(meter.attach_wait.get()))?;
        let nanoseconds = Scale::of_nanoseconds();
        dict.set_item("timer_lag", distribution(py, &meter.timer_lag(), nanoseconds)?)?;
        dict.set_item("callback_lag", distribution(py, &meter.callback_lag(), scale)?)?;
        Ok(dict)
    }

    /// Whether the lane is alive: (a number that changes whenever it comes to something new, what
    /// its thread is doing: "away", "awake", "parked" or "attaching", for how many seconds, the
    /// thread's identifier, the route that it runs Python for, counted from 1, and that request's
    /// number; zeros for none).
    fn pulse(&self) -> (u64, &'static str, f64, u64, u32, u64) {
        let meter = &*self.0;
        let attendance = match meter.attendance() {
            Attendance::Away => "away",
            Attendance::Awake => "awake",
            Attendance::Parked => "parked",
            Attendance::Attaching => "attaching",
        };
        let seconds = Scale::measure().seconds(meter.for_how_long());
        let (route, request) = meter.attended();
        (meter.beat.get(), attendance, seconds, meter.thread.get(), route, request)
    }
}

impl Meter {
    pub(super) fn shared(&self) -> Arc<LaneMeter> {
        self.0.clone()
    }

    pub(super) fn of(meter: &Arc<LaneMeter>) -> Self {
        Self(meter.clone())
    }
}

/// The lanes of this process that have run and are still there.
#[pyfunction]
pub fn meters() -> Vec<Meter> {
    enrolled().into_iter().map(Meter).collect()
}

fn distribution<'py>(
    py: Python<'py>,
    durations: &Durations,
    scale: Scale,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let (min, max) = durations.range(scale);
    dict.set_item("count", durations.count())?;
    dict.set_item("sum", durations.sum(scale))?;
    dict.set_item("min", min)?;
    dict.set_item("max", max)?;
    dict.set_item("buckets", durations.buckets(scale))?;
    Ok(dict)
}

/// Those of the routes that had a request, each with its number: from 1, and 0 for requests that met
/// none.
pub(super) fn routes<'py>(
    py: Python<'py>,
    meters: &[RouteMeter],
) -> PyResult<Vec<(usize, Bound<'py, PyDict>)>> {
    let scale = py.detach(Scale::measure);
    let mut read = Vec::new();
    for (number, meter) in meters.iter().enumerate() {
        let in_flight = meter.in_flight.get();
        let Some(times) = meter.read().or_else(|| (in_flight > 0).then(Default::default)) else {
            continue;
        };
        let dict = PyDict::new(py);
        dict.set_item("requests", times.requests)?;
        dict.set_item("in_flight", in_flight)?;
        dict.set_item("cancelled", times.cancelled)?;
        let statuses = PyDict::new(py);
        for (class, count) in CLASSES.iter().zip(times.statuses) {
            if count > 0 {
                statuses.set_item(class, count)?;
            }
        }
        dict.set_item("statuses", statuses)?;
        if times.total().count() > 0 {
            dict.set_item("total", distribution(py, times.total(), scale)?)?;
        }
        for (stage, durations) in STAGES.iter().zip(times.stages()) {
            if durations.count() > 0 {
                dict.set_item(stage, distribution(py, durations, scale)?)?;
            }
        }
        read.push((number, dict));
    }
    Ok(read)
}
