//! Methods that take their arguments as CPython hands them over: an array, and the names of the last.
//!
//! PyO3's own methods look every keyword up by its text and make a tuple of `*args`. For what is
//! called for each callback of a loop, that costs as much as the rest of the call.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyClass};

/// A method of `Self::Class`.
pub trait FastMethod {
    /// The class; the method is added to it, or to one that derives from it.
    type Class: PyClass;
    /// The method's name.
    const NAME: &'static CStr;
    /// Its text signature, then its documentation.
    const DOC: &'static CStr;

    /// What it does.
    ///
    /// # Errors
    /// What it raises.
    fn call<'py>(
        slf: &Bound<'py, Self::Class>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>>;
}

/// The arguments of one call.
#[derive(Clone, Copy)]
pub struct Arguments<'a, 'py> {
    positional: &'a [Borrowed<'a, 'py, PyAny>],
    keywords: &'a [Borrowed<'a, 'py, PyAny>],
    names: Option<Borrowed<'a, 'py, PyTuple>>,
}

/// Arguments as `def method(LEAD, *rest, context=None)` has them.
pub struct Parsed<'a, 'py, const LEAD: usize> {
    /// Those that must be there.
    pub lead: [Borrowed<'a, 'py, PyAny>; LEAD],
    /// What follows them.
    pub rest: &'a [Borrowed<'a, 'py, PyAny>],
    /// The context, if one was given that is not None.
    pub context: Option<Borrowed<'a, 'py, PyAny>>,
}

impl<'a, 'py> Arguments<'a, 'py> {
    /// The argument, if there is one and no other.
    #[must_use]
    pub fn only(self) -> Option<Borrowed<'a, 'py, PyAny>> {
        match (self.positional, self.keywords) {
            ([only], []) => Some(*only),
            _ => None,
        }
    }

    /// The argument, given by position or as `name`, when `method` takes no other.
    ///
    /// # Errors
    /// `TypeError` for any other arguments.
    #[inline]
    pub fn sole(self, method: &str, name: &str) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        match self.only() {
            Some(only) => Ok(only),
            None => self.sole_by_name(method, name),
        }
    }

    #[cold]
    fn sole_by_name(self, method: &str, name: &str) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        if let ([], [value], Some(names)) = (self.positional, self.keywords, self.names)
            && names.get_item(0)?.cast::<PyString>()?.to_str()? == name
        {
            return Ok(*value);
        }
        let given = self.positional.len() + self.keywords.len();
        Err(PyTypeError::new_err(match (given, self.keywords) {
            (0, _) => format!("{method}() missing 1 required positional argument: '{name}'"),
            (1, _) => format!("{method}() got an unexpected keyword argument"),
            _ => format!("{method}() takes 1 argument but {given} were given"),
        }))
    }

    /// Hands them on to another method.
    ///
    /// # Errors
    /// What that raises.
    pub fn pass_on(
        self,
        slf: &Bound<'py, PyAny>,
        method: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let keywords = PyDict::new(py);
        if let Some(names) = self.names {
            for (name, value) in names.iter_borrowed().zip(self.keywords) {
                keywords.set_item(name, value)?;
            }
        }
        slf.call_method(method, PyTuple::new(py, self.positional)?, Some(&keywords))
    }

    /// Sorts them as `def method(lead, *rest, context=None)` does.
    ///
    /// # Errors
    /// `TypeError` in CPython's words.
    #[inline]
    pub fn parse<const LEAD: usize>(
        self,
        method: &str,
        lead: [&str; LEAD],
    ) -> PyResult<Parsed<'a, 'py, LEAD>> {
        let context = match (self.keywords, self.names) {
            ([], _) => Some(None),
            ([value], Some(names)) => match names.iter_borrowed().next() {
                Some(name) if is_context(&name)? => Some(Some(*value)),
                _ => None,
            },
            _ => None,
        };
        // How nearly every call is.
        if let (Some(context), Some((lead, rest))) = (context, self.positional.split_first_chunk())
        {
            let context = context.filter(|context| !context.is_none());
            return Ok(Parsed { lead: *lead, rest, context });
        }
        self.parse_names(method, lead)
    }

    fn parse_names<const LEAD: usize>(
        self,
        method: &str,
        lead: [&str; LEAD],
    ) -> PyResult<Parsed<'a, 'py, LEAD>> {
        let mut slots: [Option<Borrowed<'a, 'py, PyAny>>; LEAD] = [None; LEAD];
        let (first, rest) = self.positional.split_at(self.positional.len().min(LEAD));
        for (slot, argument) in slots.iter_mut().zip(first) {
            *slot = Some(*argument);
        }
        let mut given = None;
        if let Some(names) = self.names {
            for (name, value) in names.iter_borrowed().zip(self.keywords) {
                if is_context(&name)? {
                    given = Some(*value);
                    continue;
                }
                let name = name.cast::<PyString>()?;
                let name = name.to_str()?;
                let Some(at) = lead.iter().position(|each| *each == name) else {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got an unexpected keyword argument '{name}'"
                    )));
                };
                if slots[at].replace(*value).is_some() {
                    return Err(PyTypeError::new_err(format!(
                        "{method}() got multiple values for argument '{name}'"
                    )));
                }
            }
        }
        if let Some(at) = slots.iter().position(Option::is_none) {
            return Err(PyTypeError::new_err(format!(
                "{method}() missing 1 required positional argument: '{}'",
                lead[at]
            )));
        }
        let Some(any) = slots.first().copied().flatten() else {
            return Err(PyTypeError::new_err(format!("{method}() takes arguments")));
        };
        // None of them is missing.
        let lead = slots.map(|slot| slot.unwrap_or(any));
        Ok(Parsed { lead, rest, context: given.filter(|context| !context.is_none()) })
    }
}

/// Whether the name of a keyword is "context"; nearly always told without looking at its text.
#[inline]
fn is_context(name: &Bound<'_, PyAny>) -> PyResult<bool> {
    /// The string that CPython's Futures and Tasks have for it, which is not interned.
    static OTHER: PyOnceLock<Py<PyString>> = PyOnceLock::new();
    let py = name.py();
    if name.is(intern!(py, "context")) || OTHER.get(py).is_some_and(|other| name.is(other)) {
        return Ok(true);
    }
    let name = name.cast::<PyString>()?;
    let found = name.to_str()? == "context";
    if found {
        // The first one is kept; who has another has it compared.
        let _ = OTHER.set(py, name.clone().unbind());
    }
    Ok(found)
}

/// Gives `class` the method.
///
/// # Errors
/// What setting an attribute of a class raises; `TypeError` where the method is of another class.
pub fn add_method<M: FastMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    add::<M::Class>(
        class,
        ffi::PyMethodDef {
            ml_name: M::NAME.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: called::<M> },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: M::DOC.as_ptr(),
        },
    )
}

/// A method without arguments.
pub trait BareMethod {
    /// As [`FastMethod::Class`].
    type Class: PyClass;
    /// The method's name.
    const NAME: &'static CStr;
    /// Its text signature, then its documentation.
    const DOC: &'static CStr;

    /// What it does.
    ///
    /// # Errors
    /// What it raises.
    fn call<'py>(slf: &Bound<'py, Self::Class>) -> PyResult<Bound<'py, PyAny>>;
}

/// Gives `class` the method.
///
/// # Errors
/// As [`add_method`].
pub fn add_bare_method<M: BareMethod>(class: &Bound<'_, PyType>) -> PyResult<()> {
    add::<M::Class>(
        class,
        ffi::PyMethodDef {
            ml_name: M::NAME.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer { PyCFunction: called_bare::<M> },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: M::DOC.as_ptr(),
        },
    )
}

/// `C` is the class that the definition's function takes `self` for.
fn add<C: PyClass>(class: &Bound<'_, PyType>, definition: ffi::PyMethodDef) -> PyResult<()> {
    let py = class.py();
    if !class.is_subclass_of::<C>()? {
        return Err(PyTypeError::new_err("a method of another class"));
    }
    // The descriptor refers to it for as long as the class is there, which is as long as the process.
    let definition = Box::leak(Box::new(definition));
    // SAFETY: both point to what lives on: the class is held by the caller, and later by itself
    // through the descriptor. The name in the definition is a C string that lives as long. The
    // result is a new reference or null with an exception set.
    let (name, descriptor) = unsafe {
        let made = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        (CStr::from_ptr(definition.ml_name), super::error::owned_or_raised(py, made)?)
    };
    class.setattr(name, descriptor)
}

/// What CPython calls.
unsafe extern "C" fn called<M: FastMethod>(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guarded(|py| {
        // SAFETY: the method descriptor has checked `slf`, and `add` the class that it checks for; it
        // and the arguments are held by the caller until this function returns. `arguments` has `count` positional ones and a
        // keyword one for each of `names`, a tuple of strings or null; an array without any may
        // be null. A `Borrowed` is a pointer and nothing else.
        let (slf, arguments) = unsafe {
            let names =
                Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>());
            let positional = usize::try_from(count).unwrap_or(0);
            let keywords = names.as_ref().map_or(0, |names| names.len());
            let all: &[Borrowed<'_, '_, PyAny>] = match positional + keywords {
                0 => &[],
                all => slice::from_raw_parts(arguments.cast(), all),
            };
            let (positional, keywords) = all.split_at(positional);
            let slf = Borrowed::from_ptr(py, slf).cast_unchecked::<M::Class>();
            (slf, Arguments { positional, keywords, names })
        };
        M::call(&slf, arguments)
    })
}

/// The same without arguments.
unsafe extern "C" fn called_bare<M: BareMethod>(
    slf: *mut ffi::PyObject,
    _nothing: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    guarded(|py| {
        // SAFETY: as for `called`.
        let slf = unsafe { Borrowed::from_ptr(py, slf).cast_unchecked::<M::Class>() };
        M::call(&slf)
    })
}

/// Runs `body` on a thread that is attached; gives a new reference, or null with an exception set.
#[inline]
fn guarded(
    body: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
) -> *mut ffi::PyObject {
    // The thread is attached; PyO3, which counts for itself, is told so.
    Python::attach(|py| {
        // Errors are raised inside: a pointer is all that is carried out.
        let body = AssertUnwindSafe(|| match body(py) {
            Ok(result) => result.into_ptr(),
            Err(error) => {
                error.restore(py);
                std::ptr::null_mut()
            }
        });
        catch_unwind(body).unwrap_or_else(|panic| {
            PanicException::new_err(message(&*panic)).restore(py);
            std::ptr::null_mut()
        })
    })
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use pyo3::types::PyInt;

    use super::*;

    #[pyclass(frozen)]
    struct Own;

    struct Method;

    impl BareMethod for Method {
        type Class = Own;
        const NAME: &'static CStr = c"method";
        const DOC: &'static CStr = c"";

        fn call<'py>(slf: &Bound<'py, Own>) -> PyResult<Bound<'py, PyAny>> {
            Ok(slf.clone().into_any())
        }
    }

    #[test]
    fn a_class_gets_no_method_of_another() {
        Python::initialize();
        Python::attach(|py| {
            add_bare_method::<Method>(&py.get_type::<Own>()).unwrap();
            let own = Bound::new(py, Own).unwrap().into_any();
            assert!(own.call_method0("method").unwrap().is(&own));
            let refused = add_bare_method::<Method>(&py.get_type::<PyInt>()).unwrap_err();
            assert_eq!(refused.value(py).to_string(), "a method of another class");
        });
    }
}
