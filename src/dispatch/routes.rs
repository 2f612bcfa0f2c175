//! The routes of an application, as they are registered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use crate::app::Route;
use crate::router::{Register, Table};

/// The routes of an application, checked against each other as they are added.
#[pyclass(frozen, module = "treadle._treadle")]
pub struct RouteTable {
    inner: Mutex<(Register, Vec<Py<Route>>)>,
}

#[pymethods]
impl RouteTable {
    #[new]
    #[pyo3(signature = (*, redirect_slashes=false))]
    fn new(redirect_slashes: bool) -> Self {
        Self { inner: Mutex::new((Register::new(redirect_slashes), Vec::new())) }
    }

    /// Adds a route; gives the origin of the one it collides with instead, if there is one.
    fn add(&self, py: Python<'_>, route: Py<Route>) -> Option<String> {
        let mut inner = self.lock();
        let (register, routes) = &mut *inner;
        let added = route.get();
        if let Err(conflict) = register.add(&added.methods, &added.pattern, routes.len()) {
            let known = routes.get(conflict.with).map(|route| route.get().describe(py));
            return Some(known.unwrap_or_else(|| "methods that no route can have".to_owned()));
        }
        routes.push(route);
        None
    }

    /// All routes, in the order they were added.
    fn routes(&self, py: Python<'_>) -> Vec<Py<Route>> {
        let inner = self.lock();
        inner.1.iter().map(|route| route.clone_ref(py)).collect()
    }
}

impl RouteTable {
    fn lock(&self) -> MutexGuard<'_, (Register, Vec<Py<Route>>)> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is there now.
    pub fn snapshot(&self, py: Python<'_>) -> (Table, Vec<Py<Route>>) {
        let inner = self.lock();
        (inner.0.table(), inner.1.iter().map(|route| route.clone_ref(py)).collect())
    }
}
