//! Calling Python with a prepared argument array, without building a tuple or a dict.

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::error::owned_or_raised;

/// Calls `callable` with `args`; the last `kwnames.len()` of them are keyword arguments.
///
/// # Errors
/// What the callable raises; `TypeError` when there are more names than arguments.
pub fn vectorcall<'py>(
    callable: &Bound<'py, PyAny>,
    args: &[Py<PyAny>],
    kwnames: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let keywords = kwnames.map_or(0, PyTupleMethods::len);
    let Some(positional) = args.len().checked_sub(keywords) else {
        return Err(PyTypeError::new_err("more keywords than arguments"));
    };
    let names = kwnames.map_or(std::ptr::null_mut(), |names| names.as_ptr());
    // SAFETY: `Py<PyAny>` is a transparent pointer to a live object, so the slice is an array of
    // `args.len()` valid object pointers that outlives the call; the names tuple counts the
    // trailing ones, of which there are as many; the token inside `callable` proves that the thread is attached; the result
    // is a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            args.as_ptr().cast::<*mut ffi::PyObject>(),
            positional,
            names,
        );
        owned_or_raised(callable.py(), result)
    }
}

/// Calls `callable` without arguments.
///
/// # Errors
/// What the callable raises.
pub fn call_no_args<'py>(callable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: `callable` is a live object and the thread is attached; the result is a new
    // reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallNoArgs(callable.as_ptr());
        owned_or_raised(callable.py(), result)
    }
}

/// Calls `callable` with one argument.
///
/// # Errors
/// What the callable raises.
pub fn call_one<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both objects are live and the thread is attached; the result is a new reference or
    // null with an exception set.
    unsafe {
        let result = ffi::PyObject_CallOneArg(callable.as_ptr(), argument.as_ptr());
        owned_or_raised(callable.py(), result)
    }
}

/// Calls `callable` with two arguments.
///
/// # Errors
/// What the callable raises.
pub fn call_two<'py>(
    callable: &Bound<'py, PyAny>,
    first: &Bound<'py, PyAny>,
    second: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = [first.as_ptr(), second.as_ptr()];
    // SAFETY: the array holds two live objects and outlives the call; there are no keyword names;
    // the thread is attached; the result is a new reference or null with an exception set.
    unsafe {
        let result = ffi::PyObject_Vectorcall(
            callable.as_ptr(),
            arguments.as_ptr(),
            arguments.len(),
            std::ptr::null_mut(),
        );
        owned_or_raised(callable.py(), result)
    }
}

/// Calls the method `name` of `receiver` without arguments.
///
/// # Errors
/// What the method raises.
pub fn call_method<'py>(
    receiver: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = [receiver.as_ptr()];
    // SAFETY: the array holds the receiver, which is live, and outlives the call; there are no
    // keyword names; the thread is attached; the result is a new reference or null with an
    // exception set.
    unsafe {
        let result = ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            arguments.as_ptr(),
            1,
            std::ptr::null_mut(),
        );
        owned_or_raised(receiver.py(), result)
    }
}

/// Calls the method `name` of `receiver` with one argument.
///
/// # Errors
/// What the method raises.
pub fn call_method_one<'py>(
    receiver: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = [receiver.as_ptr(), argument.as_ptr()];
    // SAFETY: the array holds the receiver and the argument, both live, and outlives the call;
    // there are no keyword names; the thread is attached; the result is a new reference or null
    // with an exception set.
    unsafe {
        let result = ffi::PyObject_VectorcallMethod(
            name.as_ptr(),
            arguments.as_ptr(),
            2,
            std::ptr::null_mut(),
        );
        owned_or_raised(receiver.py(), result)
    }
}

/// Calls the method `name` of `receiver` with one argument and one keyword argument, whose name is
/// the only entry of `keyword`.
///
/// # Errors
/// What the method raises; `TypeError` when `keyword` has not exactly one entry.
pub fn call_method_with<'py>(
    receiver: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    argument: &Bound<'py, PyAny>,
    keyword: &Bound<'py, PyTuple>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    if keyword.len() != 1 {
        return Err(PyTypeError::new_err("one keyword expected"));
    }
    let arguments = [receiver.as_ptr(), argument.as_ptr(), value.as_ptr()];
    // SAFETY: the array holds the receiver, one positional and, as checked, one keyword argument,
    // all live, and outlives the call; the thread is attached; the result is a new reference or
    // null with an exception set.
    unsafe {
        let result =
            ffi::PyObject_VectorcallMethod(name.as_ptr(), arguments.as_ptr(), 2, keyword.as_ptr());
        owned_or_raised(receiver.py(), result)
    }
}

#[cfg(test)]
mod tests {
    use pyo3::types::PyDict;

    use super::*;

    #[test]
    fn a_call_reads_no_more_arguments_than_it_has() {
        Python::initialize();
        Python::attach(|py| {
            let (class, arguments) = (py.get_type::<PyDict>(), [py.None()]);
            let call = |names: &[&str]| {
                let names = PyTuple::new(py, names).unwrap();
                vectorcall(class.as_any(), &arguments, Some(&names))
            };
            assert!(call(&["a"]).is_ok());
            assert!(call(&["a", "b"]).unwrap_err().is_instance_of::<PyTypeError>(py));
        });
    }
}
