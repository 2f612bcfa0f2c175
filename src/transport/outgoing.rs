//! Bytes on their way out: kept by reference, sent many in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::python::socket::SocketFd;

/// How many pieces go into one system call. Linux takes 1,024; what is left goes with the next.
const PIECES: usize = 64;

/// The queue of a connection.
///
/// It holds exact `bytes` objects only: dropping one runs no Python code.
#[derive(Default)]
pub(super) struct Outgoing {
    pieces: VecDeque<Py<PyBytes>>,
    /// Bytes of the first piece that have been sent.
    sent: usize,
    /// Bytes that have not been sent.
    len: usize,
}

impl Outgoing {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn push(&mut self, piece: Bound<'_, PyBytes>) {
        self.len += piece.as_bytes().len();
        self.pieces.push_back(piece.unbind());
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Hands the system what it takes in one call; true when the queue is empty then.
    pub(super) fn send(&mut self, py: Python<'_>, socket: SocketFd) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let given = self.len.min(self.given(py));
            let taken = if self.pieces.len() == 1 {
                socket.send(self.first(py))?
            } else {
                let mut parts = [IoSlice::new(&[]); PIECES];
                let mut count = 0;
                for (part, piece) in parts.iter_mut().zip(&self.pieces) {
                    *part = IoSlice::new(piece.as_bytes(py));
                    count += 1;
                }
                parts[0] = IoSlice::new(self.first(py));
                socket.send_parts(&parts[..count])?
            };
            self.advance(py, taken);
            if taken < given {
                return Ok(self.is_empty());
            }
        }
        Ok(true)
    }

    /// Bytes in the pieces of one call.
    fn given(&self, py: Python<'_>) -> usize {
        if self.pieces.len() <= PIECES {
            return self.len;
        }
        let bytes: usize = self.pieces.iter().take(PIECES).map(|p| p.as_bytes(py).len()).sum();
        bytes - self.sent
    }

    fn first<'a>(&'a self, py: Python<'a>) -> &'a [u8] {
        let piece = self.pieces.front().map_or(&[][..], |piece| piece.as_bytes(py));
        piece.get(self.sent..).unwrap_or_default()
    }

    fn advance(&mut self, py: Python<'_>, taken: usize) {
        self.len -= taken.min(self.len);
        self.sent += taken;
        while let Some(piece) = self.pieces.front() {
            let size = piece.as_bytes(py).len();
            if self.sent < size {
                break;
            }
            self.sent -= size;
            self.pieces.pop_front();
        }
    }
}
