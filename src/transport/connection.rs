//! The task of a connection: waits for its socket, receives, sends.
//!
//! One reception a poll: a peer that always has more to say takes its place behind the others.
//!
//! The reactor's events are edges. What it last said stays true until a system call disproves it:
//! a call that would block, or a reception that did not fill its buffer and that nothing but the
//! end of the data can have ended ([`super::receive`]).

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pyo3::prelude::*;
use tokio::io::Interest;

use super::core::{TransportCore, timed};
use super::receive::{READS, receive};
use super::state::State;
use crate::bridge::after_python;
use crate::lane::note_work;
use crate::python::context;
use crate::python::socket::os_error;

/// The task's reference to its transport, taken away when the connection is lost.
pub(super) struct Holder(RefCell<Option<Py<TransportCore>>>);

impl Holder {
    pub(super) fn take(&self) -> Option<Py<TransportCore>> {
        self.0.borrow_mut().take()
    }
}

/// Starts the task of `transport`.
pub(super) fn spawn(transport: &Bound<'_, TransportCore>) -> Rc<Holder> {
    let holder = Rc::new(Holder(RefCell::new(Some(transport.clone().unbind()))));
    tokio::task::spawn_local(Connection { holder: holder.clone() });
    holder
}

struct Connection {
    holder: Rc<Holder>,
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Python::attach(|py| {
            let Some(held) = self.holder.0.borrow().as_ref().map(|held| held.bind(py).clone())
            else {
                return Poll::Ready(());
            };
            let Ok(state) = held.get().state() else {
                return Poll::Ready(());
            };
            note_work();
            set_waker(state, cx);
            let Some(context) = state.context(py) else {
                return Poll::Ready(());
            };
            let outcome =
                timed(&held, state, || context::run(&context, || drive(&held, state, cx)));
            state.receiving.set(false);
            TransportCore::raise_soon(&held, outcome);
            after_python(py);
            Poll::Pending
        })
    }
}

fn set_waker(state: &State, cx: &Context<'_>) {
    let mut waker = state.waker.borrow_mut();
    if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

/// One look at the socket.
fn drive(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    cx: &mut Context<'_>,
) -> PyResult<()> {
    if state.blocked.get() && poll_writable(state, cx) {
        state.blocked.set(false);
    }
    let mut looked = false;
    let mut outcome = Ok(());
    if state.reads() {
        let registration = state.registration.borrow().clone();
        if let Some(registration) = registration
            && let Poll::Ready(Ok(guard)) = registration.poll_read_ready(cx)
        {
            looked = true;
            state.receiving.set(true);
            outcome = receive(transport, state, guard);
            state.receiving.set(false);
        }
    }
    // An exception that ends the loop leaves the connection as it is: the loop may run again.
    outcome = outcome.and(TransportCore::send_now(transport, state));
    TransportCore::gather(transport, state);
    if state.blocked.get() && state.lost.get() == 0 {
        looked |= wait_to_send(transport, state, cx)?;
    }
    if looked && state.reads() {
        let registration = state.registration.borrow();
        if let Some(registration) = registration.as_ref()
            && registration.poll_read_ready(cx).is_ready()
        {
            cx.waker().wake_by_ref();
        }
    }
    outcome
}

fn poll_writable(state: &State, cx: &mut Context<'_>) -> bool {
    let registration = state.registration.borrow();
    registration
        .as_ref()
        .is_some_and(|socket| matches!(socket.poll_write_ready(cx), Poll::Ready(Ok(_))))
}

/// Has the task polled when the system takes bytes again; true when the socket was registered anew.
///
/// Only a connection that was once refused is watched for room to write: Unix sockets report it
/// whenever the peer has read something.
fn wait_to_send(
    transport: &Bound<'_, TransportCore>,
    state: &State,
    cx: &mut Context<'_>,
) -> PyResult<bool> {
    let mut renewed = false;
    if !state.watches_room.replace(true) {
        renewed = true;
        // Out before in: a socket is registered once.
        state.registration.replace(None);
        match state.socket.register(READS | Interest::WRITABLE) {
            Ok(registration) => {
                state.registration.replace(Some(Rc::new(registration)));
            }
            Err(error) => {
                state.outgoing.borrow_mut().clear();
                let error = os_error(transport.py(), error);
                TransportCore::fail(transport, error, "Fatal write error on socket transport")?;
                return Ok(false);
            }
        }
    }
    let registration = state.registration.borrow();
    if let Some(socket) = registration.as_ref() {
        // What was known before the refusal is out of date.
        if let Poll::Ready(Ok(mut guard)) = socket.poll_write_ready(cx) {
            guard.clear_ready();
        }
        if socket.poll_write_ready(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
    Ok(renewed)
}
