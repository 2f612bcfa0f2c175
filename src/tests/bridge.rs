//! The bridge, from Rust: a coroutine as a future and a future as an awaitable, on a real lane.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once, mpsc};

use crate::bridge::{
    Home, LaneHandle, after_python, into_async_iterator, into_awaitable, into_future, into_stream,
};
use crate::lane::Lane;
use futures_util::{FutureExt, StreamExt};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyModule};

/// Makes `treadle.loop` importable without the rest of the package.
const SETUP: &std::ffi::CStr = c_str!(
    r#"
import sys, types, pathlib
if "treadle" not in sys.modules:
    package = types.ModuleType("treadle")
    package.__path__ = [str(pathlib.Path(root) / "python" / "treadle")]
    sys.modules["treadle"] = package
    sys.modules["treadle._treadle"] = native
"#
);

const COROUTINES: &std::ffi::CStr = c_str!(
    r#"
import asyncio

log = []

async def value(x):
    return x

async def later(x):
    await asyncio.sleep(0)
    return x

async def fails():
    await asyncio.sleep(0)
    raise ValueError("on purpose")

async def forever(started, ended):
    try:
        started()
        await asyncio.get_running_loop().create_future()
    finally:
        ended()

async def awaits(awaitable):
    return await awaitable

async def current():
    first = asyncio.current_task()
    await asyncio.sleep(0)
    return first is asyncio.current_task() and isinstance(first, asyncio.Task)
"#
);

/// Once: tests run on several threads, and an import that is half done is no import.
fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        Python::initialize();
        Python::attach(set_up);
    });
}

fn set_up(py: Python<'_>) {
    let locals = PyDict::new(py);
    locals.set_item("root", env!("CARGO_MANIFEST_DIR")).unwrap();
    locals.set_item("native", pyo3::wrap_pymodule!(crate::_treadle)(py)).unwrap();
    py.run(SETUP, Some(&locals), None).unwrap();
    py.import("treadle.loop").unwrap();
    coroutines(py);
}

fn coroutines(py: Python<'_>) -> Bound<'_, PyModule> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let make = || {
        PyModule::from_code(py, COROUTINES, c_str!("coroutines.py"), c_str!("coroutines"))
            .unwrap()
            .unbind()
    };
    MODULE.get_or_init(py, make).bind(py).clone()
}

type Work<R> = Pin<Box<dyn Future<Output = R>>>;

/// What a test has on its lane.
struct OnLane {
    coroutines: Py<PyModule>,
}

impl OnLane {
    fn coroutine<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        args: impl pyo3::call::PyCallArgs<'py>,
    ) -> Py<PyAny> {
        self.coroutines.bind(py).getattr(name).unwrap().call1(args).unwrap().unbind()
    }
}

/// Runs the future that `body` makes on a new lane, with its loop running, until it is done.
fn on_lane<R: Send + 'static>(
    body: impl FnOnce(Python<'_>, OnLane) -> Work<R> + Send + 'static,
) -> R {
    with_lane(|_| {}, body)
}

/// The same; `outside` gets the lane's handle first, to use it from other threads.
fn with_lane<R: Send + 'static>(
    outside: impl FnOnce(LaneHandle) + Send + 'static,
    body: impl FnOnce(Python<'_>, OnLane) -> Work<R> + Send + 'static,
) -> R {
    prepare();
    std::thread::spawn(move || {
        Python::attach(|py| {
            let lane = py.get_type::<Lane>().call1((0,)).unwrap().cast_into::<Lane>().unwrap();
            let class = py.import("treadle.loop").unwrap().getattr("EventLoop").unwrap();
            let event_loop = class.call1((&lane,)).unwrap();
            outside(lane.get().handle());
            let result = Arc::new(Mutex::new(None));
            let (body, slot) = (Mutex::new(Some(body)), result.clone());
            let target = event_loop.clone().unbind();
            let start = PyCFunction::new_closure(py, None, None, move |args, _| {
                let py = args.py();
                let on_lane = OnLane { coroutines: coroutines(py).unbind() };
                let work = (body.lock().unwrap().take().unwrap())(py, on_lane);
                let (slot, target) = (slot.clone(), target.clone_ref(py));
                tokio::task::spawn_local(async move {
                    let outcome = work.await;
                    *slot.lock().unwrap() = Some(outcome);
                    Python::attach(|py| {
                        let stop = target.getattr(py, "stop").unwrap();
                        target.call_method1(py, "call_soon", (stop,)).unwrap();
                        after_python(py);
                    });
                });
            })
            .unwrap();
            event_loop.call_method1("call_soon", (start,)).unwrap();
            event_loop.call_method0("run_forever").unwrap();
            event_loop.call_method0("close").unwrap();
            let outcome = result.lock().unwrap().take();
            outcome.unwrap()
        })
    })
    .join()
    .unwrap()
}

fn number(value: &Py<PyAny>) -> i64 {
    Python::attach(|py| value.extract(py).unwrap())
}

#[test]
fn a_coroutine_that_never_suspends_is_ready_at_once() {
    let ready = on_lane(|py, lane| {
        let coroutine = lane.coroutine(py, "value", (7,));
        let future = into_future(coroutine.bind(py));
        let outcome = future.now_or_never().map(|outcome| number(&outcome.unwrap()));
        Box::pin(async move { outcome })
    });
    assert_eq!(ready, Some(7));
}

#[test]
fn a_coroutine_that_suspends_resolves_later() {
    let value = on_lane(|py, lane| {
        let future = into_future(lane.coroutine(py, "later", (8,)).bind(py));
        Box::pin(async move { number(&future.await.unwrap()) })
    });
    assert_eq!(value, 8);
}

#[test]
fn what_asyncio_keeps_for_a_thread_is_found_since_cpython_3_14() {
    let (known, expected) = on_lane(|py, lane| {
        let future = into_future(lane.coroutine(py, "value", (7,)).bind(py));
        let home = Home::current(py).unwrap();
        let expected = py.version_info() >= (3, 14) && py.version_info() < (3, 15);
        Box::pin(async move {
            future.await.unwrap();
            (home.knows_thread(), expected)
        })
    });
    assert_eq!(known, expected);
}

#[test]
fn the_current_task_is_the_same_before_and_after_a_suspension() {
    let same = on_lane(|py, lane| {
        let future = into_future(lane.coroutine(py, "current", ()).bind(py));
        Box::pin(async move {
            let same = future.await.unwrap();
            Python::attach(|py| same.extract::<bool>(py).unwrap())
        })
    });
    assert!(same);
}

#[test]
fn an_exception_comes_with_its_traceback() {
    on_lane(|py, lane| {
        let future = into_future(lane.coroutine(py, "fails", ()).bind(py));
        Box::pin(async move {
            let error = future.await.unwrap_err();
            Python::attach(|py| {
                assert!(error.is_instance_of::<PyValueError>(py));
                let trace = error.traceback(py).unwrap().format().unwrap();
                assert!(trace.contains("in fails"), "{trace}");
            });
        })
    });
}

#[test]
fn what_crosses_threads_is_send_by_type() {
    fn is_send<T: Send>() {}
    is_send::<crate::bridge::CoroutineFuture>();
    is_send::<crate::bridge::RemoteFuture>();
    is_send::<crate::bridge::PyStream>();
}

#[test]
fn polled_on_another_thread_a_future_is_an_error_and_goes_home() {
    let (ended, when_ended) = tokio::sync::oneshot::channel();
    on_lane(move |py, lane| {
        let ended = Mutex::new(Some(ended));
        let nothing = PyCFunction::new_closure(py, None, None, |_, _| {}).unwrap();
        let end = PyCFunction::new_closure(py, None, None, move |_, _| {
            ended.lock().unwrap().take().map(|ended| ended.send(()));
        })
        .unwrap();
        let coroutine = lane.coroutine(py, "forever", (nothing, end));
        let future = into_future(coroutine.bind(py));
        let other = std::thread::Builder::new().name("other".to_owned());
        let polled = py.detach(|| {
            other.spawn(move || future.now_or_never().map(Result::unwrap_err)).unwrap().join()
        });
        let error = polled.unwrap().unwrap().to_string();
        assert!(error.contains("belongs to lane 0"), "{error}");
        Box::pin(async move { when_ended.await.unwrap() })
    });
}

#[test]
fn a_panic_is_an_error_where_it_is_awaited() {
    on_lane(|py, lane| {
        let awaitable = into_awaitable(py, async { panic!("on purpose") }).unwrap().unbind();
        let future = into_future(lane.coroutine(py, "awaits", (awaitable,)).bind(py));
        Box::pin(async move {
            let error = future.await.unwrap_err();
            assert_eq!(error.to_string(), "RuntimeError: a Rust future panicked: on purpose");
        })
    });
}

#[test]
fn futures_of_the_lanes_own_tokio_wake_the_coroutine() {
    on_lane(|py, lane| {
        let awaitable = into_awaitable(py, async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            Ok(Python::attach(|py| py.None()))
        });
        let awaitable = awaitable.unwrap().unbind();
        let future = into_future(lane.coroutine(py, "awaits", (awaitable,)).bind(py));
        Box::pin(async move { assert!(future.await.is_ok()) })
    });
}

#[test]
fn streams_go_there_and_back() {
    on_lane(|py, _| {
        let numbers = futures_util::stream::iter(0..3)
            .map(|n: i64| Python::attach(|py| Ok(n.into_pyobject(py)?.into_any().unbind())));
        let iterator = into_async_iterator(py, numbers).unwrap();
        let back = into_stream(&iterator);
        Box::pin(async move {
            let found: Vec<i64> = back.map(|item| number(&item.unwrap())).collect().await;
            assert_eq!(found, [0, 1, 2]);
        })
    });
}

#[test]
fn dropping_the_future_cancels_the_coroutine() {
    let (ended, when_ended) = tokio::sync::oneshot::channel();
    on_lane(move |py, lane| {
        let ended = Mutex::new(Some(ended));
        let nothing = PyCFunction::new_closure(py, None, None, |_, _| {}).unwrap();
        let end = PyCFunction::new_closure(py, None, None, move |_, _| {
            ended.lock().unwrap().take().map(|ended| ended.send(()));
        })
        .unwrap();
        let coroutine = lane.coroutine(py, "forever", (nothing, end));
        drop(into_future(coroutine.bind(py)));
        Box::pin(async move { when_ended.await.unwrap() })
    });
}

#[test]
fn a_rust_future_is_awaited_by_a_coroutine() {
    let value = on_lane(|py, lane| {
        let (sender, receiver) = tokio::sync::oneshot::channel::<i64>();
        let awaitable = into_awaitable(py, async move {
            let value = receiver.await.unwrap();
            Python::attach(|py| Ok(value.into_pyobject(py)?.into_any().unbind()))
        })
        .unwrap()
        .unbind();
        let coroutine = lane.coroutine(py, "awaits", (awaitable,));
        let future = into_future(coroutine.bind(py));
        Box::pin(async move {
            sender.send(9).unwrap();
            number(&future.await.unwrap())
        })
    });
    assert_eq!(value, 9);
}

#[test]
fn the_error_of_a_rust_future_is_raised_where_it_is_awaited() {
    on_lane(|py, lane| {
        let awaitable = into_awaitable(py, async move {
            tokio::task::yield_now().await;
            Err(PyValueError::new_err("from Rust"))
        })
        .unwrap()
        .unbind();
        let coroutine = lane.coroutine(py, "awaits", (awaitable,));
        let future = into_future(coroutine.bind(py));
        Box::pin(async move {
            let error = future.await.unwrap_err();
            assert_eq!(error.to_string(), "ValueError: from Rust");
        })
    });
}

#[test]
fn cancelling_the_awaiting_task_drops_the_rust_future() {
    on_lane(|py, lane| {
        let (alive, dropped) = tokio::sync::oneshot::channel::<()>();
        let awaitable = into_awaitable(py, async move {
            let _alive = alive;
            std::future::pending::<()>().await;
            Ok(Python::attach(|py| py.None()))
        })
        .unwrap()
        .unbind();
        let coroutine = lane.coroutine(py, "awaits", (awaitable,));
        drop(into_future(coroutine.bind(py)));
        Box::pin(async move { assert!(dropped.await.is_err(), "the sender went away unsent") })
    });
}

#[test]
fn another_thread_spawns_a_coroutine_and_gets_its_outcome() {
    let (handles, receive) = mpsc::channel::<LaneHandle>();
    let (running, when_running) = mpsc::channel::<()>();
    let (done, when_done) = tokio::sync::oneshot::channel();
    let other = std::thread::spawn(move || {
        let handle = receive.recv().unwrap();
        when_running.recv().unwrap();
        let future = handle.spawn(|py| Ok(coroutines(py).getattr("later")?.call1((11,))?.unbind()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        done.send(number(&runtime.block_on(future).unwrap())).unwrap();
    });
    let value = with_lane(
        move |handle| handles.send(handle).unwrap(),
        move |_, _| {
            running.send(()).unwrap();
            Box::pin(async move { when_done.await.unwrap() })
        },
    );
    other.join().unwrap();
    assert_eq!(value, 11);
}

#[test]
fn a_lane_that_does_not_run_refuses_a_coroutine() {
    let (handles, receive) = mpsc::channel::<LaneHandle>();
    with_lane(move |handle| handles.send(handle).unwrap(), |_, _| Box::pin(async {}));
    let handle = receive.recv().unwrap();
    let refused = handle.spawn(|py| Ok(py.None())).now_or_never().unwrap().unwrap_err();
    Python::attach(|py| assert!(refused.is_instance_of::<PyRuntimeError>(py)));
}
