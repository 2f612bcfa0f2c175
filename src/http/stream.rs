//! Sockets: the two kinds that are listened on, behind one type each.
//!
//! An enum, not a generic: the kind is chosen once per process, and one instantiation of the
//! connection code serves both. Listeners are plain std types until a runtime takes them. A
//! [`Stream`] belongs to the runtime of one thread; a [`Socket`] may be taken from it to another.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream as StdTcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream as StdUnixStream};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client, by its address.
    Tcp(SocketAddr),
    /// A process on this machine, through a Unix socket.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// A socket that listens, registered with no runtime yet.
#[derive(Debug)]
pub enum Listener {
    /// Listens on an address and a port.
    Tcp(TcpListener),
    /// Listens on a path.
    Unix(UnixListener),
}

impl Listener {
    /// A second handle on the same socket, for another thread or lane.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }

    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Accepts what waits in the queue, without waiting for more.
    pub(crate) fn accept_waiting(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok((Socket::Loose(LooseSocket::Tcp(stream)), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Socket::Loose(LooseSocket::Unix(stream)), Peer::Unix))
            }
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

/// A [`Listener`] registered with the runtime of one thread.
#[derive(Debug)]
pub(crate) enum RegisteredListener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl RegisteredListener {
    /// Registers a second handle on `listener`; it must be non-blocking.
    pub(crate) fn register(listener: &Listener) -> io::Result<Self> {
        match listener.try_clone()? {
            Listener::Tcp(listener) => tokio::net::TcpListener::from_std(listener).map(Self::Tcp),
            Listener::Unix(listener) => {
                tokio::net::UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // A response is written in one piece: waiting for more to send only adds delay.
                stream.set_nodelay(true)?;
                Ok((Socket::Registered(Stream::Tcp(stream)), Peer::Tcp(address)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Registered(Stream::Unix(stream)), Peer::Unix))
            }
        }
    }
}

/// An accepted socket on its way to where it will be served.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Registered with the runtime of the thread that accepted it: to be served there.
    Registered(Stream),
    /// Registered with none: it may change threads.
    Loose(LooseSocket),
}

#[derive(Debug)]
pub(crate) enum LooseSocket {
    Tcp(StdTcpStream),
    Unix(StdUnixStream),
}

impl Socket {
    /// Takes it from the runtime of this thread, so that it may change to another.
    pub(crate) fn loosen(self) -> io::Result<Self> {
        let socket = match self {
            Self::Registered(Stream::Tcp(stream)) => LooseSocket::Tcp(stream.into_std()?),
            Self::Registered(Stream::Unix(stream)) => LooseSocket::Unix(stream.into_std()?),
            Self::Loose(socket) => socket,
        };
        Ok(Self::Loose(socket))
    }

    /// Makes it a stream of this thread's runtime.
    pub(crate) fn register(self) -> io::Result<Stream> {
        match self {
            Self::Registered(stream) => Ok(stream),
            Self::Loose(LooseSocket::Tcp(stream)) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Loose(LooseSocket::Unix(stream)) => {
                UnixStream::from_std(stream).map(Stream::Unix)
            }
        }
    }

    /// What has arrived by now, asked of the system directly. A registered socket says that it is
    /// not known: its runtime assumes it readable, and so finds out for itself.
    pub(crate) fn read_waiting(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Registered(_) => Err(io::ErrorKind::WouldBlock.into()),
            Self::Loose(LooseSocket::Tcp(stream)) => io::Read::read(&mut &*stream, buffer),
            Self::Loose(LooseSocket::Unix(stream)) => io::Read::read(&mut &*stream, buffer),
        }
    }
}

/// A connected socket of one lane.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Writes what the socket takes now. Nobody is woken when it takes more.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Sends the end of the stream. Never waits.
    pub(crate) fn shut_down_writing(&mut self, cx: &mut Context<'_>) {
        // The only failure is a socket that is gone already, which is what was wanted.
        let _ = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        };
    }

    /// Makes the coming close a reset, the only sign of failure a client of HTTP/1.0 can see.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = stream.set_zero_linger();
        }
    }

    /// Whether there are bytes to read, asked of the system: the runtime knows only what had arrived
    /// when the turn began.
    pub(crate) fn has_unread(&self) -> bool {
        let socket = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        let looked = recv(socket, &mut [0_u8; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        looked.is_ok_and(|(_, length)| length > 0)
    }

    /// Whether the client has shut its side or is gone, seen without reading what is still there.
    pub(crate) fn is_read_closed(&self) -> bool {
        // Priority interest is the one that is met by a closed read side alone: readable bytes,
        // which may well be queued in front of the end, do not count.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let interest = Interest::PRIORITY;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let interest = Interest::ERROR;
        let mut cx = Context::from_waker(Waker::noop());
        let ready = match self {
            Self::Tcp(stream) => pin!(stream.ready(interest)).poll(&mut cx),
            Self::Unix(stream) => pin!(stream.ready(interest)).poll(&mut cx),
        };
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed() || ready.is_error())
    }
}
