//! Coroutines that asyncio starts: where its Task is not the class that [`Tasks`] knows.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::completion::{Completion, Next};
use super::scope::Scope;
use super::task::Tasks;
use super::waiting::Waiting;
use crate::python::call::call_method;
use crate::python::context;

impl Tasks {
    /// [`Tasks::begin`] with asyncio's own first step.
    pub(super) fn begin_eagerly<'py>(
        &self,
        py: Python<'py>,
        coroutine: &Bound<'py, PyAny>,
        scope: &Scope<'py>,
        completion: &dyn Completion,
    ) -> PyResult<Option<Waiting>> {
        self.check_running(py)?;
        let make = |coroutine: &Bound<'py, PyAny>, scope: &Scope<'py>| {
            let keywords = PyDict::new(py);
            keywords.set_item("loop", self.event_loop.bind(py))?;
            // An eager Task enters its context, which must not be entered.
            let (context, is_eager) = match scope {
                Scope::Copy => (None, true),
                Scope::Own(context) => (Some(context), true),
                Scope::Entered(context) => (Some(context), false),
            };
            keywords.set_item("context", context)?;
            keywords.set_item("eager_start", is_eager)?;
            // What ends programs comes out of an eager Task's `__init__`. The Task is done all the
            // same, and would be lost with its outcome were it made in one call.
            let class = self.class.bind(py);
            let task = class.call_method1(intern!(py, "__new__"), (class,))?;
            let made = task.call_method(intern!(py, "__init__"), (coroutine,), Some(&keywords));
            if let Err(error) = made {
                // One that was not made at all raises here.
                let done = task.call_method0(intern!(py, "done")).and_then(|done| done.is_truthy());
                return done.is_ok_and(|done| done).then_some(task).ok_or(error);
            }
            Ok(task)
        };
        let task = make(coroutine, scope)?;
        if !task.call_method0(intern!(py, "done"))?.is_truthy()? {
            let context = task.call_method0(intern!(py, "get_context"))?.as_ptr().addr();
            return Ok(Some(Waiting::of_asyncio(task, context)));
        }
        let outcome = call_method(&task, intern!(py, "result"));
        let context = task.call_method0(intern!(py, "get_context"))?;
        match context::run(&context, || Ok(completion.complete(py, &outcome)))? {
            Next::Done => Ok(None),
            Next::Await(next) => {
                let address = context.as_ptr().addr();
                let task = make(next.bind(py), &Scope::Entered(context))?;
                Ok(Some(Waiting::of_asyncio(task, address)))
            }
        }
    }
}
