//! What the first Task of a loop finds out about asyncio's classes, for all that follow.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyType};

use super::current::Current;
use super::listener::catch;
use super::primed::{Primed, Taken};
use super::task::Tasks;
use crate::python::call::{call_no_args, call_one};
use crate::python::future_layout::{FutureLayout, Waiter};
use crate::python::task_layout::TaskLayout;

impl Tasks {
    /// How the class's Tasks are laid out; `None` where that cannot be told.
    pub(super) fn layout<'py>(&self, py: Python<'py>) -> PyResult<Option<&TaskLayout>> {
        if let Some(known) = self.layout.get() {
            return Ok(known.as_ref());
        }
        if !self.class.is(&self.asyncio.class) {
            return Ok(self.layout.get_or_init(|| None).as_ref());
        }
        self.check_running(py)?;
        let nobody = Current::nobody(&self.asyncio, self.event_loop.bind(py))?;
        let result = PyList::empty(py).into_any();
        let stand_ins = [Bound::new(py, Primed::new())?, Bound::new(py, Primed::new())?];
        stand_ins[0].get().prime(Taken::Returned(result.clone().unbind()));
        let mut make = |coroutine: &Bound<'py, PyAny>, context: &Bound<'py, PyAny>| {
            let keywords = PyDict::new(py);
            keywords.set_item("loop", self.event_loop.bind(py))?;
            keywords.set_item("context", context)?;
            let (task, step) =
                catch(py, || self.class.bind(py).call((coroutine,), Some(&keywords)))?;
            if step.is_none() {
                task.setattr("_log_destroy_pending", false)?;
                task.call_method0("cancel")?;
            }
            Ok(step.map(|step| (task, step)))
        };
        let class = self.class.bind(py);
        let unregister = self.asyncio.unregister.bind(py);
        let coroutine = stand_ins[1].clone();
        let stand_ins = stand_ins.map(Bound::into_any);
        let layout = TaskLayout::probe(class, stand_ins, &result, &mut make, unregister)?;
        if let Some(layout) = &layout {
            let context = self.no_context.bind(py);
            if let Some((task, _step)) = make(coroutine.as_any(), context)? {
                task.setattr("_log_destroy_pending", false)?;
                self.asyncio.find_thread(self.event_loop.bind(py), &layout.admit(task)?)?;
            }
            let context = context.call_method0("copy")?;
            if self.ready.is_some()
                && let Some((task, step)) = make(coroutine.as_any(), &context)?
            {
                task.setattr("_log_destroy_pending", false)?;
                self.find_futures(
                    coroutine.get(),
                    &Waiter { task: &task, context: &context },
                    &step,
                )?;
            }
        }
        drop(nobody);
        Ok(self.layout.get_or_init(|| layout).as_ref())
    }

    /// Looks how a Task waits for a future, with one whose coroutine is `stand_in`.
    fn find_futures<'py>(
        &self,
        stand_in: &Primed,
        waiter: &Waiter<'_, 'py>,
        step: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let py = step.py();
        let class = py.import("_asyncio")?.getattr("Future")?.cast_into::<PyType>()?;
        let wait = |future: &Bound<'py, PyAny>| {
            stand_in.prime(Taken::Yielded(future.clone().unbind()));
            call_no_args(step).map(drop)
        };
        let end = |future: &Bound<'py, PyAny>| {
            let (_, wake) = catch(py, || future.call_method0("cancel"))?;
            wake.map_or(Ok(()), |wake| call_one(&wake, future).map(drop))
        };
        let event_loop = self.event_loop.bind(py);
        let probe = || FutureLayout::probe(&class, event_loop, waiter, wait, end);
        if let Some(found) = FutureLayout::find(py, probe)? {
            let _ = self.futures.set(found);
        }
        Ok(())
    }
}
