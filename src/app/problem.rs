//! What is wrong with a request's values: place, field and reason.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// One step of the way to a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Of an object: the name of its field. `*` stands for any where the name is not known.
    Name(String),
    /// Of an array: the position.
    Index(u64),
}

/// One value that was refused.
#[derive(Debug)]
pub struct Problem {
    /// `path`, `query` or `body`.
    pub place: &'static str,
    /// The way to the field inside the place.
    pub field: Vec<Step>,
    /// What is wrong, for the client to read.
    pub reason: String,
}

impl Problem {
    /// A problem with the field `name` of `place`.
    pub fn new(place: &'static str, name: &str, reason: impl Into<String>) -> Self {
        Self { place, field: vec![Step::Name(name.to_owned())], reason: reason.into() }
    }
}

/// Why the handler was not called.
#[derive(Debug)]
pub enum Rejection {
    /// 422: these values do not fit the handler's signature.
    Invalid(Vec<Problem>),
    /// 400: the body is not JSON, for this reason.
    NotJson(String),
    /// Python code that converts values failed in a way that is not the client's fault.
    Failed(PyErr),
}

impl From<PyErr> for Rejection {
    fn from(error: PyErr) -> Self {
        Self::Failed(error)
    }
}

impl Rejection {
    /// The status and the JSON body, as a Python object; the exception for [`Self::Failed`].
    ///
    /// # Errors
    /// The exception of [`Self::Failed`].
    pub fn into_answer(self, py: Python<'_>) -> PyResult<(u16, Bound<'_, PyDict>)> {
        let answer = PyDict::new(py);
        let status = match self {
            Self::Failed(error) => return Err(error),
            Self::NotJson(reason) => {
                answer.set_item("detail", format!("the request body is not JSON: {reason}"))?;
                400
            }
            Self::Invalid(problems) => {
                let details = PyList::empty(py);
                for problem in problems {
                    let location = PyList::new(py, [problem.place])?;
                    for step in problem.field {
                        match step {
                            Step::Name(name) => location.append(name)?,
                            Step::Index(index) => location.append(index)?,
                        }
                    }
                    let detail = PyDict::new(py);
                    detail.set_item("loc", location)?;
                    detail.set_item("msg", problem.reason)?;
                    details.append(detail)?;
                }
                answer.set_item("detail", details)?;
                422
            }
        };
        Ok((status, answer))
    }
}
