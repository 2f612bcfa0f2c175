//! Headers as a case-insensitive multi-mapping, shared by requests and responses.
//!
//! A lock guards the map because a free-threaded interpreter lets several threads use one object;
//! it is held for the length of one look-up and never while Python runs.

use std::borrow::Cow;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator, PyList, PyMapping, PyString};

/// Case-insensitive; a name may have several values. Text is Latin-1, as HTTP has it.
#[pyclass(frozen, mapping, module = "treadle")]
pub struct Headers {
    map: RwLock<HeaderMap>,
    read_only: bool,
}

impl Headers {
    /// Of a request: cannot be changed.
    pub fn read_only(map: HeaderMap) -> Self {
        Self { map: RwLock::new(map), read_only: true }
    }

    /// Of a response.
    pub fn editable(map: HeaderMap) -> Self {
        Self { map: RwLock::new(map), read_only: false }
    }

    /// A copy of the map.
    pub fn to_map(&self) -> HeaderMap {
        self.read().clone()
    }

    /// Adds a value that was checked already.
    ///
    /// # Errors
    /// `TypeError` for a request's headers.
    pub fn append_value(&self, name: HeaderName, value: HeaderValue) -> PyResult<()> {
        self.write()?.append(name, value);
        Ok(())
    }

    /// Sets a value that was checked already.
    ///
    /// # Errors
    /// `TypeError` for a request's headers.
    pub fn insert_value(&self, name: HeaderName, value: HeaderValue) -> PyResult<()> {
        self.write()?.insert(name, value);
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, HeaderMap> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> PyResult<RwLockWriteGuard<'_, HeaderMap>> {
        if self.read_only {
            return Err(PyTypeError::new_err("the headers of a request cannot be changed"));
        }
        Ok(self.map.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A header name from Python.
///
/// # Errors
/// `ValueError` unless it is an HTTP token.
pub fn header_name(name: &str) -> PyResult<HeaderName> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| PyValueError::new_err(format!("{name:?} is not a header name")))
}

/// A header value from Python text.
///
/// # Errors
/// `ValueError` for CR, LF, NUL and other control characters, and for text beyond Latin-1.
pub fn header_value(name: &str, value: &str) -> PyResult<HeaderValue> {
    let refused =
        |what: &str| PyValueError::new_err(format!("the value of header {name:?} {what}"));
    let parsed = if value.is_ascii() {
        HeaderValue::from_str(value).ok()
    } else {
        let latin: Option<Vec<u8>> =
            value.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
        let Some(latin) = latin else {
            return Err(refused("has characters beyond Latin-1"));
        };
        HeaderValue::from_bytes(&latin).ok()
    };
    parsed.ok_or_else(|| refused("has a control character"))
}

/// The text of a header value, Latin-1.
pub fn text(value: &HeaderValue) -> String {
    latin_1(value.as_bytes()).into_owned()
}

/// The text of a part of a header value, Latin-1.
pub fn latin_1(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        // The two differ from there on.
        Ok(text) if text.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(bytes.iter().map(|&byte| char::from(byte)).collect()),
    }
}

/// A map from a Python mapping or an iterable of pairs.
///
/// # Errors
/// `TypeError` / `ValueError` naming the entry that is not a header.
pub fn collect(source: Option<&Bound<'_, PyAny>>) -> PyResult<HeaderMap> {
    let mut map = HeaderMap::new();
    let Some(source) = source else {
        return Ok(map);
    };
    if let Ok(headers) = source.cast::<Headers>() {
        return Ok(headers.get().to_map());
    }
    let pairs: Bound<'_, PyIterator> = if let Ok(dict) = source.cast::<PyDict>() {
        dict.items().try_iter()?
    } else if let Ok(mapping) = source.cast::<PyMapping>() {
        mapping.items()?.try_iter()?
    } else {
        source.try_iter()?
    };
    for pair in pairs {
        let (name, value): (Bound<'_, PyString>, Bound<'_, PyString>) =
            pair?.extract().map_err(|_| {
                PyTypeError::new_err("headers must be a mapping or pairs of str and str")
            })?;
        let (name, value) = (name.to_str()?, value.to_str()?);
        map.append(header_name(name)?, header_value(name, value)?);
    }
    Ok(map)
}

#[pymethods]
impl Headers {
    /// From a mapping or an iterable of pairs.
    #[new]
    #[pyo3(signature = (values=None))]
    fn new(values: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self::editable(collect(values)?))
    }

    /// The first value of `name`; `default` when there is none.
    #[pyo3(signature = (name, default=None))]
    fn get(&self, py: Python<'_>, name: &str, default: Option<Py<PyAny>>) -> Py<PyAny> {
        match self.read().get(name) {
            Some(value) => PyString::new(py, &text(value)).into_any().unbind(),
            None => default.unwrap_or_else(|| py.None()),
        }
    }

    /// All values of `name`, in order.
    fn get_all(&self, name: &str) -> Vec<String> {
        self.read().get_all(name).iter().map(text).collect()
    }

    /// Adds a value and keeps those that are there.
    fn append(&self, name: &str, value: &str) -> PyResult<()> {
        let (key, value) = (header_name(name)?, header_value(name, value)?);
        self.write()?.append(key, value);
        Ok(())
    }

    /// Sets the value unless the name has one; gives what it has then.
    fn setdefault(&self, name: &str, value: &str) -> PyResult<String> {
        let (key, value) = (header_name(name)?, header_value(name, value)?);
        Ok(text(self.write()?.entry(key).or_insert(value)))
    }

    /// Names, lower case, each once.
    fn keys(&self) -> Vec<String> {
        self.read().keys().map(|name| name.as_str().to_owned()).collect()
    }

    /// All values, in the order of `items()`.
    fn values(&self) -> Vec<String> {
        self.read().values().map(text).collect()
    }

    /// Pairs of lower-case name and value; a name with several values comes several times.
    fn items(&self) -> Vec<(String, String)> {
        self.read().iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
    }

    fn __getitem__(&self, name: &str) -> PyResult<String> {
        self.read().get(name).map(text).ok_or_else(|| PyKeyError::new_err(name.to_owned()))
    }

    fn __setitem__(&self, name: &str, value: &str) -> PyResult<()> {
        let (key, value) = (header_name(name)?, header_value(name, value)?);
        self.write()?.insert(key, value);
        Ok(())
    }

    fn __delitem__(&self, name: &str) -> PyResult<()> {
        match self.write()?.remove(name) {
            Some(_) => Ok(()),
            None => Err(PyKeyError::new_err(name.to_owned())),
        }
    }

    fn __contains__(&self, name: &str) -> bool {
        self.read().contains_key(name)
    }

    fn __len__(&self) -> usize {
        self.read().keys_len()
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        PyList::new(py, self.keys())?.try_iter()
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        match other.cast::<Self>() {
            Ok(other) if std::ptr::eq(self, other.get()) => true,
            Ok(other) => self.to_map() == other.get().to_map(),
            Err(_) => false,
        }
    }

    fn __repr__(&self) -> String {
        format!("Headers({:?})", self.items())
    }
}
