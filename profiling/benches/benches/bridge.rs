//! A coroutine as a Rust future on its own lane, beside a bare `await` of the same coroutine.

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use treadle_benches::{module, on_lane, prepare};

const COROUTINES: &std::ffi::CStr = c_str!(
    r#"
import asyncio

async def ready():
    return 7

async def suspends():
    await asyncio.sleep(0)
    return 7

async def awaits(name, times):
    make = globals()[name]
    for _ in range(times):
        assert await make() == 7
"#
);

fn crossing(criterion: &mut Criterion) {
    prepare();
    let mut group = criterion.benchmark_group("bridge");
    for name in ["ready", "suspends"] {
        group.bench_function(format!("{name}: bare await"), |bencher| {
            bencher.iter_custom(|times| {
                on_lane(move |py, lane| {
                    let awaits = module(py, COROUTINES).getattr("awaits").unwrap();
                    let coroutine = awaits.call1((name, times)).unwrap().unbind();
                    Box::pin(async move {
                        let began = Instant::now();
                        Python::attach(|py| lane.start(py, coroutine)).await.unwrap();
                        began.elapsed()
                    })
                })
            });
        });
        group.bench_function(format!("{name}: Rust future"), |bencher| {
            bencher.iter_custom(|times| {
                on_lane(move |py, lane| {
                    let make = module(py, COROUTINES).getattr(name).unwrap().unbind();
                    Box::pin(async move {
                        let began = Instant::now();
                        for _ in 0..times {
                            let start = |py: Python<'_>| lane.start(py, make.call0(py).unwrap());
                            let value = Python::attach(start).await.unwrap();
                            Python::attach(|py| assert_eq!(value.extract::<i64>(py).unwrap(), 7));
                        }
                        began.elapsed()
                    })
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, crossing);
criterion_main!(benches);
