//! The JSON body: decoded and validated in one pass by msgspec (or by a pydantic model).

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::problem::{Problem, Rejection};
use crate::python::call::call_one;

static VALIDATION: PyOnceLock<Py<PyType>> = PyOnceLock::new();
static DECODE: PyOnceLock<Py<PyType>> = PyOnceLock::new();

/// What the interpreter says of such a body is about its stack.
const TOO_DEEP: &str = "it is nested too deeply";

/// Why bytes that a decoder refused are not JSON.
pub fn reason(py: Python<'_>, error: &PyErr) -> String {
    if error.is_instance_of::<PyRecursionError>(py) {
        TOO_DEEP.to_owned()
    } else {
        error.value(py).to_string()
    }
}

/// Decodes `bytes` with a decoder made for the parameter's type.
///
/// # Errors
/// What the client got wrong, or what the decoder raised otherwise.
pub fn decode(decoder: &Bound<'_, PyAny>, bytes: &[u8]) -> Result<Py<PyAny>, Rejection> {
    let py = decoder.py();
    if bytes.is_empty() {
        return Err(Rejection::Invalid(vec![Problem {
            place: "body",
            field: Vec::new(),
            reason: "missing".to_owned(),
        }]));
    }
    match call_one(decoder, &PyBytes::new(py, bytes)) {
        Ok(value) => Ok(value.unbind()),
        Err(error) => Err(explain(py, error)?),
    }
}

/// Sorts a decoder's exception into what the client hears.
fn explain(py: Python<'_>, error: PyErr) -> PyResult<Rejection> {
    let value = error.value(py);
    if value.is_instance(VALIDATION.import(py, "msgspec", "ValidationError")?)? {
        return Ok(Rejection::Invalid(vec![located(&value.str()?.to_string())]));
    }
    if value.is_instance(DECODE.import(py, "msgspec", "DecodeError")?)? {
        return Ok(Rejection::NotJson(value.str()?.to_string()));
    }
    // UTF-8 errors of the decoder are ValueErrors of their own kind.
    if value.is_instance_of::<pyo3::exceptions::PyUnicodeDecodeError>() {
        return Ok(Rejection::NotJson("not UTF-8".to_owned()));
    }
    if error.is_instance_of::<PyRecursionError>(py) {
        return Ok(Rejection::NotJson(TOO_DEEP.to_owned()));
    }
    match value.getattr_opt(intern!(py, "errors"))? {
        Some(errors) if errors.is_callable() => pydantic(&errors),
        _ => Ok(Rejection::Failed(error)),
    }
}

/// msgspec names the place at the end: "Expected `int`, got `str` - at `$.items[0].id`"; the place of
/// a key is its object: "... - at `key` in `$.items[0]`".
fn located(message: &str) -> Problem {
    let (reason, path) = match message.rsplit_once(" - at `") {
        Some((reason, path)) => (reason, path.trim_end_matches('`')),
        None => (message, "$"),
    };
    let (path, role) = match path.strip_prefix("key` in `") {
        Some(path) => (path, " as a key"),
        None => (path, ""),
    };
    let mut field: Vec<String> = path
        .trim_start_matches('$')
        .split(['.', '['])
        .map(|step| step.trim_end_matches(']'))
        .filter(|step| !step.is_empty())
        .map(str::to_owned)
        .collect();
    // The place of a missing or unknown field is its object; the client wants the field.
    if let Some(name) = ["Object missing required field `", "Object contains unknown field `"]
        .iter()
        .find_map(|start| reason.strip_prefix(start))
    {
        field.push(name.trim_end_matches('`').to_owned());
    }
    Problem { place: "body", field, reason: reason.replace('`', "") + role }
}

/// pydantic's `ValidationError.errors()`: a list of `{"loc": (...), "msg": "..."}`.
fn pydantic(errors: &Bound<'_, PyAny>) -> PyResult<Rejection> {
    let mut problems = Vec::new();
    for error in errors.call0()?.try_iter()? {
        let error = error?;
        if error.get_item("type")?.eq("json_invalid")? {
            return Ok(Rejection::NotJson(error.get_item("msg")?.str()?.to_string()));
        }
        let mut field = Vec::new();
        for step in error.get_item("loc")?.try_iter()? {
            field.push(step?.str()?.to_string());
        }
        let reason = error.get_item("msg")?.str()?.to_string();
        problems.push(Problem { place: "body", field, reason });
    }
    Ok(Rejection::Invalid(problems))
}

#[cfg(test)]
mod tests {
    use super::located;

    #[test]
    fn the_place_that_msgspec_names_is_split_into_steps() {
        let problem = located("Expected `int`, got `str` - at `$.items[0].id`");
        assert_eq!(problem.field, ["items", "0", "id"]);
        assert_eq!(problem.reason, "Expected int, got str");
        assert_eq!(located("Object missing required field `id`").field, ["id"]);
        assert!(located("JSON is malformed").field.is_empty());
        let problem = located("Expected `int`, got `str` - at `key` in `$.counts`");
        assert_eq!(problem.field, ["counts"]);
        assert_eq!(problem.reason, "Expected int, got str as a key");
    }
}
