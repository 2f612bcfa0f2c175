//! The routes of an application, as they are registered.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::gc::{PyTraverseError, PyVisit};
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
    #[allow(clippy::needless_pass_by_value, reason = "extracted from a Python argument")]
    fn add(&self, py: Python<'_>, route: Py<Route>) -> Option<String> {
        let mut inner = self.lock();
        let (register, routes) = &mut *inner;
        add(py, register, routes, &route)
    }

    /// Adds routes, all or none; gives the position of one that collides, and the origin of what it
    /// collides with, instead, if there is one.
    #[allow(clippy::needless_pass_by_value, reason = "extracted from a Python list")]
    fn add_all(&self, py: Python<'_>, added: Vec<Py<Route>>) -> Option<(usize, String)> {
        let mut inner = self.lock();
        let mut register = inner.0.clone();
        let mut routes: Vec<_> = inner.1.iter().map(|route| route.clone_ref(py)).collect();
        for (position, route) in added.iter().enumerate() {
            if let Some(other) = add(py, &mut register, &mut routes, route) {
                return Some((position, other));
            }
        }
        *inner = (register, routes);
        None
    }

    /// All routes, in the order they were added.
    fn routes(&self, py: Python<'_>) -> Vec<Py<Route>> {
        let inner = self.lock();
        inner.1.iter().map(|route| route.clone_ref(py)).collect()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Where another thread adds to it, it is in use.
        match self.inner.try_lock() {
            Ok(inner) => inner.1.iter().try_for_each(|route| visit.call(route)),
            Err(_) => Ok(()),
        }
    }
}

/// The origin of the route that `route` collides with, if there is one; it is not added then.
fn add(
    py: Python<'_>,
    register: &mut Register,
    routes: &mut Vec<Py<Route>>,
    route: &Py<Route>,
) -> Option<String> {
    let added = route.get();
    if let Err(conflict) = register.add(&added.methods, &added.pattern, routes.len()) {
        let known = routes.get(conflict.with).map(|route| route.get().describe(py));
        return Some(known.unwrap_or_else(|| "methods that no route can have".to_owned()));
    }
    routes.push(route.clone_ref(py));
    None
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
