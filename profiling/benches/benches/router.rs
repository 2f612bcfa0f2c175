//! Finding a route: by how many there are, and by what kind it is.

use std::hint::black_box;

use _treadle::router::{Lookup, Pattern, Register, Table, plain};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Method;

fn table(routes: usize) -> Table {
    let mut register = Register::default();
    for number in 0..routes {
        for (at, path) in [format!("/plain{number}/all"), format!("/items{number}/{{id:int}}/part")]
            .iter()
            .enumerate()
        {
            let pattern = Pattern::parse(path).unwrap();
            register.add(&[Method::GET], &pattern, number * 2 + at).unwrap();
        }
    }
    register.table()
}

fn finding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("router");
    for routes in [1, 100, 5_000] {
        let table = table(routes);
        let last = routes - 1;
        for (kind, path) in [
            ("literal", format!("/plain{last}/all")),
            ("parameter", format!("/items{last}/12345/part")),
            ("missing", format!("/items{last}/12345/other")),
        ] {
            let found = matches!(table.find(&Method::GET, &path), Lookup::Found { .. });
            assert_eq!(found, kind != "missing");
            group.bench_with_input(BenchmarkId::new(kind, routes), &path, |bencher, path| {
                bencher.iter(|| {
                    let path = plain(black_box(path));
                    matches!(table.find(&Method::GET, &path), Lookup::Found { .. })
                });
            });
        }
    }
    group.bench_function("parse a pattern", |bencher| {
        bencher.iter(|| Pattern::parse(black_box("/users/{id:int}/files/{name}")).unwrap());
    });
    group.finish();
}

criterion_group!(benches, finding);
criterion_main!(benches);
