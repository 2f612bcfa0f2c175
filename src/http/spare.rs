//! Emptied memory of a lane, kept for the requests to come: header maps, which cost two allocations
//! to make, and buffers for answers, which would grow step by step each time.
//!
//! A lane needs as many as it has requests in flight whose heads it holds, and connections whose
//! answers wait.

use std::cell::{Cell, RefCell};

use http::HeaderMap;

/// A map with room for more headers is let go.
const LARGEST: usize = 32;
/// As many are kept, about a KiB each.
const MOST: usize = 256;

/// A larger buffer is let go, in bytes.
const LARGEST_BUFFER: usize = 64 * 1024;
/// All that are kept, in bytes.
const MOST_BUFFERED: usize = 1024 * 1024;

/// The emptied buffers of one lane.
#[derive(Debug, Default)]
pub(super) struct SpareBuffers {
    buffers: RefCell<Vec<Vec<u8>>>,
    bytes: Cell<usize>,
}

impl SpareBuffers {
    /// Empties a buffer and keeps it.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        let bytes = self.bytes.get() + buffer.capacity();
        if (1..=LARGEST_BUFFER).contains(&buffer.capacity()) && bytes <= MOST_BUFFERED {
            buffer.clear();
            self.bytes.set(bytes);
            self.buffers.borrow_mut().push(buffer);
        }
    }

    /// An empty buffer.
    pub(super) fn take(&self) -> Vec<u8> {
        let buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        self.bytes.set(self.bytes.get().saturating_sub(buffer.capacity()));
        buffer
    }
}

/// The emptied maps of one lane.
#[derive(Debug, Default)]
pub struct SpareHeaders(RefCell<Vec<HeaderMap>>);

impl SpareHeaders {
    /// Empties a map that nobody looks at any more, and keeps it.
    pub fn put(&self, headers: HeaderMap) {
        if let Some(headers) = emptied(headers) {
            let mut spare = self.0.borrow_mut();
            if spare.len() < MOST {
                spare.push(headers);
            }
        }
    }

    /// An empty map for one that nobody looks at any more: that one, if it is worth keeping.
    pub(super) fn renew(&self, headers: HeaderMap) -> HeaderMap {
        emptied(headers).unwrap_or_else(|| self.take())
    }

    /// An empty map.
    #[must_use]
    pub fn take(&self) -> HeaderMap {
        self.0.borrow_mut().pop().unwrap_or_default()
    }
}

/// The same map without its headers, unless it has room for too many, or for none.
fn emptied(mut headers: HeaderMap) -> Option<HeaderMap> {
    (1..=LARGEST).contains(&headers.capacity()).then(|| {
        // What the client sent goes at once: it keeps a whole read buffer.
        headers.clear();
        headers
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HOST;

    use super::*;

    #[test]
    fn a_map_is_renewed_by_emptying_it_unless_it_is_large() {
        let spare = SpareHeaders::default();
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(HOST, HeaderValue::from_static("a"));
        let capacity = headers.capacity();
        let headers = spare.renew(headers);
        assert!(headers.is_empty() && headers.capacity() == capacity);
        spare.put(headers);
        let renewed = spare.renew(HeaderMap::with_capacity(4 * LARGEST));
        assert_eq!(renewed.capacity(), capacity);
        assert_eq!(spare.renew(HeaderMap::new()).capacity(), 0);
    }

    #[test]
    fn a_spare_buffer_comes_back_empty_and_as_large_as_it_was() {
        let spare = SpareBuffers::default();
        let mut buffer = Vec::with_capacity(100);
        buffer.push(1);
        spare.put(buffer);
        let buffer = spare.take();
        assert!(buffer.is_empty() && buffer.capacity() >= 100);
        assert_eq!(spare.take().capacity(), 0);
    }

    #[test]
    fn buffers_are_kept_up_to_a_size_each_and_in_all() {
        let spare = SpareBuffers::default();
        spare.put(Vec::with_capacity(LARGEST_BUFFER + 1));
        assert_eq!(spare.take().capacity(), 0);
        for _ in 0..100 {
            spare.put(Vec::with_capacity(LARGEST_BUFFER));
        }
        assert_eq!(spare.buffers.borrow().len(), MOST_BUFFERED / LARGEST_BUFFER);
        while spare.take().capacity() > 0 {}
        assert_eq!(spare.bytes.get(), 0);
    }
}
