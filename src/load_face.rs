//! What Python sees of the load generator: a job in, progress and a result out, as plain values.
//!
//! The shapes are those of `treadle.profile.load`, which also says what they mean.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::load::{
    Address, Distribution, FailureReport, Job, Progress, Report, RequestReport, RequestSpec, Slice,
    Stop, run,
};

/// A `LoadJob`.
#[derive(FromPyObject)]
struct JobFace {
    address: AddressFace,
    requests: Vec<RequestFace>,
    connections: usize,
    duration: f64,
    warmup: f64,
    rate: Option<f64>,
    timeout: f64,
    grace: f64,
    give_up: f64,
    slice: f64,
    progress: f64,
    seed: u64,
}

#[derive(FromPyObject)]
enum AddressFace {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A `LoadRequest`.
#[derive(FromPyObject)]
struct RequestFace {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    weight: f64,
    expect: Vec<u16>,
}

impl TryFrom<JobFace> for Job {
    type Error = PyErr;

    fn try_from(face: JobFace) -> PyResult<Self> {
        let seconds = |name, value| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| PyValueError::new_err(format!("{name} must be a number of seconds.")))
        };
        let request = |face: RequestFace| RequestSpec {
            method: face.method,
            path: face.path,
            headers: face.headers,
            body: face.body.into(),
            weight: face.weight,
            expect: face.expect,
        };
        Ok(Self {
            address: match face.address {
                AddressFace::Tcp(host, port) => Address::Tcp(host, port),
                AddressFace::Unix(path) => Address::Unix(path),
            },
            requests: face.requests.into_iter().map(request).collect(),
            connections: face.connections,
            duration: seconds("duration", face.duration)?,
            warmup: seconds("warmup", face.warmup)?,
            rate: face.rate,
            timeout: seconds("timeout", face.timeout)?,
            grace: seconds("grace", face.grace)?,
            give_up: seconds("give_up", face.give_up)?,
            slice: seconds("slice", face.slice)?,
            progress: seconds("progress", face.progress)?,
            seed: face.seed,
        })
    }
}

/// One run of the load generator.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct LoadDriver {
    job: Job,
    stop: Stop,
}

#[pymethods]
impl LoadDriver {
    /// Takes a `LoadJob`.
    #[new]
    fn new(job: JobFace) -> PyResult<Self> {
        Ok(Self { job: job.try_into()?, stop: Stop::default() })
    }

    /// Does the job on the calling thread, which is detached meanwhile, and returns the fields of a
    /// `LoadResult`.
    ///
    /// `tell` gets the fields of a `LoadProgress` now and then. What it raises ends the run, and is
    /// raised here. Raises `ValueError` for a job that cannot be done.
    fn run<'py>(&self, py: Python<'py>, tell: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let tell = tell.clone().unbind();
        let (report, raised) = py.detach(|| {
            let mut raised = None;
            let report = run(&self.job, &self.stop, |progress| {
                let told = Python::attach(|py| tell.call1(py, (progress_fields(py, &progress)?,)));
                match told {
                    Ok(_) => ControlFlow::Continue(()),
                    Err(error) => {
                        raised = Some(error);
                        ControlFlow::Break(())
                    }
                }
            });
            (report, raised)
        });
        if let Some(error) = raised {
            return Err(error);
        }
        let report = report.map_err(|error| PyValueError::new_err(error.to_string()))?;
        report_fields(py, &report)
    }

    /// Ends the run early, or the wait for its last answers if it was ended before. From any
    /// thread.
    fn stop(&self) {
        self.stop.stop();
    }
}

/// A dict of these names and values.
macro_rules! fields {
    ($py:expr, { $($name:literal: $value:expr),* $(,)? }) => {{
        let fields = PyDict::new($py);
        $(fields.set_item($name, $value)?;)*
        Ok(fields)
    }};
}

fn progress_fields<'py>(py: Python<'py>, progress: &Progress) -> PyResult<Bound<'py, PyDict>> {
    fields!(py, {
        "phase": progress.phase.name(),
        "elapsed": progress.elapsed,
        "planned": progress.planned,
        "completed": progress.completed,
        "failed": progress.failed,
        "rate": progress.rate,
        "p50": progress.p50,
        "p99": progress.p99,
    })
}

fn report_fields<'py>(py: Python<'py>, report: &Report) -> PyResult<Bound<'py, PyDict>> {
    let requests = report.requests.iter().map(|request| request_fields(py, request));
    let failures = report.failures.iter().map(|failure| failure_fields(py, failure));
    let slices = report.slices.iter().map(|slice| slice_fields(py, slice));
    fields!(py, {
        "ending": report.ending.name(),
        "reason": &report.reason,
        "seconds": report.seconds,
        "completed": report.completed,
        "failed": report.failed,
        "unsent": report.unsent,
        "unfinished": report.unfinished,
        "connections": report.connections,
        "bytes": report.bytes,
        "latency": distribution_fields(py, &report.latency)?,
        "service": optional_fields(py, report.service.as_ref())?,
        "requests": requests.collect::<PyResult<Vec<_>>>()?,
        "failures": failures.collect::<PyResult<Vec<_>>>()?,
        "slices": slices.collect::<PyResult<Vec<_>>>()?,
    })
}

fn request_fields<'py>(py: Python<'py>, request: &RequestReport) -> PyResult<Bound<'py, PyDict>> {
    let statuses = PyDict::new(py);
    for (status, count) in &request.statuses {
        statuses.set_item(status, count)?;
    }
    fields!(py, {
        "completed": request.completed,
        "failed": request.failed,
        "statuses": statuses,
        "latency": distribution_fields(py, &request.latency)?,
        "service": optional_fields(py, request.service.as_ref())?,
    })
}

fn failure_fields<'py>(py: Python<'py>, failure: &FailureReport) -> PyResult<Bound<'py, PyDict>> {
    fields!(py, {
        "kind": failure.kind.name(),
        "count": failure.count,
        "example": &failure.example,
    })
}

fn slice_fields<'py>(py: Python<'py>, slice: &Slice) -> PyResult<Bound<'py, PyDict>> {
    fields!(py, {
        "start": slice.start,
        "seconds": slice.seconds,
        "completed": slice.completed,
        "failed": slice.failed,
        "p50": slice.p50,
        "p99": slice.p99,
        "bytes": slice.bytes,
    })
}

fn optional_fields<'py>(
    py: Python<'py>,
    times: Option<&Distribution>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    times.map(|times| distribution_fields(py, times)).transpose()
}

fn distribution_fields<'py>(py: Python<'py>, times: &Distribution) -> PyResult<Bound<'py, PyDict>> {
    fields!(py, {
        "count": times.count,
        "sum": times.sum,
        "min": times.min,
        "max": times.max,
        "buckets": &times.buckets,
    })
}
