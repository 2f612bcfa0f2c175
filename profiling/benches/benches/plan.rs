//! A plan: arguments made of a request, and what the calls' JSON bodies become.

use std::hint::black_box;
use std::sync::OnceLock;

use _treadle::app::{Input, Param, Plan, RequestHead, Route};
use _treadle::router::{Lookup, Pattern, Register};
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method, Version};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use treadle_benches::prepare;

fn param<'py>(py: Python<'py>, alias: &str, source: &str, scalar: &str) -> Bound<'py, PyAny> {
    let options = PyDict::new(py);
    options.set_item("scalar", scalar).unwrap();
    py.get_type::<Param>().call((alias, source), Some(&options)).unwrap()
}

fn plan(py: Python<'_>, path: &str, params: &[Bound<'_, PyAny>]) -> Plan {
    let options = PyDict::new(py);
    options.set_item("mode", "inline").unwrap();
    options.set_item("params", PyList::new(py, params).unwrap()).unwrap();
    options.set_item("origin", "bench").unwrap();
    let handler = py.get_type::<PyDict>();
    let route = py.get_type::<Route>().call((path, ["GET"], handler), Some(&options)).unwrap();
    route.cast::<Route>().unwrap().get().plan_for_lane(py).unwrap()
}

fn head(target: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        uri: target.parse().unwrap(),
        version: Version::HTTP_11,
        headers: HeaderMap::new(),
        client: None,
        path_params: OnceLock::new(),
        id: 1,
    }
}

fn arguments(criterion: &mut Criterion) {
    prepare();
    Python::attach(|py| {
        let mut group = criterion.benchmark_group("plan");
        let nothing = py.None();
        for (name, params, target) in [
            ("no parameter", vec![], "/"),
            ("path int", vec![param(py, "id", "path", "int")], "/12345"),
            (
                "path int, query str and int",
                vec![
                    param(py, "id", "path", "int"),
                    param(py, "q", "query", "str"),
                    param(py, "limit", "query", "int"),
                ],
                "/12345?q=hello&limit=5",
            ),
        ] {
            let pattern = if params.is_empty() { "/" } else { "/{id:int}" };
            let (plan, head) = (plan(py, pattern, &params), head(target));
            let mut register = Register::default();
            register.add(&[Method::GET], &Pattern::parse(pattern).unwrap(), 0).unwrap();
            let table = register.table();
            let Lookup::Found { params: path, .. } = table.find(&Method::GET, head.uri.path())
            else {
                panic!("{target} meets no route");
            };
            let input = Input {
                path: &path,
                head: (&head).into(),
                request: None,
                lane: &nothing,
                app: &nothing,
            };
            let made = plan.arguments(py, &input).ok().map(|made| made.len());
            assert_eq!(made, Some(params.len()));
            group.bench_function(name, |bencher| {
                bencher.iter(|| plan.arguments(py, black_box(&input)).ok().map(|made| made.len()));
            });
        }
        group.finish();
    });
}

criterion_group!(benches, arguments);
criterion_main!(benches);
