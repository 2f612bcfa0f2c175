//! The ready queue, timers and the way in from other threads, as callers of the loop see them.

use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use pyo3::ffi::c_str;
use pyo3::prelude::*;
use treadle_benches::{module, on_lane, prepare};

const LOADS: &std::ffi::CStr = c_str!(
    r#"
import asyncio, threading

def _nothing():
    pass

async def chain(times):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    def step(left):
        if left:
            loop.call_soon(step, left - 1)
        else:
            done.set_result(None)
    step(times)
    await done

async def burst(times):
    loop = asyncio.get_running_loop()
    for at in range(0, times, 1000):
        for _ in range(min(1000, times - at)):
            loop.call_soon(_nothing)
        await asyncio.sleep(0)

async def timers(times):
    loop = asyncio.get_running_loop()
    for _ in range(times):
        loop.call_later(60, _nothing).cancel()

async def threadsafe(times):
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    def push():
        for _ in range(times - 1):
            loop.call_soon_threadsafe(_nothing)
        loop.call_soon_threadsafe(done.set_result, None)
    thread = threading.Thread(target=push)
    thread.start()
    await done
    thread.join()
"#
);

fn loads(criterion: &mut Criterion) {
    prepare();
    let mut group = criterion.benchmark_group("queue");
    for (name, words) in [
        ("chain", "call_soon, one after the other"),
        ("burst", "call_soon, a thousand at once"),
        ("timers", "call_later and cancel"),
        ("threadsafe", "call_soon_threadsafe"),
    ] {
        group.bench_function(words, |bencher| {
            bencher.iter_custom(|times| {
                on_lane(move |py, lane| {
                    let load = module(py, LOADS).getattr(name).unwrap();
                    let coroutine = load.call1((times,)).unwrap().unbind();
                    Box::pin(async move {
                        let began = Instant::now();
                        Python::attach(|py| lane.start(py, coroutine)).await.unwrap();
                        began.elapsed()
                    })
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, loads);
criterion_main!(benches);
