//! Asynchronous iterators as streams, and streams as asynchronous iterators.
//!
//! # Who owns what
//!
//! [`PyStream`]: the whole iteration runs in one Task, so that `asyncio.timeout`, `TaskGroup` and
//! `ContextVar`s inside a generator see the same Task from step to step. The Task pumps items into
//! a pipe of one place and waits there until the next is asked for: nothing is produced ahead of
//! demand. Dropping the stream cancels the Task, and the pump closes the generator.
//!
//! [`RustStream`]: the stream is shared between the iterator and the awaitable of the item that is
//! being waited for; cancelling that leaves the stream as it is, `aclose()` drops it and ends the
//! waiting.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::Stream;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyTypeError};
use pyo3::prelude::*;

use super::awaitable::into_awaitable;
use super::future::{CoroutineFuture, into_future_at};
use super::home::Home;
use super::homebound::Homebound;
use super::start::helper;

type Item = PyResult<Py<PyAny>>;

/// An asynchronous iterator as a stream of this thread's; dropping it ends the iteration.
#[must_use = "dropping it closes the iterator"]
pub struct PyStream(State);

enum State {
    Failed(Option<PyErr>),
    Open(Homebound<Iteration>),
}

struct Iteration {
    home: Rc<Home>,
    pipe: Rc<Pipe>,
    phase: RefCell<Phase>,
}

enum Phase {
    /// Nobody has asked for an item yet.
    New(Py<PyAny>),
    /// The Task that iterates.
    Running(CoroutineFuture),
    /// It ended with this, after an item that nobody had taken yet.
    Failed(PyErr),
    Ended,
}

/// Between the Task and the stream: room for one item.
#[derive(Default)]
struct Pipe {
    item: RefCell<Option<Py<PyAny>>>,
    /// The stream was asked for an item that is not there yet.
    wanted: Cell<bool>,
    producer: RefCell<Option<Waker>>,
    consumer: RefCell<Option<Waker>>,
}

/// An asynchronous iterable (a generator, say) as a stream on this thread's loop.
///
/// The first poll starts it. Its body runs in one Task, in a copy of the context of this call's
/// thread at that moment. The stream ends after the first error. Dropping it cancels what the
/// generator is awaiting and closes it (`aclose`). As [`into_future`](super::into_future), it is
/// `Send` by type and works on its own thread.
pub fn into_stream(iterable: &Bound<'_, PyAny>) -> PyStream {
    let py = iterable.py();
    let check = || {
        if !iterable.hasattr(pyo3::intern!(py, "__aiter__"))? {
            return Err(PyTypeError::new_err(format!(
                "'async for' requires an object with __aiter__ method, got {}",
                iterable.get_type().name()?
            )));
        }
        Home::current(py)
    };
    match check() {
        Err(error) => PyStream(State::Failed(Some(error))),
        Ok(home) => {
            let iteration = Iteration {
                home: home.clone(),
                pipe: Rc::default(),
                phase: RefCell::new(Phase::New(iterable.clone().unbind())),
            };
            PyStream(State::Open(Homebound::new(&home, iteration)))
        }
    }
}

impl Stream for PyStream {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let open = match &mut self.get_mut().0 {
            State::Failed(error) => return Poll::Ready(error.take().map(Err)),
            State::Open(open) => open,
        };
        match open.get_or_refuse("this stream") {
            Ok(iteration) => iteration.poll_next(cx),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl Iteration {
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let phase = self.phase.replace(Phase::Ended);
        let mut task = match phase {
            Phase::Ended => return Poll::Ready(None),
            Phase::Failed(error) => return Poll::Ready(Some(Err(error))),
            Phase::Running(task) => {
                self.pipe.want(cx.waker());
                task
            }
            Phase::New(iterable) => {
                self.pipe.want(cx.waker());
                match Python::attach(|py| self.start(iterable.bind(py))) {
                    Ok(task) => task,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                }
            }
        };
        let ended = Pin::new(&mut task).poll(cx);
        // An item counts first: a generator's last one may come together with its end.
        if let Some(item) = self.pipe.item.take() {
            self.pipe.wanted.set(false);
            self.phase.replace(match ended {
                Poll::Pending => Phase::Running(task),
                Poll::Ready(Ok(_)) => Phase::Ended,
                Poll::Ready(Err(error)) => Phase::Failed(error),
            });
            return Poll::Ready(Some(Ok(item)));
        }
        match ended {
            Poll::Pending => {
                self.phase.replace(Phase::Running(task));
                Poll::Pending
            }
            Poll::Ready(Ok(_)) => Poll::Ready(None),
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
        }
    }

    fn start(&self, iterable: &Bound<'_, PyAny>) -> PyResult<CoroutineFuture> {
        let put =
            Bound::new(iterable.py(), Put { pipe: Homebound::new(&self.home, self.pipe.clone()) })?;
        let pump = helper(iterable.py(), "pump")?.call1((iterable, put))?;
        Ok(into_future_at(&self.home, &pump))
    }
}

impl Pipe {
    fn want(&self, waker: &Waker) {
        self.consumer.replace(Some(waker.clone()));
        if self.item.borrow().is_none() {
            self.wanted.set(true);
            if let Some(producer) = self.producer.take() {
                producer.wake();
            }
        }
    }
}

/// What the pump puts items into; the awaitable is done when the next one is asked for.
#[pyclass(frozen, module = "treadle._treadle")]
pub(super) struct Put {
    pipe: Homebound<Rc<Pipe>>,
}

#[pymethods]
impl Put {
    fn __call__<'py>(&self, py: Python<'py>, item: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let pipe = self.pipe.get_or_refuse("this stream")?.clone();
        pipe.wanted.set(false);
        pipe.item.replace(Some(item));
        if let Some(consumer) = pipe.consumer.take() {
            consumer.wake();
        }
        into_awaitable(
            py,
            poll_fn(move |cx| {
                if pipe.wanted.get() {
                    return Poll::Ready(Ok(Python::attach(|py| py.None())));
                }
                pipe.producer.replace(Some(cx.waker().clone()));
                Poll::Pending
            }),
        )
    }
}

type BoxedStream = Pin<Box<dyn Stream<Item = Item>>>;

/// A Rust stream as an asynchronous iterator on the loop that runs on the calling thread.
///
/// The object has `__aiter__`, `__anext__` and `aclose`; it works with `async for` and
/// `contextlib.aclosing`. The stream is polled within the awaiting Task. It is dropped when it
/// ends or fails, by `aclose()`, and with the object. Cancelling a Task that waits for an item
/// leaves the stream as it is; `aclose()` meanwhile ends the iteration there, too. A panic becomes a `RuntimeError` and ends it.
///
/// # Errors
/// `RuntimeError` when no event loop runs on this thread.
pub fn into_async_iterator(
    py: Python<'_>,
    stream: impl Stream<Item = Item> + 'static,
) -> PyResult<Bound<'_, PyAny>> {
    let home = Home::current(py)?;
    let stream: BoxedStream = Box::pin(stream);
    let shared = Rc::new(RefCell::new(Source::Ready(stream)));
    Ok(Bound::new(py, RustStream { source: Homebound::new(&home, shared) })?.into_any())
}

enum Source {
    Ready(BoxedStream),
    /// Lent to the awaitable of the next item, which waits with this.
    Lent(Option<Waker>),
    /// Lent, and to be dropped rather than given back.
    Closing,
    Ended,
}

/// A Rust stream that Python iterates over.
#[pyclass(frozen, weakref, module = "treadle._treadle")]
pub struct RustStream {
    source: Homebound<Rc<RefCell<Source>>>,
}

/// A stream taken out for one item; gives it back when dropped.
struct Loan {
    source: Rc<RefCell<Source>>,
    stream: Option<BoxedStream>,
}

impl Loan {
    fn take(source: &Rc<RefCell<Source>>) -> PyResult<Option<Self>> {
        let mut slot = source.borrow_mut();
        match std::mem::replace(&mut *slot, Source::Lent(None)) {
            Source::Ready(stream) => {
                Ok(Some(Self { source: source.clone(), stream: Some(stream) }))
            }
            Source::Ended => {
                *slot = Source::Ended;
                Ok(None)
            }
            busy => {
                *slot = busy;
                Err(PyRuntimeError::new_err("anext(): asynchronous generator is already running"))
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        if self.is_closing() {
            return Poll::Ready(None);
        }
        // Taken out while it is polled: one that panics is not given back.
        let Some(mut stream) = self.stream.take() else { return Poll::Ready(None) };
        let polled = stream.as_mut().poll_next(cx);
        if !matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.stream = Some(stream);
        }
        if polled.is_pending() && !self.is_closing() {
            self.source.replace(Source::Lent(Some(cx.waker().clone())));
        }
        polled
    }

    fn is_closing(&self) -> bool {
        matches!(*self.source.borrow(), Source::Closing)
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let closing = self.is_closing();
        let next = match self.stream.take() {
            Some(stream) if !closing => Source::Ready(stream),
            ended => {
                drop(ended);
                Source::Ended
            }
        };
        self.source.replace(next);
    }
}

#[pymethods]
impl RustStream {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let source = self.source.get_or_refuse("this stream")?.clone();
        into_awaitable(py, async move {
            let Some(mut loan) = Loan::take(&source)? else {
                return Err(PyStopAsyncIteration::new_err(()));
            };
            match poll_fn(|cx| loan.poll(cx)).await {
                Some(item) => item,
                None => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }

    /// Awaitable: drops the stream; iterating goes no further. Who waits for an item is told so.
    fn aclose<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let source = self.source.get_or_refuse("this stream")?.clone();
        into_awaitable(py, async move {
            let busy = matches!(*source.borrow(), Source::Lent(_) | Source::Closing);
            let last = source.replace(if busy { Source::Closing } else { Source::Ended });
            match last {
                Source::Lent(Some(waiting)) => waiting.wake(),
                idle => drop(idle),
            }
            Ok(Python::attach(|py| py.None()))
        })
    }
}
