//! A client's socket as hyper sees it.
//!
//! Reads go through a buffer that all connections share, which spares unsafe code for the price of
//! copying what is received once.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::ReadBufCursor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::job::Endpoint;

const SCRATCH: usize = 64 * 1024;

/// What all sockets of a run share.
#[derive(Debug)]
pub(crate) struct Receiving {
    scratch: RefCell<Box<[u8]>>,
    bytes: Cell<u64>,
}

impl Receiving {
    pub(crate) fn new() -> Rc<Self> {
        let scratch = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
        Rc::new(Self { scratch, bytes: Cell::new(0) })
    }

    /// Bytes received so far, heads and bodies.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// One connected socket.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Stream,
    receiving: Rc<Receiving>,
}

impl Wire {
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        receiving: &Rc<Receiving>,
    ) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Tcp(addresses) => {
                let stream = TcpStream::connect(addresses.as_slice()).await?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        };
        Ok(Self { stream, receiving: receiving.clone() })
    }
}

impl hyper::rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, receiving } = &mut *self;
        let mut scratch = receiving.scratch.borrow_mut();
        let room = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..room]);
        ready!(match stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
        })?;
        let read = buffer.filled();
        receiving.bytes.set(receiving.bytes.get() + read.len() as u64);
        cursor.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // nothing is kept back
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
