"""Transports of stream sockets: what happens at most a few times in a connection's life.

The rest, all that is done for each event, is `TransportCore`'s. Order, messages and exceptions are
those of `asyncio.selector_events`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import warnings
from asyncio import SelectorEventLoop, base_events, constants, futures, transports, trsock
from asyncio.log import logger
from typing import Any

from treadle._treadle import TransportCore
from treadle.reporting import report
from treadle.tls import TlsProtocol


class SocketTransport(TransportCore):
    """A TCP or Unix connection; an `asyncio.Transport` to `isinstance`.

    It cannot inherit from that class, whose instances have a layout of their own.
    """

    _start_tls_compatible = True
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(
        self,
        loop: Any,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
    ) -> None:
        self._sock = None
        self._empty_waiter: Any = None
        self._server = server
        self._extra = {} if extra is None else extra
        self._extra["socket"] = trsock.TransportSocket(sock)
        try:
            self._extra["sockname"] = sock.getsockname()
        except OSError:
            self._extra["sockname"] = None
        if "peername" not in self._extra:
            try:
                self._extra["peername"] = sock.getpeername()
            except OSError:
                self._extra["peername"] = None
        # Keeps the descriptor open, whatever the user does to the socket, until it is given up.
        sock._io_refs += 1
        self._sock = sock
        self.set_protocol(protocol)
        if server is not None:
            _attach(server, self)
        loop._transports[self._sock_fd] = self
        base_events._set_nodelay(sock)  # type: ignore[attr-defined]
        loop.call_soon(protocol.connection_made, self)
        # Only start reading when connection_made() has been called.
        if waiter is None:
            loop.call_soon(self._start)
        else:
            # Nor before the waiter went on, whom the first of these has called in the next round:
            # what it does with the protocol then comes before all data, as with asyncio.
            loop.call_soon(futures._set_result_unless_cancelled, waiter, None)  # type: ignore[attr-defined]
            loop.call_soon(loop.call_soon, self._start)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _StreamTransport

    def __repr__(self) -> str:
        words = ["SocketTransport"]
        elsewhere = self._is_elsewhere()
        if self._sock is None:
            words.append("closed")
        elif not elsewhere and self._closing:
            words.append("closing")
        words.append(f"fd={self._sock_fd}")
        if elsewhere:
            # Only its own thread can read the rest.
            return f"<{' '.join(words)} of another thread>"
        loop = self._loop
        if loop is not None and not loop.is_closed():
            reading, writing = ("polling" if on else "idle" for on in self._polling())
            words.append(f"read={reading}")
            words.append(f"write=<{writing}, bufsize={self.get_write_buffer_size()}>")
        return f"<{' '.join(words)}>"

    def __del__(self, _warn: Any = warnings.warn) -> None:
        sock = self._sock
        if sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._give_up(sock)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection: `socket`, `peername`, `sockname`."""
        return self._extra.get(name, default)

    def set_write_buffer_limits(self, high: float | None = None, low: float | None = None) -> None:
        """Sets the water marks, in bytes, by asyncio's rules.

        A part of a byte makes no difference to what is compared with them and is dropped.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._set_limits(_whole(high), _whole(low))

    # -- called by the native half, and by asyncio -------------------------------------------------

    def _call_connection_lost(self, error: BaseException | None) -> None:
        protocol = self._protocol
        try:
            if protocol is not None:
                protocol.connection_lost(error)
        finally:
            waiter = self._empty_waiter
            sock = self._sock
            if sock is not None:
                self._give_up(sock)
            if waiter is not None and not waiter.done():
                waiter.set_exception(ConnectionError("Connection is closed by peer"))

    def _give_up(self, sock: Any) -> None:
        """Leaves the reactor, then closes the socket."""
        self._sock = None
        with contextlib.suppress(RuntimeError):  # another thread, see `__del__`
            self._release()
        sock._decref_socketios()
        sock.close()
        server, self._server = self._server, None
        if server is not None:
            _detach(server, self)

    def _fatal_error(self, error: BaseException, message: str = "Fatal error on transport") -> None:
        loop = self._loop
        if loop is None:
            return
        if isinstance(error, OSError):
            if loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=error)
        else:
            self._report(error, message)
        self._force_close(error)
        waiter = self._empty_waiter
        if waiter is not None and not waiter.done() and isinstance(error, OSError):
            waiter.set_exception(error)

    def _report(self, error: BaseException, message: str) -> None:
        loop = self._loop
        if loop is not None:
            context = {
                "message": message,
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
            report(loop, context)

    def _raise_soon(self, error: BaseException) -> None:
        """Raises `error` where the loop sees it: in its next turn."""
        loop = self._loop
        if loop is None:
            raise error
        loop.call_soon(_raise, error)

    def _log(self, line: str) -> None:
        logger.debug(line, self)

    def _warn_if_slow(self, loop: Any, protocol: Any, took: float) -> None:
        if took >= loop.slow_callback_duration:
            logger.warning(
                "Executing callbacks of %r on %r took %.3f seconds", protocol, self, took
            )

    def _warn_lost(self) -> None:
        logger.warning("socket.send() raised exception.")

    # -- sendfile ----------------------------------------------------------------------------------

    def _make_empty_waiter(self) -> Any:
        if self._empty_waiter is not None:
            raise RuntimeError("Empty waiter is already set")
        waiter = self._empty_waiter = self._loop.create_future()
        self._loop._outbox.flush()
        if self.get_write_buffer_size() == 0:
            waiter.set_result(None)
        self._reserve(True)
        return waiter

    def _reset_empty_waiter(self) -> None:
        self._empty_waiter = None
        self._reserve(False)

    def _emptied(self) -> None:
        waiter = self._empty_waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class _StreamTransport(transports._FlowControlMixin, asyncio.Transport):
    """What a `SocketTransport` says it is."""


def make_socket_transport(
    loop: Any,
    sock: Any,
    protocol: Any,
    waiter: Any = None,
    *,
    extra: dict[str, Any] | None = None,
    server: Any = None,
) -> Any:
    """A transport for a connected socket; `waiter` gets `None` once the protocol knows it."""
    loop._ensure_fd_no_transport(sock)
    if not _is_stream(sock):
        make = SelectorEventLoop._make_socket_transport  # type: ignore[attr-defined]
        return make(loop, sock, protocol, waiter, extra=extra, server=server)
    return SocketTransport(loop, sock, protocol, waiter, extra, server)


def make_tls_transport(
    loop: Any,
    rawsock: Any,
    protocol: Any,
    sslcontext: Any,
    waiter: Any = None,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    extra: dict[str, Any] | None = None,
    server: Any = None,
    ssl_handshake_timeout: Any = constants.SSL_HANDSHAKE_TIMEOUT,
    ssl_shutdown_timeout: Any = constants.SSL_SHUTDOWN_TIMEOUT,
) -> Any:
    """The transport of the application's side of a TLS connection over `rawsock`."""
    tls = TlsProtocol(
        loop,
        protocol,
        sslcontext,
        waiter,
        server_side,
        server_hostname,
        ssl_handshake_timeout=ssl_handshake_timeout,
        ssl_shutdown_timeout=ssl_shutdown_timeout,
    )
    make_socket_transport(loop, rawsock, tls, extra=extra, server=server)
    return tls._app_transport


async def start_tls(
    loop: Any,
    transport: Any,
    protocol: Any,
    sslcontext: Any,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    ssl_handshake_timeout: float | None = None,
    ssl_shutdown_timeout: float | None = None,
) -> Any:
    """Puts TLS on an open connection, for `protocol`; gives the transport to go on with."""
    settings: dict[str, Any] = {
        "ssl_handshake_timeout": ssl_handshake_timeout,
        "ssl_shutdown_timeout": ssl_shutdown_timeout,
    }
    if not isinstance(transport, SocketTransport) or not isinstance(sslcontext, ssl.SSLContext):
        return await SelectorEventLoop.start_tls(
            loop,
            transport,
            protocol,
            sslcontext,
            server_side=server_side,
            server_hostname=server_hostname,
            **settings,
        )
    ready = loop.create_future()
    tls = TlsProtocol(
        loop,
        protocol,
        sslcontext,
        ready,
        server_side,
        server_hostname,
        call_connection_made=False,
        **settings,
    )
    # Nothing may arrive before the protocol knows its transport.
    transport.pause_reading()
    reader = getattr(protocol, "_stream_reader", None) if server_side else None
    if isinstance(protocol, asyncio.StreamReaderProtocol) and reader is not None:
        # The client may begin before it is told that it can: this is ciphertext.
        tls._incoming.write(reader._buffer)
        reader._buffer.clear()
    transport.set_protocol(tls)
    steps = [
        loop.call_soon(tls.connection_made, transport),
        loop.call_soon(transport.resume_reading),
    ]
    try:
        await ready
    except BaseException:
        transport.close()
        for step in steps:
            step.cancel()
        raise
    return tls._app_transport


def _is_stream(sock: Any) -> bool:
    return isinstance(sock, socket.socket) and sock.type == socket.SOCK_STREAM


def _whole(mark: float) -> int:
    """A water mark in whole bytes, with a value for infinity."""
    return int(min(mark, sys.maxsize))


def _raise(error: BaseException) -> None:
    raise error


if sys.version_info >= (3, 13):

    def _attach(server: Any, transport: Any) -> None:
        server._attach(transport)

    def _detach(server: Any, transport: Any) -> None:
        server._detach(transport)

else:

    def _attach(server: Any, transport: Any) -> None:
        server._attach()

    def _detach(server: Any, transport: Any) -> None:
        server._detach()
