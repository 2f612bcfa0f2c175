//! Rust futures for Python to await, and Rust code that awaits Python, by Treadle's bridge.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use _treadle::bridge::{
    CoroutineFuture, LaneHandle, PyStream, RemoteFuture, into_async_iterator, into_awaitable,
    into_future, into_stream, spawn,
};
use futures_util::{Stream, StreamExt, stream};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts the Rust futures that are neither done nor dropped.
struct Alive;

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Panics as it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

/// Tokio's threads, which are no lanes.
fn threads() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_time().build().expect("a runtime")
    })
}

/// Suspends once, woken at once.
fn suspend() -> impl Future<Output = ()> {
    let mut suspended = false;
    poll_fn(move |cx| {
        if std::mem::replace(&mut suspended, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Order {
    Finish(PyResult<Py<PyAny>>),
    Panic,
}

/// Ends the Rust future it came with; from any thread.
#[pyclass(frozen)]
struct Gate {
    sender: Mutex<Option<oneshot::Sender<Order>>>,
}

impl Gate {
    fn order(&self, order: Order) -> bool {
        lock(&self.sender).take().is_some_and(|sender| sender.send(order).is_ok())
    }
}

#[pymethods]
impl Gate {
    /// The future resolves to `value`; False when it is gone.
    fn open(&self, value: Py<PyAny>) -> bool {
        self.order(Order::Finish(Ok(value)))
    }

    /// The future fails with `error`.
    fn fail(&self, error: Bound<'_, PyAny>) -> bool {
        self.order(Order::Finish(Err(PyErr::from_value(error))))
    }

    /// The future panics.
    fn panic(&self) -> bool {
        self.order(Order::Panic)
    }
}

/// A future of a coroutine, held by Python: polled and dropped by hand.
#[pyclass(frozen)]
struct Held {
    future: Mutex<Option<CoroutineFuture>>,
}

#[pymethods]
impl Held {
    /// The outcome in a tuple; None while there is none.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<(Py<PyAny>,)>> {
        let _ = py;
        let mut future = lock(&self.future);
        let held = future.as_mut().ok_or_else(|| PyRuntimeError::new_err("dropped"))?;
        match Pin::new(held).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(None),
            Poll::Ready(outcome) => {
                future.take();
                outcome.map(|value| Some((value,)))
            }
        }
    }

    fn drop(&self) {
        let last = lock(&self.future).take();
        drop(last);
    }
}

/// The same from another thread.
#[pyclass(frozen)]
struct RemoteHeld {
    future: Mutex<Option<RemoteFuture>>,
}

#[pymethods]
impl RemoteHeld {
    /// Waits for the outcome, detached.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let future = lock(&self.future).take();
        let future = future.ok_or_else(|| PyRuntimeError::new_err("dropped"))?;
        py.detach(|| threads().block_on(future))
    }

    fn drop(&self) {
        let last = lock(&self.future).take();
        drop(last);
    }
}

/// A loop, for other threads.
#[pyclass(frozen)]
struct Loop {
    handle: LaneHandle,
}

#[pymethods]
impl Loop {
    /// Awaits `awaitable` there.
    fn start(&self, awaitable: &Bound<'_, PyAny>) -> RemoteHeld {
        RemoteHeld { future: Mutex::new(Some(self.handle.into_future(awaitable))) }
    }

    /// Awaits there what `make()` gives, called there.
    fn spawn(&self, make: Py<PyAny>) -> RemoteHeld {
        let future = self.handle.spawn(move |py| make.call0(py));
        RemoteHeld { future: Mutex::new(Some(future)) }
    }

    /// What is called there panics.
    fn panic(&self) -> RemoteHeld {
        RemoteHeld { future: Mutex::new(Some(self.handle.spawn(|_| panic!("on purpose")))) }
    }

    /// `spawn` and `wait` `times` over, one after the other, with nothing of Python on this thread.
    fn repeat(&self, py: Python<'_>, make: Py<PyAny>, times: usize) -> PyResult<()> {
        py.detach(|| {
            threads().block_on(async {
                for _ in 0..times {
                    let make = Python::attach(|py| make.clone_ref(py));
                    let value = self.handle.spawn(move |py| make.call0(py)).await?;
                    Python::attach(|_| drop(value));
                }
                Ok(())
            })
        })
    }
}

/// The stream of an asynchronous iterable, held by Python: polled and dropped by hand.
#[pyclass(frozen)]
struct HeldStream {
    stream: Mutex<Option<PyStream>>,
}

#[pymethods]
impl HeldStream {
    /// The next item in a list, an empty one at the end; None while there is none.
    fn poll(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        let _ = py;
        let mut stream = lock(&self.stream);
        let held = stream.as_mut().ok_or_else(|| PyRuntimeError::new_err("dropped"))?;
        match Pin::new(held).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(None),
            Poll::Ready(None) => Ok(Some(Vec::new())),
            Poll::Ready(Some(item)) => item.map(|item| Some(vec![item])),
        }
    }

    fn drop(&self) {
        let last = lock(&self.stream).take();
        drop(last);
    }
}

struct Counting {
    next: usize,
    end: usize,
    panic_at: Option<usize>,
    _alive: Alive,
}

impl Stream for Counting {
    type Item = PyResult<Py<PyAny>>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.next;
        assert!(self.panic_at != Some(next), "on purpose");
        self.next += 1;
        Poll::Ready(
            (next < self.end)
                .then(|| Python::attach(|py| Ok(next.into_pyobject(py)?.into_any().unbind()))),
        )
    }
}

#[pymodule(gil_used = false)]
mod probe {
    #[allow(clippy::wildcard_imports, reason = "a module in a module")]
    use super::*;

    #[pymodule_export]
    use super::{Gate, Held, HeldStream, Loop, RemoteHeld};
    #[pymodule_export]
    use _treadle::_treadle;

    /// Awaitable: `value`, without a suspension.
    #[pyfunction]
    fn ready(py: Python<'_>, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
        into_awaitable(py, async move { Ok(value) })
    }

    /// Awaitable: `value`, after one suspension.
    #[pyfunction]
    fn later(py: Python<'_>, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
        into_awaitable(py, async move {
            suspend().await;
            Ok(value)
        })
    }

    /// Awaitable: `value`, once a Tokio thread has been there.
    #[pyfunction]
    fn elsewhere(py: Python<'_>, value: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
        let (sender, receiver) = oneshot::channel();
        threads().spawn(async move { sender.send(()) });
        into_awaitable(py, async move {
            receiver.await.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
            Ok(value)
        })
    }

    /// Awaitable: nothing, after a time on the lane's own clock.
    #[pyfunction]
    fn sleep(py: Python<'_>, seconds: f64) -> PyResult<Bound<'_, PyAny>> {
        let alive = Alive::new();
        into_awaitable(py, async move {
            let _alive = alive;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Ok(Python::attach(|py| py.None()))
        })
    }

    /// Awaitable: never done; its future panics when it is dropped.
    #[pyfunction]
    fn bomb(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let bomb = Bomb;
        into_awaitable(py, async move {
            let _bomb = bomb;
            std::future::pending().await
        })
    }

    /// `(awaitable, gate)`: the gate says how it ends.
    #[pyfunction]
    fn gated(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Gate)> {
        let (sender, receiver) = oneshot::channel();
        Ok((into_awaitable(py, wait_for(receiver))?, Gate { sender: Mutex::new(Some(sender)) }))
    }

    /// `(Task, gate)`: the same, running whether or not it is awaited.
    #[pyfunction]
    fn spawned(py: Python<'_>) -> PyResult<(Bound<'_, PyAny>, Gate)> {
        let (sender, receiver) = oneshot::channel();
        Ok((spawn(py, wait_for(receiver))?, Gate { sender: Mutex::new(Some(sender)) }))
    }

    fn wait_for(
        receiver: oneshot::Receiver<Order>,
    ) -> impl Future<Output = PyResult<Py<PyAny>>> + Send {
        let alive = Alive::new();
        async move {
            let _alive = alive;
            match receiver.await {
                Ok(Order::Finish(outcome)) => outcome,
                Ok(Order::Panic) => panic!("on purpose"),
                Err(_) => Err(PyValueError::new_err("the gate was dropped")),
            }
        }
    }

    /// Awaitable: what `awaitable` gives; Rust stands between the two.
    #[pyfunction]
    fn call<'py>(awaitable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let alive = Alive::new();
        let inner = into_future(awaitable);
        into_awaitable(awaitable.py(), async move {
            let _alive = alive;
            inner.await
        })
    }

    /// Starts `awaitable` and holds its future.
    #[pyfunction]
    fn hold(awaitable: &Bound<'_, PyAny>) -> Held {
        Held { future: Mutex::new(Some(into_future(awaitable))) }
    }

    /// The loop that runs on this thread.
    #[pyfunction]
    fn current_loop(py: Python<'_>) -> PyResult<Loop> {
        Ok(Loop { handle: LaneHandle::current(py)? })
    }

    /// The stream of `iterable`, held.
    #[pyfunction]
    fn hold_stream(iterable: &Bound<'_, PyAny>) -> HeldStream {
        HeldStream { stream: Mutex::new(Some(into_stream(iterable))) }
    }

    /// Awaitable: a list of the first `limit` items of an asynchronous iterable.
    #[pyfunction]
    #[pyo3(signature = (iterable, limit=usize::MAX))]
    fn collect<'py>(iterable: &Bound<'py, PyAny>, limit: usize) -> PyResult<Bound<'py, PyAny>> {
        let mut items = into_stream(iterable);
        into_awaitable(iterable.py(), async move {
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(item) = items.next().await
            {
                found.push(item?);
            }
            drop(items);
            Python::attach(|py| Ok(found.into_pyobject(py)?.into_any().unbind()))
        })
    }

    /// An asynchronous iterator: 0 to `end - 1`, from a Rust stream.
    #[pyfunction]
    #[pyo3(signature = (end, *, panic_at=None))]
    fn count(py: Python<'_>, end: usize, panic_at: Option<usize>) -> PyResult<Bound<'_, PyAny>> {
        into_async_iterator(py, Counting { next: 0, end, panic_at, _alive: Alive::new() })
    }

    /// An asynchronous iterator that waits for its only item, for ever.
    #[pyfunction]
    fn waiting(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let alive = Alive::new();
        into_async_iterator(
            py,
            stream::once(async move {
                let _alive = alive;
                std::future::pending().await
            }),
        )
    }

    /// Seconds in which two sleeping threads wake each other `times` times: what the kernel takes.
    #[pyfunction]
    fn wake_ups(py: Python<'_>, times: usize) -> f64 {
        py.detach(|| {
            let (there, comes) = std::sync::mpsc::channel::<()>();
            let (back, returns) = std::sync::mpsc::channel::<()>();
            let other =
                std::thread::spawn(move || while comes.recv().is_ok() && back.send(()).is_ok() {});
            let began = std::time::Instant::now();
            for _ in 0..times {
                if there.send(()).is_err() || returns.recv().is_err() {
                    break;
                }
            }
            let taken = began.elapsed().as_secs_f64();
            drop(there);
            // It ends when nothing comes any more.
            let _ = other.join();
            taken
        })
    }

    /// Rust futures and streams that are neither done nor dropped.
    #[pyfunction]
    fn alive() -> usize {
        ALIVE.load(Ordering::SeqCst)
    }
}
