//! Emptied header maps, kept for the heads to come: a map costs two allocations to make.
//!
//! A lane needs as many as it has requests in flight whose heads it holds.

use std::cell::RefCell;

use http::HeaderMap;

/// A map with room for more headers is let go.
const LARGEST: usize = 32;
/// As many are kept, about a KiB each.
const MOST: usize = 256;

/// The emptied maps of one lane.
#[derive(Debug, Default)]
pub struct SpareHeaders(RefCell<Vec<HeaderMap>>);

impl SpareHeaders {
    /// Empties a map that nobody looks at any more, and keeps it.
    pub fn put(&self, mut headers: HeaderMap) {
        if (1..=LARGEST).contains(&headers.capacity()) {
            // What the client sent goes at once: it keeps a whole read buffer.
            headers.clear();
            let mut spare = self.0.borrow_mut();
            if spare.len() < MOST {
                spare.push(headers);
            }
        }
    }

    /// An empty map.
    #[must_use]
    pub fn take(&self) -> HeaderMap {
        self.0.borrow_mut().pop().unwrap_or_default()
    }
}
