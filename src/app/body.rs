//! The JSON body: decoded and validated in one pass by msgspec (or by a pydantic model).

use pyo3::exceptions::PyRecursionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::problem::{Problem, Rejection, Step};
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
        let names: Option<Vec<String>> =
            value.getattr_opt(intern!(py, "names"))?.and_then(|names| names.extract().ok());
        let problem = located(&value.str()?.to_string(), &names.unwrap_or_default());
        return Ok(Rejection::Invalid(vec![problem]));
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
/// a key is its object: "... - at `key` in `$.items[0]`". `names` are those of fields that look like
/// more than one step.
fn located(message: &str, names: &[String]) -> Problem {
    let (reason, path) = match message.rsplit_once(" - at `") {
        Some((reason, path)) => (reason, path.strip_suffix('`').unwrap_or(path)),
        None => (message, "$"),
    };
    let (path, role) = match path.strip_prefix("key` in `") {
        Some(path) => (path, " as a key"),
        None => (path, ""),
    };
    let mut field = steps(path, names);
    // The place of a missing or unknown field is its object; the client wants the field.
    if let Some(name) = ["Object missing required field `", "Object contains unknown field `"]
        .iter()
        .find_map(|start| reason.strip_prefix(start))
    {
        field.push(Step::Name(name.strip_suffix('`').unwrap_or(name).to_owned()));
    }
    Problem { place: "body", field, reason: reason.replace('`', "") + role }
}

/// The steps of a path as msgspec writes it: `$`, then `.name` for a field, `[0]` for an element and
/// `[...]` for a value of a `dict`, whose key it does not tell.
fn steps(path: &str, names: &[String]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    loop {
        if let Some(field) = rest.strip_prefix('.') {
            let ends =
                |length: &usize| matches!(field.as_bytes().get(*length), None | Some(b'.' | b'['));
            let long = names.iter().filter(|name| field.starts_with(&***name)).map(String::len);
            let length = long.filter(ends).max();
            let length = length.or_else(|| field.find(['.', '['])).unwrap_or(field.len());
            steps.push(Step::Name(field[..length].to_owned()));
            rest = &field[length..];
        } else if let Some((inner, behind)) =
            rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            steps.push(match inner.parse() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Name(if inner == "..." { "*" } else { inner }.to_owned()),
            });
            rest = behind;
        } else {
            if !rest.is_empty() {
                steps.push(Step::Name(rest.to_owned()));
            }
            return steps;
        }
    }
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
            let step = step?;
            field.push(match step.extract() {
                Ok(index) => Step::Index(index),
                Err(_) => Step::Name(step.str()?.to_string()),
            });
        }
        let reason = error.get_item("msg")?.str()?.to_string();
        problems.push(Problem { place: "body", field, reason });
    }
    Ok(Rejection::Invalid(problems))
}

#[cfg(test)]
mod tests {
    use super::super::problem::Step;
    use super::{located, steps};

    /// The steps of `path`, positions as in Rust.
    fn shown(path: &str, names: &[&str]) -> String {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let step = |step: &Step| match step {
            Step::Name(name) => format!("{name:?}"),
            Step::Index(index) => index.to_string(),
        };
        steps(path, &names).iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_path_that_msgspec_names_is_split_into_steps() {
        for (path, steps) in [
            ("$", ""),
            ("$.items[0].id", r#""items" 0 "id""#),
            ("$[0][1]", "0 1"),
            ("$[...]", r#""*""#),
            ("$.items[...].id", r#""items" "*" "id""#),
            ("$[...][0][...][12]", r#""*" 0 "*" 12"#),
            ("$.0.+1", r#""0" "+1""#),
            ("$.", r#""""#),
            ("$..a", r#""" "a""#),
            ("$.x.y", r#""x" "y""#),
        ] {
            assert_eq!(shown(path, &[]), steps, "{path}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_path_is_one_step() {
        for (path, steps) in [
            ("$.x.y", r#""x.y""#),
            ("$.x.y.z", r#""x.y" "z""#),
            ("$.x.yz", r#""x" "yz""#),
            ("$.x.y[0]", r#""x.y[0]""#),
            ("$.x.y[1]", r#""x.y" 1"#),
            ("$.a.x.y[...]", r#""a" "x.y" "*""#),
            ("$.....x.y", r#""..." "x.y""#),
        ] {
            assert_eq!(shown(path, &["x.y", "x.y[0]", "..."]), steps, "{path}");
        }
    }

    #[test]
    fn what_msgspec_says_is_split_into_place_and_reason() {
        let name = |name: &str| vec![Step::Name(name.to_owned())];
        for (message, field, reason) in [
            ("Expected `int`, got `str` - at `$.a`", name("a"), "Expected int, got str"),
            ("Object missing required field `a`", name("a"), "Object missing required field a"),
            ("Object contains unknown field `7`", name("7"), "Object contains unknown field 7"),
            ("Invalid UUID - at `key` in `$`", vec![], "Invalid UUID as a key"),
            ("Invalid UUID - at `key` in `$[...]`", name("*"), "Invalid UUID as a key"),
            ("JSON is malformed", vec![], "JSON is malformed"),
        ] {
            let problem = located(message, &[]);
            assert_eq!((problem.field, &*problem.reason), (field, reason), "{message}");
        }
    }
}
