//! A new C `asyncio.Future`, made without its class being called.
//!
//! Calling the class costs as much as all else that `loop.create_future()` does: it looks for the
//! running loop, which is known here, and asks it whether it is in debug mode, which it is not. What
//! is left is an empty object with a reference to its loop. Where that stands is found by looking,
//! and that an object made so is one that the class would have made is tried
//! ([`FutureMaker::probe`]); otherwise the class is called.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

use super::error::owned_or_raised;
use super::words::{fill, look, only, references};

/// Makes futures of one class.
pub struct FutureMaker {
    class: Py<PyType>,
    /// Where a future has its loop.
    event_loop: isize,
}

impl FutureMaker {
    /// Looks what `_asyncio.Future(loop=event_loop)` makes, for a loop that is not in debug mode;
    /// `None` where more than an empty object with its loop, or for another class.
    ///
    /// # Errors
    /// What asyncio raises.
    pub fn probe(
        class: &Bound<'_, PyAny>,
        event_loop: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Self>> {
        let py = class.py();
        if !py.import("_asyncio")?.getattr("Future")?.is(class) {
            return Ok(None);
        }
        let class = class.cast::<PyType>()?;
        let keywords = PyDict::new(py);
        keywords.set_item("loop", event_loop)?;
        let model = class.call((), Some(&keywords))?;
        let before = references(event_loop);
        let Some(place) = only(&model, event_loop.as_ptr().addr()) else { return Ok(None) };
        let maker = Self { class: class.clone().unbind(), event_loop: place };
        let made = maker.make(event_loop)?;
        let is_right = look(&made) == look(&model)
            && references(event_loop) == before + 1
            && made.call_method0("get_loop")?.is(event_loop)
            && !made.call_method0("done")?.is_truthy()?;
        Ok(is_right.then_some(maker))
    }

    /// A pending future of `event_loop`, which is not in debug mode.
    ///
    /// # Errors
    /// `MemoryError`.
    #[inline]
    pub fn make<'py>(&self, event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let class = self.class.bind(py).as_type_ptr();
        // SAFETY: the thread is attached, and `class` is a live type that is ready, of which
        // `PyType_GenericAlloc` makes an object with nothing in it: null or a new reference.
        let future = unsafe { owned_or_raised(py, ffi::PyType_GenericAlloc(class, 0))? };
        // Nobody else has seen it.
        fill(&future, self.event_loop, event_loop.clone());
        Ok(future)
    }
}
