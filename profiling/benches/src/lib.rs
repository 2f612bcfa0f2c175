//! What the micro-benchmarks share: an interpreter with treadle in it, and a lane to work on.
//!
//! Each benchmark is a program of its own (`cargo bench --bench router`) that embeds the
//! interpreter PYO3_PYTHON names. They measure pieces; what the pieces add up to, the comparison
//! does.

use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::sync::{Mutex, Once};
use std::time::Duration;

use _treadle::bridge::{CoroutineFuture, into_future};
use _treadle::lane::Lane;
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule};

const SETUP: &std::ffi::CStr = c_str!(
    r#"
import sys, types, pathlib
package = types.ModuleType("treadle")
package.__path__ = [str(pathlib.Path(root) / "python" / "treadle")]
sys.modules["treadle"] = package
sys.modules["treadle._treadle"] = native
"#
);

/// Starts the interpreter and makes `treadle.loop` importable there.
pub fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        Python::initialize();
        Python::attach(|py| {
            let locals = PyDict::new(py);
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
            locals.set_item("root", root).unwrap();
            locals.set_item("native", pyo3::wrap_pymodule!(_treadle::_treadle)(py)).unwrap();
            py.run(SETUP, Some(&locals), None).unwrap();
            py.import("treadle.loop").unwrap();
        });
    });
}

/// Python source as a module.
pub fn module<'py>(py: Python<'py>, source: &std::ffi::CStr) -> Bound<'py, PyModule> {
    PyModule::from_code(py, source, c_str!("measured.py"), c_str!("measured")).unwrap()
}

/// What a measurement has on its lane.
pub struct OnLane {
    /// The lane's event loop.
    pub event_loop: Py<PyAny>,
}

impl OnLane {
    /// A coroutine as a Rust future, started.
    pub fn start(&self, py: Python<'_>, coroutine: Py<PyAny>) -> CoroutineFuture {
        into_future(coroutine.bind(py))
    }
}

type Work = Pin<Box<dyn Future<Output = Duration>>>;

/// Runs what `measure` makes on a new lane, with its loop running, and gives the time it took.
pub fn on_lane(measure: impl FnOnce(Python<'_>, OnLane) -> Work + Send + 'static) -> Duration {
    prepare();
    std::thread::spawn(move || Python::attach(|py| run(py, measure))).join().unwrap()
}

fn run(
    py: Python<'_>,
    measure: impl FnOnce(Python<'_>, OnLane) -> Work + Send + 'static,
) -> Duration {
    let lane = py.get_type::<Lane>().call1((0,)).unwrap();
    let class = py.import("treadle.loop").unwrap().getattr("EventLoop").unwrap();
    let event_loop = class.call1((&lane,)).unwrap();
    let (sender, receiver) = mpsc::channel();
    let (measure, target) = (Mutex::new(Some(measure)), event_loop.clone().unbind());
    let start = PyCFunction::new_closure(py, None, None, move |args, _| {
        let py = args.py();
        let measure = measure.lock().unwrap().take().unwrap();
        let work = measure(py, OnLane { event_loop: target.clone_ref(py) });
        let (sender, target) = (sender.clone(), target.clone_ref(py));
        tokio::task::spawn_local(async move {
            sender.send(work.await).unwrap();
            Python::attach(|py| {
                let stop = target.getattr(py, "stop").unwrap();
                target.call_method1(py, "call_soon", (stop,)).unwrap();
            });
        });
    })
    .unwrap();
    event_loop.call_method1("call_soon", (start,)).unwrap();
    event_loop.call_method0("run_forever").unwrap();
    event_loop.call_method0("close").unwrap();
    receiver.recv().unwrap()
}
