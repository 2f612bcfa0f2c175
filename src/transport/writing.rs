//! Writing: gathered, sent at once where it must be, with asyncio's flow control.

use std::ffi::CStr;
use std::io;

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

use super::core::{TransportCore, ends_loop, timed};
use super::state::State;
use crate::lane::LoopCore;
use crate::python::context;
use crate::python::method::{Arguments, FastMethod};
use crate::python::socket::{Buffer, os_error};

/// Bytes that are sent without waiting for the end of the turn.
const AT_ONCE: usize = 64 * 1024;

/// Writes to a lost connection that are taken in silence, as in asyncio.
const SILENT_WRITES: u32 = 5;

const WRITE_FAILED: &str = "Fatal write error on socket transport";

/// `transport.write`, called for each piece of every answer.
pub(super) struct Write;

impl FastMethod for Write {
    type Class = TransportCore;
    const NAME: &'static CStr = c"write";
    const DOC: &'static CStr = c"write($self, data)\n--\n\n\
        Sends `data`, at the end of the turn or before. Never blocks.";

    fn call<'py>(
        slf: &Bound<'py, TransportCore>,
        arguments: Arguments<'_, 'py>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = arguments.sole("write", "data")?;
        TransportCore::put(slf, &data)?;
        Ok(slf.py().None().into_bound(slf.py()))
    }
}

impl TransportCore {
    /// `transport.write`.
    pub(super) fn put(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(bytes) = data.cast_exact::<PyBytes>() else {
            return Self::write_copy(slf, data);
        };
        let state = slf.get().state()?;
        check(state, "Cannot call write() after write_eof()", "write")?;
        if bytes.as_bytes().is_empty() || Self::is_lost(slf, state)? {
            return Ok(());
        }
        state.outgoing.borrow_mut().push(bytes.clone());
        Self::queued(slf, state)
    }

    /// `transport.writelines`.
    pub(super) fn put_all(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        let state = slf.get().state()?;
        check(state, "Cannot call writelines() after write_eof()", "writelines")?;
        if !list_of_data.is_truthy()? || Self::is_lost(slf, state)? {
            return Ok(());
        }
        let mut pieces = Vec::new();
        for item in list_of_data.try_iter()? {
            let item = item?;
            let piece = match item.cast_into_exact::<PyBytes>() {
                Ok(bytes) => bytes,
                Err(other) => {
                    let other = other.into_inner();
                    // Refuses what has no memory to show, in the words of Python.
                    let view = PyMemoryView::from(&other)?;
                    view.call_method0(intern!(slf.py(), "tobytes"))?.cast_into()?
                }
            };
            if !piece.as_bytes().is_empty() {
                pieces.push(piece);
            }
        }
        let mut outgoing = state.outgoing.borrow_mut();
        for piece in pieces {
            outgoing.push(piece);
        }
        drop(outgoing);
        Self::queued(slf, state)
    }

    /// `transport.write_eof`.
    pub(super) fn put_end(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().state()?;
        if state.closing.get() || state.eof.get() {
            return Ok(());
        }
        Self::send_now(slf, state)?;
        if state.closing.get() || state.eof.replace(true) {
            return Ok(());
        }
        if state.outgoing.borrow().is_empty() {
            state.socket.shut_down_writing().map_err(|error| os_error(slf.py(), error))?;
        }
        Ok(())
    }

    /// Sets the water marks, in bytes.
    pub(super) fn set_limits(slf: &Bound<'_, Self>, high: usize, low: usize) -> PyResult<()> {
        let state = slf.get().state()?;
        state.high_water.set(high);
        state.low_water.set(low);
        if state.outgoing.borrow().len() > high {
            Self::send_now(slf, state)?;
        }
        Self::pause_if_over(slf, state)
    }

    /// Sends what is queued, unless the system takes nothing now.
    ///
    /// # Errors
    /// Only what has to end the loop; others end the connection.
    pub(super) fn send_now(slf: &Bound<'_, Self>, state: &State) -> PyResult<()> {
        let py = slf.py();
        if state.blocked.get() || state.lost.get() > 0 {
            return Ok(());
        }
        let outcome = {
            let mut outgoing = state.outgoing.borrow_mut();
            if outgoing.is_empty() {
                return Ok(());
            }
            outgoing.send(py, state.socket)
        };
        match outcome {
            Ok(true) => {
                Self::resume_if_under(slf, state)?;
                Self::emptied(slf, state)
            }
            Ok(false) => {
                block(state);
                Self::resume_if_under(slf, state)
            }
            Err(error) if is_temporary(&error) => {
                block(state);
                Ok(())
            }
            Err(error) => {
                state.outgoing.borrow_mut().clear();
                Self::fail(slf, os_error(py, error), WRITE_FAILED)
            }
        }
    }

    /// Sends from the outbox: in the connection's context, where nobody waits for an error.
    pub(super) fn send_gathered(slf: &Bound<'_, Self>) {
        let Ok(state) = slf.get().state() else {
            return;
        };
        state.gathered.set(false);
        let Some(context) = state.context(slf.py()) else {
            return;
        };
        let sent = timed(slf, state, || context::run(&context, || Self::send_now(slf, state)));
        Self::raise_soon(slf, sent);
    }

    /// Has the loop raise what came out of a callback.
    pub(super) fn raise_soon(slf: &Bound<'_, Self>, outcome: PyResult<()>) {
        let py = slf.py();
        if let Err(error) = outcome
            && let Err(error) =
                slf.call_method1(intern!(py, "_raise_soon"), (error.into_value(py),))
        {
            error.write_unraisable(py, Some(slf.as_any()));
        }
    }

    /// Sends what asyncio had sent before an `abort` or an error, whoever raised it. A connection that
    /// the system has given up refuses it, which is the end either way.
    pub(super) fn send_before_the_end(slf: &Bound<'_, Self>, state: &State) {
        if !state.blocked.get() {
            let _ = state.outgoing.borrow_mut().send(slf.py(), state.socket);
        }
    }

    /// The queue has just become empty.
    fn emptied(slf: &Bound<'_, Self>, state: &State) -> PyResult<()> {
        let py = slf.py();
        if !state.outgoing.borrow().is_empty() || state.lost.get() > 0 {
            return Ok(());
        }
        if state.closing.get() {
            // Who waited to send a file fails with the connection: nothing may follow the end.
            return Self::lose_soon(slf, state, None);
        }
        if state.sending_file.get() {
            slf.call_method0(intern!(py, "_emptied"))?;
        }
        if state.eof.get()
            && let Err(error) = state.socket.shut_down_writing()
        {
            return Self::fail(slf, os_error(py, error), WRITE_FAILED);
        }
        Ok(())
    }

    /// The queue has grown: sends it now or has it sent when the turn is over.
    fn queued(slf: &Bound<'_, Self>, state: &State) -> PyResult<()> {
        if state.blocked.get() {
            return Self::pause_if_over(slf, state);
        }
        if state.outgoing.borrow().len() > AT_ONCE.min(state.high_water.get()) {
            Self::send_now(slf, state)?;
        }
        Self::gather(slf, state);
        Self::pause_if_over(slf, state)
    }

    /// Leaves what is queued to the outbox, unless somebody else sends it.
    pub(super) fn gather(slf: &Bound<'_, Self>, state: &State) {
        if !state.receiving.get()
            && !state.blocked.get()
            && !state.outgoing.borrow().is_empty()
            && let Some(event_loop) = state.event_loop(slf.py())
            && let Ok(event_loop) = event_loop.cast::<LoopCore>()
            && !state.gathered.replace(true)
        {
            state.outbox.add(slf, event_loop.get());
        }
    }

    fn pause_if_over(slf: &Bound<'_, Self>, state: &State) -> PyResult<()> {
        if state.outgoing.borrow().len() <= state.high_water.get()
            || state.protocol_paused.replace(true)
        {
            return Ok(());
        }
        Self::tell(slf, state, "pause_writing")
    }

    fn resume_if_under(slf: &Bound<'_, Self>, state: &State) -> PyResult<()> {
        if !state.protocol_paused.get() || state.outgoing.borrow().len() > state.low_water.get() {
            return Ok(());
        }
        state.protocol_paused.set(false);
        Self::tell(slf, state, "resume_writing")
    }

    fn tell(slf: &Bound<'_, Self>, state: &State, what: &str) -> PyResult<()> {
        let py = slf.py();
        let Some(protocol) = state.protocol(py) else {
            return Ok(());
        };
        match protocol.call_method0(what) {
            Err(error) if !ends_loop(py, &error) => {
                let message = format!("protocol.{what}() failed");
                slf.call_method1(intern!(py, "_report"), (error.into_value(py), message)).map(drop)
            }
            outcome => outcome.map(drop),
        }
    }

    /// `write` of anything but plain `bytes`: what is not sent at once is copied, because its
    /// owner may change it.
    fn write_copy(slf: &Bound<'_, Self>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let is_allowed = data.is_instance_of::<PyByteArray>()
            || data.is_instance_of::<PyMemoryView>()
            || data.is_instance_of::<PyBytes>();
        if !is_allowed {
            return Err(PyTypeError::new_err(format!(
                "data argument must be a bytes, bytearray, or memoryview object, not {}",
                data.get_type().name()?.repr()?
            )));
        }
        let state = slf.get().state()?;
        check(state, "Cannot call write() after write_eof()", "write")?;
        let Ok(buffer) = Buffer::of(data, false) else {
            // A view with gaps.
            let bytes = data.py().get_type::<PyBytes>().call1((data,))?;
            return Self::put(slf, &bytes);
        };
        if buffer.is_empty() || Self::is_lost(slf, state)? {
            return Ok(());
        }
        let mut sent = 0;
        if buffer.len() > AT_ONCE {
            Self::send_now(slf, state)?;
            if state.lost.get() > 0 {
                return Ok(());
            }
            if !state.blocked.get() && state.outgoing.borrow().is_empty() {
                match state.socket.send_buffer(&buffer) {
                    Ok(taken) if taken == buffer.len() => return Ok(()),
                    Ok(taken) => {
                        sent = taken;
                        block(state);
                    }
                    Err(error) if is_temporary(&error) => block(state),
                    Err(error) => {
                        return Self::fail(slf, os_error(slf.py(), error), WRITE_FAILED);
                    }
                }
            }
        }
        let rest = buffer.copy_from(sent)?;
        drop(buffer);
        state.outgoing.borrow_mut().push(rest);
        Self::queued(slf, state)
    }

    /// Whether the connection is lost; a write that finds it so is counted.
    fn is_lost(slf: &Bound<'_, Self>, state: &State) -> PyResult<bool> {
        let lost = state.lost.get();
        if lost == 0 {
            return Ok(false);
        }
        if lost >= SILENT_WRITES {
            slf.call_method0(intern!(slf.py(), "_warn_lost"))?;
        }
        state.lost.set(lost.saturating_add(1));
        Ok(true)
    }
}

/// The connection's task has to wait until the system takes bytes again.
fn block(state: &State) {
    state.blocked.set(true);
    state.wake();
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn check(state: &State, after_eof: &'static str, what: &str) -> PyResult<()> {
    if state.eof.get() {
        return Err(PyRuntimeError::new_err(after_eof));
    }
    if state.sending_file.get() {
        return Err(PyRuntimeError::new_err(format!("unable to {what}; sendfile is in progress")));
    }
    Ok(())
}
