//! What all lanes refer to at every step: from the first loop on, nobody counts these references.
//!
//! Otherwise two loops on two threads switch Tasks hardly faster than one: each wake-up drops a
//! reference to a class of asyncio, each `asyncio.sleep` looks up a function and the namespace that
//! it stands in. The classes here are the process's, and asyncio is imported once and for good.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyFunction, PyModule, PyType};

use crate::bridge;
use crate::python::immortal::immortalize;

static DONE: PyOnceLock<()> = PyOnceLock::new();

/// Ends the counting, once; without effect where the interpreter has a lock.
///
/// # Errors
/// What importing asyncio raises.
pub(super) fn end_counting(py: Python<'_>) -> PyResult<()> {
    if !cfg!(Py_GIL_DISABLED) {
        return Ok(());
    }
    DONE.get_or_try_init(py, || {
        for class in bridge::classes(py) {
            immortalize(&class);
        }
        of_module(&py.import("treadle._treadle")?)?;
        let accelerator = py.import("_asyncio")?;
        of_module(&accelerator)?;
        // Classes that it keeps to itself, such as that of a Task's step.
        let kept = py.import("gc")?.call_method1("get_referents", (accelerator,))?;
        for each in kept.try_iter()? {
            immortalize_if_shared(&each?);
        }
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        for (name, module) in modules.copy()? {
            let name: String = name.extract()?;
            if (name == "asyncio" || name.starts_with("asyncio."))
                && let Ok(module) = module.cast::<PyModule>()
            {
                of_module(module)?;
            }
        }
        Ok(())
    })
    .map(drop)
}

/// The module itself, its namespace, and the functions and classes there.
fn of_module(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let namespace = module.dict();
    for value in namespace.copy()?.values() {
        immortalize_if_shared(&value);
    }
    // Both, or neither: at the interpreter's end a module that lives empties its namespace.
    immortalize(module);
    immortalize(&namespace);
    Ok(())
}

fn immortalize_if_shared(object: &Bound<'_, PyAny>) {
    if object.is_instance_of::<PyType>()
        || object.is_instance_of::<PyFunction>()
        || object.is_instance_of::<PyCFunction>()
    {
        immortalize(object);
    }
}
