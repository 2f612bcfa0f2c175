//! The callback by which a Task of asyncio's C class waits for a future, told from any other.
//!
//! It is a built-in function whose `self` is the Task. What it does stands in a definition that all
//! of them share; that is looked up once, by name, and compared from then on.

use std::ffi::CStr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

const NAME: &CStr = c"task_wakeup";

struct Known {
    /// The address of the definition, which is there as long as the process.
    definition: usize,
    future: Py<PyType>,
    task: Py<PyType>,
}

/// Empty until the first one is met.
static KNOWN: PyOnceLock<Known> = PyOnceLock::new();

/// Whether `callback` wakes a Task, and `future` is what such a Task waits for: a future or Task of
/// asyncio's own C classes, not of one that derives from them. Nothing but that future has such a
/// callback called, and it keeps no handle of the call.
#[inline]
pub fn is_task_wakeup(callback: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> bool {
    let Some(function) = builtin(callback) else { return false };
    let Some(known) = KNOWN.get(callback.py()) else {
        return learn(callback, future);
    };
    function.definition.addr() == known.definition && known.is_own(future)
}

impl Known {
    fn is_own(&self, future: &Bound<'_, PyAny>) -> bool {
        let (py, class) = (future.py(), future.get_type_ptr());
        class == self.future.bind(py).as_type_ptr() || class == self.task.bind(py).as_type_ptr()
    }
}

struct Builtin {
    definition: *mut ffi::PyMethodDef,
    receiver: *mut ffi::PyObject,
}

/// What a built-in function is made of.
fn builtin(object: &Bound<'_, PyAny>) -> Option<Builtin> {
    let object = object.as_ptr();
    // SAFETY: a live object. One of exactly this type is laid out as `PyCFunctionObject` says, and
    // neither word is written after it was made.
    unsafe {
        (ffi::PyCFunction_CheckExact(object) != 0).then(|| {
            let function = object.cast::<ffi::PyCFunctionObject>();
            Builtin { definition: (*function).m_ml, receiver: (*function).m_self }
        })
    }
}

#[cold]
fn learn(callback: &Bound<'_, PyAny>, future: &Bound<'_, PyAny>) -> bool {
    let py = callback.py();
    let Some(function) = builtin(callback) else { return false };
    // SAFETY: the definition of a built-in function lives as long as the function, and its name is
    // a C string.
    let name = unsafe { CStr::from_ptr((*function.definition).ml_name) };
    if name != NAME || function.receiver.is_null() {
        return false;
    }
    let class = |name: &str| -> PyResult<_> {
        Ok(py.import("_asyncio")?.getattr(name)?.cast_into::<PyType>()?.unbind())
    };
    let (Ok(of_future), Ok(of_task)) = (class("Future"), class("Task")) else { return false };
    // SAFETY: the receiver is an object that the function keeps.
    let receiver = unsafe { ffi::Py_TYPE(function.receiver) };
    let known = Known { definition: function.definition.addr(), future: of_future, task: of_task };
    // Of a class that derives from it the function is the same; only `Task` itself is looked for.
    receiver == known.task.bind(py).as_type_ptr() && KNOWN.get_or_init(py, || known).is_own(future)
}
