//! Text from a path or a query string into the type of a handler's parameter.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

/// How a text becomes a value.
#[derive(Debug)]
pub enum Scalar {
    /// As it is.
    Str,
    /// A decimal integer of any size.
    Int,
    /// A finite decimal number.
    Float,
    /// `true`/`false`, `1`/`0`, `yes`/`no`, `on`/`off`, in any case.
    Bool,
    /// A Python callable that takes the text and raises `ValueError` (UUID, dates, Enum, …).
    Call(Py<PyAny>),
    /// One of the first four, then a Python callable that takes the value and raises `ValueError`
    /// for one that breaks a constraint.
    Checked(Box<Scalar>, Py<PyAny>),
}

impl Scalar {
    /// By the name the Python side uses; `call` makes the value of `"call"` and checks the others'.
    ///
    /// # Errors
    /// `ValueError` for an unknown name.
    pub fn from_name(name: &str, call: Option<Py<PyAny>>) -> PyResult<Self> {
        let native = match (name, call) {
            ("call", Some(call)) => return Ok(Self::Call(call)),
            ("str", check) => (Self::Str, check),
            ("int", check) => (Self::Int, check),
            ("float", check) => (Self::Float, check),
            ("bool", check) => (Self::Bool, check),
            _ => return Err(PyValueError::new_err(format!("unknown scalar {name:?}"))),
        };
        Ok(match native {
            (scalar, Some(check)) => Self::Checked(Box::new(scalar), check),
            (scalar, None) => scalar,
        })
    }

    /// The same with references of its own.
    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Str => Self::Str,
            Self::Int => Self::Int,
            Self::Float => Self::Float,
            Self::Bool => Self::Bool,
            Self::Call(call) => Self::Call(call.clone_ref(py)),
            Self::Checked(scalar, check) => {
                Self::Checked(Box::new(scalar.clone_ref(py)), check.clone_ref(py))
            }
        }
    }

    /// The value of `text`, or the reason why it has none.
    ///
    /// # Errors
    /// What the callable raises besides `ValueError`.
    pub fn convert(&self, py: Python<'_>, text: &str) -> PyResult<Result<Py<PyAny>, String>> {
        Ok(match self {
            Self::Str => Ok(PyString::new(py, text).into_any().unbind()),
            Self::Int => return integer(py, text),
            Self::Float => match text.parse::<f64>() {
                // Rust also reads "inf" and "nan", which JSON could not give back.
                Ok(value) if value.is_finite() => Ok(PyFloat::new(py, value).into_any().unbind()),
                _ => Err("expected a number".to_owned()),
            },
            Self::Bool => match boolean(text) {
                Some(value) => Ok(PyBool::new(py, value).to_owned().into_any().unbind()),
                None => Err("expected true or false".to_owned()),
            },
            Self::Call(call) => match call.call1(py, (text,)) {
                Ok(value) => Ok(value),
                Err(error) => return refusal(py, error).map(Err),
            },
            Self::Checked(scalar, check) => match scalar.convert(py, text)? {
                Ok(value) => match check.call1(py, (value,)) {
                    Ok(value) => Ok(value),
                    Err(error) => return refusal(py, error).map(Err),
                },
                refused => refused,
            },
        })
    }
}

/// What a callable that was given a value has against it.
///
/// # Errors
/// `error` itself unless it is a `ValueError`: that is the client's, all else the program's.
pub fn refusal(py: Python<'_>, error: PyErr) -> PyResult<String> {
    if !error.is_instance_of::<PyValueError>(py) {
        return Err(error);
    }
    Ok(error.value(py).str()?.to_string())
}

fn boolean(text: &str) -> Option<bool> {
    const TRUE: [&str; 4] = ["true", "1", "yes", "on"];
    const FALSE: [&str; 4] = ["false", "0", "no", "off"];
    if TRUE.iter().any(|known| text.eq_ignore_ascii_case(known)) {
        Some(true)
    } else if FALSE.iter().any(|known| text.eq_ignore_ascii_case(known)) {
        Some(false)
    } else {
        None
    }
}

fn integer(py: Python<'_>, text: &str) -> PyResult<Result<Py<PyAny>, String>> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Err("expected an integer".to_owned()));
    }
    if let Ok(value) = text.parse::<i64>() {
        return Ok(Ok(PyInt::new(py, value).into_any().unbind()));
    }
    // Beyond 64 bits Python's own parser, with its limit on digits.
    match py.get_type::<PyInt>().call1((text,)) {
        Ok(value) => Ok(Ok(value.unbind())),
        Err(error) if error.is_instance_of::<PyValueError>(py) => {
            Ok(Err("too many digits for an integer".to_owned()))
        }
        Err(error) => Err(error),
    }
}
