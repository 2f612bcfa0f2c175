//! The first step of a handler's Task.
//!
//! Most handlers end in it with a plain answer. Until it is clear that this one does not, its
//! request stays with the connection, as it does for a sync handler; a [`Call`] is made, and takes
//! the head away, when something is to last: the Task suspended, or more is to be done in it than
//! to send what the handler returned.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use http::request::Parts;
use pyo3::prelude::*;

use super::call::Call;
use super::conclude::Given;
use super::{Answer, Dispatcher};
use crate::app::{Plan, Reply};
use crate::bridge::{Completion, Next, Scope};
use crate::http::{ConnectionInfo, Outgoing};
use crate::router::PathParams;

/// A request of which nobody can keep the head yet.
pub(super) struct First<'a> {
    dispatcher: &'a Rc<Dispatcher>,
    plan: &'a Rc<Plan>,
    parts: RefCell<&'a mut Parts>,
    params: &'a PathParams<'a, 'a>,
    connection: &'a ConnectionInfo,
    reply: Cell<Option<Outgoing>>,
    call: OnceCell<Rc<Call>>,
}

impl<'a> First<'a> {
    pub(super) fn new(
        dispatcher: &'a Rc<Dispatcher>,
        plan: &'a Rc<Plan>,
        parts: &'a mut Parts,
        params: &'a PathParams<'a, 'a>,
        connection: &'a ConnectionInfo,
    ) -> Self {
        Self {
            dispatcher,
            plan,
            parts: RefCell::new(parts),
            params,
            connection,
            reply: Cell::default(),
            call: OnceCell::new(),
        }
    }

    /// What lasts beyond the first step.
    fn call(&self) -> &Rc<Call> {
        self.call.get_or_init(|| {
            let dispatcher = self.dispatcher;
            let mut parts = self.parts.borrow_mut();
            let head = dispatcher.keep(self.plan, &mut parts, self.params, self.connection);
            Rc::new(Call::new(dispatcher.clone(), self.plan.clone(), head, None))
        })
    }

    /// Runs the handler's coroutine.
    pub(super) fn run(self, py: Python<'_>, coroutine: Bound<'_, PyAny>) -> Answer {
        let core = &self.dispatcher.core;
        let lasting = || self.call().clone() as Rc<dyn Completion>;
        let started = core.spare_context.take(py).and_then(|context| {
            let scope = Scope::Own(context.clone());
            let waiting = core.tasks.start(py, coroutine.unbind(), scope, &self, lasting)?;
            core.spare_context.put(context);
            Ok(waiting)
        });
        match started {
            Ok(None) => match self.call.into_inner() {
                None => Answer::Ready(self.reply.into_inner()),
                Some(call) => call.ended(),
            },
            Ok(Some(waiting)) => self.call().clone().wait(waiting),
            Err(error) => Answer::Ready(Some(self.call().fail(py, error))),
        }
    }
}

impl Completion for First<'_> {
    fn complete(&self, py: Python<'_>, outcome: &PyResult<Bound<'_, PyAny>>) -> Next {
        match (self.call.get(), outcome) {
            (None, Ok(_)) => match self.dispatcher.given(py, self.plan, outcome) {
                Ok(Given::Reply(Reply::Plain(plain))) => {
                    self.reply.set(Some(plain.into()));
                    Next::Done
                }
                given => self.call().take(py, given),
            },
            (_, outcome) => self.call().complete(py, outcome),
        }
    }
}
