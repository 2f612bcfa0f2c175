//! What a route does with a request, compiled once and executed per request.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use super::headers::latin_1;
use super::param::{Param, Source};
use super::problem::{Problem, Rejection};
use super::request::HeadRef;
use super::scalar::refusal;
use super::{body, query, request::Request};
use crate::router::{PathParams, Pattern, has_escape};

/// How a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A plain function, called on the lane.
    Inline,
    /// A coroutine function: a Task whose first step is taken at once, on the lane.
    Task,
    /// A blocking function, called on the thread pool.
    Offload,
}

/// A handler with its path, methods and plan, as registered.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct Route {
    pub(crate) pattern: Pattern,
    pub(crate) methods: Vec<Method>,
    plan: Plan,
}

/// One lane's copy of what to do for a route.
pub struct Plan {
    /// The function that answers.
    pub handler: Py<PyAny>,
    /// How it is called.
    pub mode: Mode,
    /// Status of a plain result.
    pub status: Option<u16>,
    /// The whole handler's time, if limited.
    pub timeout: Option<Duration>,
    /// The client's leaving cancels the handler.
    pub cancel_on_disconnect: bool,
    /// Bytes of body taken; the server's limit where `None`.
    pub limit_body: Option<u64>,
    /// The handler answers HEAD itself, not as part of GET.
    pub is_for_head: bool,
    /// The pattern as written: what logs name instead of a raw path. A lane's own, shared only with
    /// the jobs that it has on the thread pool.
    pub template: Arc<str>,
    /// `file:line name` of the handler.
    pub origin: String,
    /// The parameter of the path that takes its rest.
    pub rest: Option<String>,
    params: Vec<Param>,
    kwnames: Option<Py<PyTuple>>,
    /// This lane's decoder, for the parameter that takes the body.
    decode: Option<Py<PyAny>>,
    body_at: Option<usize>,
    needs_request: bool,
}

/// The arguments of one call, keyword ones last.
pub type Arguments = Vec<Py<PyAny>>;

/// What the arguments are made from.
pub struct Input<'a> {
    /// Path parameters, still to be decoded, in pattern order; a rest that is empty is not among them.
    pub path: &'a PathParams<'a, 'a>,
    /// The request's head.
    pub head: HeadRef<'a>,
    /// The request object, where the plan asks for one.
    pub request: Option<&'a Py<Request>>,
    /// The lane's Python face.
    pub lane: &'a Py<PyAny>,
    /// The application.
    pub app: &'a Py<PyAny>,
}

#[pymethods]
impl Route {
    /// Reads the pattern and checks it against the parameters.
    #[new]
    #[pyo3(signature = (path, methods, handler, *, mode, params, origin, status=None, timeout=None, cancel_on_disconnect=true, limit_body=None))]
    #[allow(
        clippy::too_many_arguments,
        clippy::needless_pass_by_value,
        reason = "keyword arguments of one Python constructor, extracted by value"
    )]
    fn new(
        py: Python<'_>,
        path: &str,
        methods: Vec<String>,
        handler: Py<PyAny>,
        mode: &str,
        params: Vec<Py<Param>>,
        origin: String,
        status: Option<u16>,
        timeout: Option<f64>,
        cancel_on_disconnect: bool,
        limit_body: Option<u64>,
    ) -> PyResult<Self> {
        let pattern =
            Pattern::parse(path).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let methods = methods
            .iter()
            .map(|name| match Method::from_bytes(name.as_bytes()) {
                Ok(method) => Ok(method),
                Err(_) => Err(PyValueError::new_err(format!("{name:?} is not an HTTP method"))),
            })
            .collect::<PyResult<Vec<_>>>()?;
        let mode = match mode {
            "inline" => Mode::Inline,
            "task" => Mode::Task,
            "offload" => Mode::Offload,
            _ => return Err(PyValueError::new_err(format!("unknown mode {mode:?}"))),
        };
        let timeout = match timeout.map(Duration::try_from_secs_f64) {
            None => None,
            Some(Ok(timeout)) if !timeout.is_zero() => Some(timeout),
            Some(_) => return Err(PyValueError::new_err("timeout must be a positive number")),
        };
        let params: Vec<Param> = params.iter().map(|param| param.get().clone_ref(py)).collect();
        let keywords: Vec<&str> = params.iter().filter_map(|p| p.keyword.as_deref()).collect();
        let kwnames =
            if keywords.is_empty() { None } else { Some(PyTuple::new(py, keywords)?.unbind()) };
        let body_at =
            params.iter().position(|p| matches!(p.source, Source::Body | Source::RawBody));
        Ok(Self {
            plan: Plan {
                handler,
                mode,
                status,
                timeout,
                cancel_on_disconnect,
                limit_body,
                is_for_head: methods.contains(&Method::HEAD),
                template: pattern.source.as_str().into(),
                origin,
                rest: pattern.rest().map(|(name, _)| name.to_owned()),
                needs_request: params.iter().any(|p| p.source == Source::Request),
                kwnames,
                decode: None,
                body_at,
                params,
            },
            pattern,
            methods,
        })
    }

    /// The pattern's parameters: name and converter (None where the pattern names none).
    #[getter]
    fn path_params(&self) -> Vec<(String, Option<&'static str>)> {
        self.pattern
            .params
            .iter()
            .map(|(name, converter)| (name.clone(), converter.map(crate::router::Converter::name)))
            .collect()
    }

    /// The pattern as written.
    #[getter]
    fn path(&self) -> &str {
        &self.pattern.source
    }

    /// The methods it answers.
    #[getter]
    fn methods(&self) -> Vec<&str> {
        self.methods.iter().map(Method::as_str).collect()
    }

    /// `file:line name` of the handler.
    #[getter]
    fn origin(&self) -> &str {
        &self.plan.origin
    }

    /// `inline`, `task` or `offload`.
    #[getter]
    fn mode(&self) -> &'static str {
        match self.plan.mode {
            Mode::Inline => "inline",
            Mode::Task => "task",
            Mode::Offload => "offload",
        }
    }

    /// A handler may be a closure over its application.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.plan.handler)?;
        self.plan.params.iter().try_for_each(|param| param.traverse(&visit))
    }
}

impl Route {
    /// A lane's own copy of the plan.
    ///
    /// # Errors
    /// What making the body decoder raises.
    pub fn plan_for_lane(&self, py: Python<'_>) -> PyResult<Plan> {
        let plan = &self.plan;
        let decode = match plan.body_at.and_then(|at| plan.params[at].decoder.as_ref()) {
            Some(factory) => Some(factory.call0(py)?),
            None => None,
        };
        Ok(Plan {
            handler: plan.handler.clone_ref(py),
            mode: plan.mode,
            status: plan.status,
            timeout: plan.timeout,
            cancel_on_disconnect: plan.cancel_on_disconnect,
            limit_body: plan.limit_body,
            is_for_head: plan.is_for_head,
            template: (*plan.template).into(),
            origin: plan.origin.clone(),
            rest: plan.rest.clone(),
            params: plan.params.iter().map(|param| param.clone_ref(py)).collect(),
            kwnames: match &plan.kwnames {
                Some(names) => Some(PyTuple::new(py, names.bind(py).iter())?.unbind()),
                None => None,
            },
            decode,
            body_at: plan.body_at,
            needs_request: plan.needs_request,
        })
    }
}

impl Plan {
    /// What logs and exception handlers are told where there is no route: a plan with nothing to call.
    pub fn without_route(py: Python<'_>) -> Self {
        Self {
            handler: py.None(),
            mode: Mode::Inline,
            status: None,
            timeout: None,
            cancel_on_disconnect: true,
            limit_body: None,
            is_for_head: false,
            template: "-".into(),
            origin: "no route".to_owned(),
            rest: None,
            params: Vec::new(),
            kwnames: None,
            decode: None,
            body_at: None,
            needs_request: false,
        }
    }

    /// Whether the handler takes nothing at all.
    pub fn takes_nothing(&self) -> bool {
        self.params.is_empty()
    }

    /// Whether the handler is called on the lane with no more than parts of the request's head.
    pub fn is_direct(&self) -> bool {
        self.mode != Mode::Offload && !self.needs_request && self.body_at.is_none()
    }

    /// Whether the handler asks for the [`Request`].
    pub fn needs_request(&self) -> bool {
        self.needs_request
    }

    /// Whether the body must be read before the call.
    pub fn needs_body(&self) -> bool {
        self.body_at.is_some()
    }

    /// Names of the trailing keyword arguments.
    pub fn kwnames<'py>(&self, py: Python<'py>) -> Option<&Bound<'py, PyTuple>> {
        self.kwnames.as_ref().map(|names| names.bind(py))
    }

    /// All arguments but the body, in whose place stands `None`.
    ///
    /// # Errors
    /// The values that do not fit, all of them.
    pub fn arguments(&self, py: Python<'_>, input: &Input<'_>) -> Result<Arguments, Rejection> {
        let mut arguments = Vec::with_capacity(self.params.len());
        let mut problems = Vec::new();
        for param in &self.params {
            let value = match param.source {
                Source::Request => match input.request {
                    Some(request) => request.clone_ref(py).into_any(),
                    None => py.None(),
                },
                Source::Lane => input.lane.clone_ref(py),
                Source::App => input.app.clone_ref(py),
                Source::Body | Source::RawBody => py.None(),
                Source::Path | Source::Query | Source::Header | Source::Cookie => {
                    match scalar(py, param, input)? {
                        Ok(value) => value,
                        Err(reason) => {
                            problems.push(Problem::new(param.source.place(), &param.alias, reason));
                            py.None()
                        }
                    }
                }
            };
            arguments.push(value);
        }
        if problems.is_empty() { Ok(arguments) } else { Err(Rejection::Invalid(problems)) }
    }

    /// Puts the decoded body into its place.
    ///
    /// # Errors
    /// Not JSON, or JSON that does not fit the parameter's type.
    pub fn fill_body(
        &self,
        py: Python<'_>,
        arguments: &mut Arguments,
        bytes: &[u8],
    ) -> Result<(), Rejection> {
        let Some(at) = self.body_at else {
            return Ok(());
        };
        let param = &self.params[at];
        let default = if bytes.is_empty() { param.default(py)? } else { None };
        let value = match (&self.decode, default) {
            (Some(_), Some(default)) => default,
            (Some(decode), None) => body::decode(decode.bind(py), bytes)?,
            (None, _) => PyBytes::new(py, bytes).into_any().unbind(),
        };
        if let Some(slot) = arguments.get_mut(at) {
            *slot = value;
        }
        Ok(())
    }
}

/// The value of a parameter that is made from text; the inner error is the client's.
fn scalar(py: Python<'_>, param: &Param, input: &Input<'_>) -> PyResult<Result<Py<PyAny>, String>> {
    let default = |missing: &str| param.default(py).map(|found| found.ok_or(missing.to_owned()));
    match param.source {
        Source::Path => {
            // Every route that is met has all its parameters, but for a rest that is empty.
            let raw = input.path.get(&param.alias).unwrap_or_default();
            if !has_escape(raw) {
                return param.scalar.convert(py, raw);
            }
            match percent_encoding::percent_decode_str(raw).decode_utf8() {
                Ok(text) => param.scalar.convert(py, &text),
                Err(_) => Ok(Err("not UTF-8".to_owned())),
            }
        }
        Source::Header => match input.head.headers.get(param.alias.as_str()) {
            Some(value) => param.scalar.convert(py, &latin_1(value.as_bytes())),
            None => default("missing"),
        },
        Source::Cookie => match input.head.cookie(&param.alias) {
            Some(text) => param.scalar.convert(py, &text),
            None => default("missing"),
        },
        _ => {
            let query = input.head.uri.query().unwrap_or_default();
            let mut values = query::pairs(query)
                .filter(|(name, _)| *name == param.alias)
                .map(|(_, value)| value);
            if !param.list {
                return match values.next() {
                    Some(text) => param.scalar.convert(py, &text),
                    None => default("missing"),
                };
            }
            let list = PyList::empty(py);
            for text in &mut values {
                match param.scalar.convert(py, &text)? {
                    Ok(value) => list.append(value)?,
                    Err(reason) => return Ok(Err(reason)),
                }
            }
            if list.is_empty() {
                return default("missing");
            }
            if let Some(check) = &param.check
                && let Err(error) = check.call1(py, (&list,))
            {
                return refusal(py, error).map(Err);
            }
            Ok(Ok(list.into_any().unbind()))
        }
    }
}

impl Route {
    /// For messages: `GET /users/{id} (main.py:12 read_user)`.
    pub fn describe(&self, _py: Python<'_>) -> String {
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        format!("{} {} ({})", methods.join(","), self.pattern.source, self.plan.origin)
    }
}
