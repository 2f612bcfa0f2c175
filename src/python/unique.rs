//! Whether an object can be used again for something else.

use pyo3::PyClass;
use pyo3::ffi;
use pyo3::prelude::*;

/// Whether `object` is the only reference to its object, weak ones included.
///
/// On the free-threaded build only the thread that made the object is told so.
pub fn is_alone<T: PyClass>(py: Python<'_>, object: &Py<T>) -> bool {
    is_unique(object.bind(py).as_any())
}

/// [`is_alone`] for objects of any class.
pub(super) fn is_unique(object: &Bound<'_, PyAny>) -> bool {
    let object = object.as_ptr();
    is_only_reference(object) && !has_weak_references(object)
}

#[cfg(Py_3_14)]
fn is_only_reference(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object (the caller holds a reference), and the thread is attached.
    unsafe { ffi::PyUnstable_Object_IsUniquelyReferenced(object) != 0 }
}

/// Free threading is supported from 3.14 on: here the interpreter's lock guards the count.
#[cfg(not(Py_3_14))]
fn is_only_reference(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object (the caller holds a reference), and the thread is attached.
    unsafe { ffi::Py_REFCNT(object) == 1 }
}

fn has_weak_references(object: *mut ffi::PyObject) -> bool {
    // SAFETY: a live object. Its type says where the head of the list of its weak references is: 0
    // where there is none. Nobody else holds a reference (it was asked before), so nobody can make a
    // weak one meanwhile.
    unsafe {
        let offset = (*ffi::Py_TYPE(object)).tp_weaklistoffset;
        // Less where CPython manages it, as in a class that Python derived: such an object may have
        // some.
        offset < 0
            || offset > 0
                && !object.byte_offset(offset).cast::<*mut ffi::PyObject>().read().is_null()
    }
}

#[cfg(test)]
mod tests {
    use pyo3::types::PyDict;

    use super::*;

    #[pyclass(frozen, subclass)]
    struct Base;

    #[pymethods]
    impl Base {
        #[new]
        fn new() -> Self {
            Self
        }
    }

    #[test]
    fn who_has_a_weak_reference_is_not_alone() {
        Python::initialize();
        Python::attach(|py| {
            let object = Py::new(py, Base).unwrap();
            assert!(is_alone(py, &object));
            let locals = PyDict::new(py);
            locals.set_item("Base", py.get_type::<Base>()).unwrap();
            py.run(c"class Derived(Base): pass", None, Some(&locals)).unwrap();
            let derived = locals.get_item("Derived").unwrap().unwrap();
            let object = derived.call0().unwrap().cast_into::<Base>().unwrap();
            let weak = py.import("weakref").unwrap().call_method1("ref", (&object,)).unwrap();
            let object = object.unbind();
            assert!(!is_alone(py, &object));
            drop(weak);
        });
    }
}
