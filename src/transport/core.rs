//! The native half of a stream transport: its state, and what Python calls often.
//!
//! # Who owns what
//!
//! The state is of the loop's thread alone; a collector on another one sees nothing of it and so
//! takes what it holds for used. Two things see to it that nothing is kept for ever by that: what
//! belongs to Python is taken out where the connection is lost, and where the loop is closed before
//! that it is put where every thread sees it ([`Left`], behind a lock that is taken then, and by
//! whoever asks the transport afterwards).

use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError, PySystemExit};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::connection;
use super::outbox::Outbox;
use super::receive::{Kind, READS};
use super::state::{Left, State};
use crate::lane::{LaneHandle, LoopCore};
use crate::python::context;
use crate::python::lane_bound::LaneBound;
use crate::python::socket::{SocketFd, os_error};

/// A connection's state and its per-event methods.
///
/// `treadle.transports.SocketTransport` inherits from it; its methods that start with an
/// underscore are the two halves' way to each other.
#[pyclass(subclass, frozen, weakref, module = "treadle._treadle")]
pub struct TransportCore {
    state: LaneBound<State>,
    /// What the loop had of it when it was closed.
    left: Mutex<Option<Left>>,
    /// The socket's number, for other threads too.
    fd: RawFd,
    /// The lane it belongs to, if it was made while that ran.
    lane: Option<LaneHandle>,
}

impl TransportCore {
    /// # Errors
    /// On another thread than the loop's.
    pub(super) fn state(&self) -> PyResult<&State> {
        self.state.get().ok_or_else(|| match &self.lane {
            Some(lane) => Python::attach(|py| lane.misplaced(py, "this transport")),
            None => PyRuntimeError::new_err("this transport belongs to another thread"),
        })
    }

    fn left(&self) -> MutexGuard<'_, Option<Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop, also a closed one; `None` once the connection is lost.
    fn event_loop<'py>(&self, py: Python<'py>, state: &State) -> Option<Bound<'py, PyAny>> {
        state.event_loop(py).or_else(|| {
            let left = self.left();
            left.as_ref().and_then(|left| Some(left.event_loop.as_ref()?.bind(py).clone()))
        })
    }

    /// Calls `connection_lost` in the next turn.
    pub(super) fn lose_soon(
        slf: &Bound<'_, Self>,
        state: &State,
        error: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let py = slf.py();
        state.lost.set(state.lost.get() + 1);
        if let Some(event_loop) = slf.get().event_loop(py, state) {
            let lost = slf.getattr(intern!(py, "_call_connection_lost"))?;
            event_loop.call_method1(intern!(py, "call_soon"), (lost, error))?;
        }
        Ok(())
    }

    /// Ends the connection for an error, as asyncio's `_fatal_error` does.
    ///
    /// # Errors
    /// `error` itself where it has to end the loop.
    pub(super) fn fail(slf: &Bound<'_, Self>, error: PyErr, message: &str) -> PyResult<()> {
        let py = slf.py();
        if ends_loop(py, &error) {
            return Err(error);
        }
        slf.call_method1(intern!(py, "_fatal_error"), (error.into_value(py), message)).map(drop)
    }
}

/// Does something that calls the protocol. In debug mode a loop that is held up by it is told so.
///
/// # Errors
/// Those of `body`.
pub(super) fn timed(
    slf: &Bound<'_, TransportCore>,
    state: &State,
    body: impl FnOnce() -> PyResult<()>,
) -> PyResult<()> {
    let py = slf.py();
    if !state.is_debugging(py) {
        return body();
    }
    // Both may be gone afterwards.
    let (event_loop, protocol) = (state.event_loop(py), state.protocol(py));
    let started = Instant::now();
    let outcome = body();
    let took = started.elapsed().as_secs_f64();
    let warned =
        slf.call_method1(intern!(py, "_warn_if_slow"), (event_loop, protocol, took)).map(drop);
    outcome.and(warned)
}

/// Whether an exception out of a callback ends the loop rather than the connection.
pub(super) fn ends_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyKeyboardInterrupt>(py)
}

#[pymethods]
impl TransportCore {
    #[new]
    #[pyo3(signature = (event_loop, sock, *_arguments, **_keywords))]
    fn new(
        event_loop: &Bound<'_, PyAny>,
        sock: &Bound<'_, PyAny>,
        _arguments: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        let fd: RawFd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
        let outbox = event_loop.getattr(intern!(py, "_outbox"))?.cast_into::<Outbox>()?;
        let waiting = outbox.get().waiting(event_loop.cast::<LoopCore>()?.get());
        let socket = SocketFd::borrow(fd).map_err(|error| os_error(py, error))?;
        let is_unix = socket.is_unix();
        let context = context::copy_current(py)?.unbind();
        let state = State::new(socket, is_unix, waiting, context, event_loop.clone().unbind());
        Ok(Self {
            state: LaneBound::new(state),
            left: Mutex::default(),
            fd,
            lane: LaneHandle::current(py).ok(),
        })
    }

    /// Enters the reactor; from here on the protocol is called. A callback of the loop's.
    fn _start(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let state = slf.get().state()?;
        if state.lost.get() > 0 {
            return Ok(());
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(PyRuntimeError::new_err("the loop does not run"));
        }
        let registration = state.socket.register(READS).map_err(|error| os_error(py, error))?;
        state.registration.replace(Some(Rc::new(registration)));
        let holder = connection::spawn(slf);
        state.holder.replace(Rc::downgrade(&holder));
        Ok(())
    }

    /// Leaves the reactor for good and lets go of loop, protocol and context.
    fn _release(&self) -> PyResult<()> {
        let state = self.state()?;
        state.closing.set(true);
        state.lost.set(state.lost.get().max(1));
        state.outgoing.borrow_mut().clear();
        let left = self.left().take();
        drop((left, state.take_python(), state.leave_reactor()));
        Ok(())
    }

    /// The loop is closed, and nothing more is called: from now on any thread may collect this.
    fn _leave(&self) -> PyResult<()> {
        let state = self.state()?;
        if state.event_loop.borrow().is_some() {
            self.left().replace(state.take_python());
            drop(state.leave_reactor());
        }
        Ok(())
    }

    /// Allows nothing but `sendfile` to write, or everything again.
    fn _reserve(&self, reserved: bool) -> PyResult<()> {
        self.state()?.sending_file.set(reserved);
        Ok(())
    }

    /// The event loop; `None` once the connection is lost.
    #[getter]
    fn _loop<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.event_loop(py, self.state()?))
    }

    #[getter]
    fn _protocol<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let protocol = self.state()?.protocol(py);
        Ok(protocol.or_else(|| {
            let left = self.left();
            left.as_ref().and_then(|left| Some(left.protocol.as_ref()?.bind(py).clone()))
        }))
    }

    #[getter]
    fn _sock_fd(&self) -> RawFd {
        self.fd
    }

    #[getter]
    fn _closing(&self) -> PyResult<bool> {
        Ok(self.state()?.closing.get())
    }

    #[getter]
    fn _paused(&self) -> PyResult<bool> {
        Ok(self.state()?.paused.get())
    }

    #[getter]
    fn _protocol_paused(&self) -> PyResult<bool> {
        Ok(self.state()?.protocol_paused.get())
    }

    #[getter]
    fn _conn_lost(&self) -> PyResult<u32> {
        Ok(self.state()?.lost.get())
    }

    #[getter]
    fn _eof(&self) -> PyResult<bool> {
        Ok(self.state()?.eof.get())
    }

    /// Whether it waits to receive, and to send.
    fn _polling(&self) -> PyResult<(bool, bool)> {
        let state = self.state()?;
        let started = state.registration.borrow().is_some();
        Ok((started && state.reads(), started && state.blocked.get()))
    }

    /// Sets whom to call.
    fn set_protocol(&self, protocol: Bound<'_, PyAny>) -> PyResult<()> {
        let state = self.state()?;
        state.kind.set(Kind::of(&protocol)?);
        let before = match &mut *self.left() {
            Some(left) => left.protocol.replace(protocol.unbind()),
            None => state.protocol.borrow_mut().replace(protocol.unbind()),
        };
        drop(before);
        Ok(())
    }

    /// Who is called.
    fn get_protocol<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self._protocol(py)
    }

    /// Whether the transport is closing or closed. On another thread it is as good as closed: that
    /// is what finalizers ask there before they would close it.
    fn is_closing(&self) -> bool {
        self.state.get().is_none_or(|state| state.closing.get())
    }

    /// Whether another thread than this one made it, and is the only one that can use it.
    fn _is_elsewhere(&self) -> bool {
        self.state.get().is_none()
    }

    /// Whether the protocol is given what arrives.
    fn is_reading(&self) -> PyResult<bool> {
        let state = self.state()?;
        Ok(!state.closing.get() && !state.paused.get())
    }

    /// Stops receiving until `resume_reading`.
    fn pause_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().state()?;
        if !state.closing.get() && !state.paused.replace(true) {
            note(slf, state, "%r pauses reading")?;
        }
        Ok(())
    }

    /// Receives again.
    fn resume_reading(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().state()?;
        if state.closing.get() || !state.paused.replace(false) {
            return Ok(());
        }
        state.read_ended.set(false);
        state.wake();
        note(slf, state, "%r resumes reading")
    }

    /// Sends every item of `list_of_data`, as `write` does.
    fn writelines(slf: &Bound<'_, Self>, list_of_data: &Bound<'_, PyAny>) -> PyResult<()> {
        Self::put_all(slf, list_of_data)
    }

    /// Sends the end of the stream after what was written.
    fn write_eof(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::put_end(slf)
    }

    /// Whether `write_eof` works: it does.
    fn can_write_eof(&self) -> bool {
        true
    }

    /// Bytes that were written and are not sent.
    fn get_write_buffer_size(&self) -> PyResult<usize> {
        Ok(self.state()?.outgoing.borrow().len())
    }

    /// The water marks in bytes: low, high.
    fn get_write_buffer_limits(&self) -> PyResult<(usize, usize)> {
        let state = self.state()?;
        Ok((state.low_water.get(), state.high_water.get()))
    }

    fn _set_limits(slf: &Bound<'_, Self>, high: usize, low: usize) -> PyResult<()> {
        Self::set_limits(slf, high, low)
    }

    /// Closes the connection once everything that was written is sent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let state = slf.get().state()?;
        if state.closing.get() {
            return Ok(());
        }
        Self::send_now(slf, state)?;
        if state.closing.replace(true) {
            return Ok(());
        }
        if state.outgoing.borrow().is_empty() {
            Self::lose_soon(slf, state, None)?;
        }
        Ok(())
    }

    /// Closes the connection now; what the system has not taken is lost.
    fn abort(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::_force_close(slf, None)
    }

    fn _force_close(slf: &Bound<'_, Self>, exc: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let state = slf.get().state()?;
        if state.lost.get() > 0 {
            return Ok(());
        }
        Self::send_before_the_end(slf, state);
        state.outgoing.borrow_mut().clear();
        state.closing.set(true);
        Self::lose_soon(slf, state, exc)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(left) = self.left.try_lock()
            && let Some(left) = &*left
        {
            visit.call(&left.event_loop)?;
            visit.call(&left.protocol)?;
            visit.call(&left.context)?;
        }
        // On another thread no more is visited: the collector then takes what is held for used.
        let Some(state) = self.state.get() else {
            return Ok(());
        };
        for slot in [&state.event_loop, &state.protocol, &state.context] {
            if let Ok(slot) = slot.try_borrow() {
                visit.call(&*slot)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        let left = self.left().take();
        let held = self.state.get().map(|state| {
            [&state.event_loop, &state.protocol, &state.context]
                .map(|slot| slot.try_borrow_mut().ok().and_then(|mut slot| slot.take()))
        });
        drop((left, held));
    }
}

/// Writes a line to asyncio's log in debug mode.
pub(super) fn note(slf: &Bound<'_, TransportCore>, state: &State, line: &str) -> PyResult<()> {
    let py = slf.py();
    if state.is_debugging(py) {
        slf.call_method1(intern!(py, "_log"), (line,))?;
    }
    Ok(())
}
