//! What the core says through `tracing`, handed to Python's `logging`.
//!
//! The logger is the event's target, with `.` for `::`. Fields become attributes of the record.
//! An event of a thread that cannot attach any more (the interpreter is ending) is dropped: there
//! is nobody left to read it.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level, Metadata, Subscriber};

use crate::python::thread_end::HangsAtEnd;

static GET_LOGGER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Hands events to Python's logging from now on; once per process.
pub fn install() {
    if !INSTALLED.swap(true, Ordering::Relaxed) {
        // Fails only if the host program has a subscriber of its own: then that one gets them.
        let _ = tracing::subscriber::set_global_default(PythonLogging);
    }
}

struct PythonLogging;

impl Subscriber for PythonLogging {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("treadle")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        Python::try_attach(|py| {
            let _hangs_at_end = HangsAtEnd::enter();
            if let Err(error) = log(py, event) {
                error.write_unraisable(py, None);
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn log(py: Python<'_>, event: &Event<'_>) -> PyResult<()> {
    let metadata = event.metadata();
    let level = match *metadata.level() {
        Level::ERROR => 40,
        Level::WARN => 30,
        _ => 20,
    };
    let get_logger = GET_LOGGER.import(py, "logging", "getLogger")?;
    let logger = get_logger.call1((metadata.target().replace("::", "."),))?;
    if !logger.call_method1("isEnabledFor", (level,))?.is_truthy()? {
        return Ok(());
    }
    let mut fields = Fields { extra: PyDict::new(py), message: String::new(), failed: None };
    event.record(&mut fields);
    if let Some(error) = fields.failed {
        return Err(error);
    }
    if metadata.target() == "treadle.access" {
        fields.access_message()?;
    }
    let keywords = PyDict::new(py);
    keywords.set_item("extra", fields.extra)?;
    logger.call_method("log", (level, "%s", fields.message), Some(&keywords))?;
    Ok(())
}

struct Fields<'py> {
    extra: Bound<'py, PyDict>,
    message: String,
    failed: Option<PyErr>,
}

impl<'py> Fields<'py> {
    fn set(&mut self, field: &Field, value: impl IntoPyObject<'py>) {
        if let Err(error) = self.extra.set_item(field.name(), value) {
            self.failed = Some(error);
        }
    }

    /// The line for readers who take the message alone.
    fn access_message(&mut self) -> PyResult<()> {
        let micros: f64 = match self.extra.get_item("duration_us")? {
            Some(value) => value.extract()?,
            None => 0.0,
        };
        self.extra.del_item("duration_us")?;
        self.extra.set_item("duration_ms", micros / 1000.0)?;
        let mut line = String::new();
        for name in ["client", "method", "path", "status", "bytes", "duration_ms", "lane"] {
            if let Some(value) = self.extra.get_item(name)? {
                let _ = write!(line, "{name}={value} ");
            }
        }
        line.pop();
        self.message = line;
        Ok(())
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            let rest = std::mem::take(&mut self.message);
            self.message = format!("{value:?}{rest}");
        } else {
            let _ = write!(self.message, " {}={value:?}", field.name());
            self.set(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value);
    }
}
