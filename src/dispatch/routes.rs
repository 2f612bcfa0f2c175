//! The routes of an application, as they are registered.

use pyo3::prelude::*;

use crate::app::Route;
use crate::router::Table;

/// The routes of an application, checked against each other as they are added.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct RouteTable {
    inner: std::sync::Mutex<(Table, Vec<Py<Route>>)>,
}

#[pymethods]
impl RouteTable {
    #[new]
    #[pyo3(signature = (*, redirect_slashes=false))]
    fn new(redirect_slashes: bool) -> Self {
        Self { inner: std::sync::Mutex::new((Table::new(redirect_slashes), Vec::new())) }
    }

    /// Adds a route; gives the origin of the one it collides with instead, if there is one.
    fn add(&self, py: Python<'_>, route: Py<Route>) -> Option<String> {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (table, routes) = &mut *inner;
        let mut next = table.clone();
        for method in &route.get().methods {
            if let Err(conflict) = next.insert(method, &route.get().pattern, routes.len()) {
                let known = routes.get(conflict.with).map(|route| route.get().describe(py));
                return Some(known.unwrap_or_else(|| {
                    format!("the routes of {method}: this path cannot stand beside theirs")
                }));
            }
        }
        *table = next;
        routes.push(route);
        None
    }

    /// All routes, in the order they were added.
    fn routes(&self, py: Python<'_>) -> Vec<Py<Route>> {
        self.snapshot(py).1
    }
}

impl RouteTable {
    /// A copy of what is there now.
    pub fn snapshot(&self, py: Python<'_>) -> (Table, Vec<Py<Route>>) {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (inner.0.clone(), inner.1.iter().map(|route| route.clone_ref(py)).collect())
    }
}
