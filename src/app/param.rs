//! One parameter of a handler: where its value comes from and what it must be.

use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::scalar::Scalar;

/// Where an argument comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A parameter of the path pattern.
    Path,
    /// The query string.
    Query,
    /// A request header, by its name.
    Header,
    /// A cookie, by its name.
    Cookie,
    /// The JSON body, decoded and validated.
    Body,
    /// The body as bytes.
    RawBody,
    /// The [`super::Request`].
    Request,
    /// The lane's Python face.
    Lane,
    /// The application.
    App,
}

impl Source {
    fn from_name(name: &str) -> PyResult<Self> {
        Ok(match name {
            "path" => Self::Path,
            "query" => Self::Query,
            "header" => Self::Header,
            "cookie" => Self::Cookie,
            "body" => Self::Body,
            "raw_body" => Self::RawBody,
            "request" => Self::Request,
            "lane" => Self::Lane,
            "app" => Self::App,
            _ => return Err(PyValueError::new_err(format!("unknown source {name:?}"))),
        })
    }

    /// As named in an answer to the client.
    pub fn place(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Query => "query",
            Self::Header => "header",
            Self::Cookie => "cookie",
            _ => "body",
        }
    }
}

/// What the Python side found out about one parameter.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Param {
    /// What the client calls it.
    pub(super) alias: String,
    pub(super) source: Source,
    pub(super) scalar: Scalar,
    pub(super) list: bool,
    /// Takes the whole list and raises `ValueError` if it breaks a constraint.
    pub(super) check: Option<Py<PyAny>>,
    pub(super) default: Option<Py<PyAny>>,
    /// Gives each call a default of its own, where it could change it.
    pub(super) copy: Option<Py<PyAny>>,
    /// The parameter's own name, if it is keyword-only.
    pub(super) keyword: Option<String>,
    /// Makes a body decoder (bytes to value), one for each lane.
    pub(super) decoder: Option<Py<PyAny>>,
}

impl Param {
    /// Shows the collector what the parameter refers to that may refer to the application.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        [&self.check, &self.default, &self.copy, &self.decoder]
            .into_iter()
            .try_for_each(|held| visit.call(held))
    }
}

#[pymethods]
impl Param {
    /// `default` is a tuple of one value, or None when the parameter is required.
    #[new]
    #[pyo3(signature = (alias, source, *, scalar="str", convert=None, list=false, check=None, default=None, copy=None, keyword=None, decoder=None))]
    #[allow(clippy::too_many_arguments, reason = "keyword arguments of one Python constructor")]
    fn new(
        alias: String,
        source: &str,
        scalar: &str,
        convert: Option<Py<PyAny>>,
        list: bool,
        check: Option<Py<PyAny>>,
        default: Option<(Py<PyAny>,)>,
        copy: Option<Py<PyAny>>,
        keyword: Option<String>,
        decoder: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            alias,
            source: Source::from_name(source)?,
            scalar: Scalar::from_name(scalar, convert)?,
            list,
            check,
            default: default.map(|(value,)| value),
            copy,
            keyword,
            decoder,
        })
    }
}

impl Param {
    /// The default for one call, if there is one.
    ///
    /// # Errors
    /// What copying it raises.
    pub(super) fn default(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let Some(value) = &self.default else {
            return Ok(None);
        };
        match &self.copy {
            Some(copy) => copy.call1(py, (value,)).map(Some),
            None => Ok(Some(value.clone_ref(py))),
        }
    }

    /// The same with references of its own.
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            alias: self.alias.clone(),
            source: self.source,
            scalar: self.scalar.clone_ref(py),
            list: self.list,
            check: self.check.as_ref().map(|value| value.clone_ref(py)),
            default: self.default.as_ref().map(|value| value.clone_ref(py)),
            copy: self.copy.as_ref().map(|copy| copy.clone_ref(py)),
            keyword: self.keyword.clone(),
            decoder: self.decoder.as_ref().map(|value| value.clone_ref(py)),
        }
    }
}
