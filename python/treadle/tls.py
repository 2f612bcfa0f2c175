"""TLS over a transport: asyncio's `SSLProtocol` with a shorter way for what happens per event.

The shorter ways cover an established connection that nothing holds up; anything else (handshake,
shutdown, flow control, errors) goes through asyncio's own methods. What makes them shorter:

* what arrives is taken as `bytes`: no buffer of 256 KiB for each connection, none to ask for;
* a record is read into an object of its size;
* what is written is not copied again for every record that is made of it;
* OpenSSL is not asked for data that cannot be there, which it would answer by an exception, and
  is asked without the methods of `ssl.SSLObject`, which only pass the call on;
* nothing is sent, and no water mark compared, where nothing is queued.
"""

from __future__ import annotations

from asyncio import sslproto
from typing import Any

_WRAPPED = sslproto.SSLProtocolState.WRAPPED
_FLUSHING = sslproto.SSLProtocolState.FLUSHING

LARGEST_RECORD = 16 * 1024
"""The most that one TLS record carries, in bytes."""

_BUFFER = 64 * 1024
"""What a transport that is not ours gets to put its bytes into."""

# Without their types: what is used of them here is private.
_SSLProtocol: Any = sslproto.SSLProtocol
_SSLTransport: Any = sslproto._SSLProtocolTransport


class SSLTransport(_SSLTransport):  # type: ignore[misc]
    """The application's side of a TLS connection."""

    def write(self, data: Any) -> None:
        """Sends `data`. Never blocks."""
        if type(data) is bytes and data:
            self._ssl_protocol._write(data)
        else:
            super().write(data)


class TlsProtocol(_SSLProtocol):  # type: ignore[misc]
    """The protocol between a socket's transport and the application's protocol.

    Our transports give it `bytes`, though it is a `BufferedProtocol`.
    """

    # A dict that holds as many attributes as this has is slow; these are used per event.
    __slots__ = (
        "_app_protocol",
        "_app_protocol_is_buffer",
        "_app_reading_paused",
        "_app_transport",
        "_app_transport_created",
        "_app_writing_paused",
        "_incoming",
        "_incoming_high_water",
        "_outgoing",
        "_outgoing_high_water",
        "_ssl_buffer",
        "_ssl_buffer_view",
        "_ssl_reading_paused",
        "_ssl_writing_paused",
        "_sslobj",
        "_state",
        "_tls_pending",
        "_tls_read",
        "_tls_write",
        "_transport",
        "_write_backlog",
        "_write_buffer_size",
    )
    _app_transport: Any
    _app_transport_created: bool
    _sslobj: Any
    _ssl_buffer: bytearray
    _ssl_buffer_view: memoryview

    max_size = 0
    """asyncio makes its buffer of this size; `get_buffer` makes one where it is asked for."""

    def _get_app_transport(self) -> Any:
        if self._app_transport is None and not self._app_transport_created:
            self._app_transport = SSLTransport(self._loop, self)
            self._app_transport_created = True
        return super()._get_app_transport()

    def _set_state(self, new_state: Any) -> None:
        super()._set_state(new_state)
        if new_state is _WRAPPED:
            tls = getattr(self._sslobj, "_sslobj", self._sslobj)
            self._tls_read, self._tls_write, self._tls_pending = tls.read, tls.write, tls.pending

    def get_buffer(self, n: int) -> memoryview:
        """Where a transport that is not ours puts what arrives."""
        if not self._ssl_buffer:
            self._ssl_buffer = bytearray(_BUFFER)
            self._ssl_buffer_view = memoryview(self._ssl_buffer)
        return self._ssl_buffer_view

    def buffer_updated(self, nbytes: int) -> None:
        """Takes `nbytes` of ciphertext out of the buffer."""
        if self._state is _WRAPPED:
            self._incoming.write(self._ssl_buffer_view[:nbytes])
            self._do_read()
        else:
            super().buffer_updated(nbytes)

    def data_received(self, data: bytes) -> None:
        """Takes ciphertext."""
        self._incoming.write(data)
        if self._state is _WRAPPED:
            self._do_read()
        else:
            # Whatever the state asks for; the bytes are there already.
            super().buffer_updated(0)

    def _do_read(self) -> None:
        state = self._state
        if self._app_reading_paused or (state is not _WRAPPED and state is not _FLUSHING):
            super()._do_read()
            return
        try:
            if self._app_protocol_is_buffer:
                self._do_read__buffered()
            else:
                self._do_read__copied()
            if self._write_backlog:
                self._do_write()
            elif self._outgoing.pending or self._app_writing_paused:
                self._process_outgoing()
            if self._ssl_reading_paused or self._incoming.pending >= self._incoming_high_water:
                self._control_ssl_reading()
        except Exception as error:
            self._fatal_error(error, "Fatal error on SSL protocol")

    def _do_read__copied(self) -> None:
        incoming, read = self._incoming, self._tls_read
        chunks: list[bytes] | None = None
        data = None
        closed = False
        try:
            while True:
                waiting = incoming.pending
                chunk = read(waiting if 0 < waiting < LARGEST_RECORD else LARGEST_RECORD)
                if not chunk:
                    closed = True  # close_notify
                    break
                if data is None:
                    data = chunk
                elif chunks is None:
                    chunks = [data, chunk]
                else:
                    chunks.append(chunk)
                if not incoming.pending and not self._tls_pending():
                    break
        except sslproto.SSLAgainErrors:
            pass
        if data is not None:
            self._app_protocol.data_received(data if chunks is None else b"".join(chunks))
        if closed:
            self._call_eof_received()
            self._start_shutdown()

    def _do_read__buffered(self) -> None:
        read, received, closed = self._tls_read, 0, False
        lent = self._app_protocol_get_buffer(self._incoming.pending)
        # A part of a bytearray is a copy, a part of its view is not. All views are given back before
        # the protocol is told: it may resize what it lent.
        with memoryview(lent) as whole:
            if not whole.nbytes:
                raise RuntimeError("get_buffer() returned an empty buffer")
            with whole.cast("B") as view:
                wants = len(view)
                try:
                    while received < wants and not closed:
                        with view[received:] as room:
                            count = read(wants - received, room)
                        received += count
                        closed = not count  # close_notify
                except sslproto.SSLAgainErrors:
                    pass
        if received == wants:
            self._loop.call_soon(self._do_read)
        if received:
            self._app_protocol_buffer_updated(received)
        if closed:
            self._call_eof_received()
            self._start_shutdown()

    def _write_appdata(self, list_of_data: Any) -> None:
        data = list_of_data[0] if type(list_of_data) is tuple and len(list_of_data) == 1 else None
        if isinstance(data, bytes | bytearray):
            self._write(data)
        else:
            super()._write_appdata(map(_plain, list_of_data))

    def _write(self, data: bytes | bytearray) -> None:
        if self._state is not _WRAPPED or self._write_backlog:
            super()._write_appdata((data,))
            return
        write, size, done = self._tls_write, len(data), 0
        try:
            done = write(data)
            if done < size:
                # A record was taken. The rest is not copied for each further one.
                with memoryview(data) as view:
                    while done < size:
                        done += write(view[done:])
        except sslproto.SSLAgainErrors:
            self._write_backlog.append(bytes(data[done:]))
            self._write_buffer_size += size - done
        except Exception as error:
            self._fatal_error(error, "Fatal error on SSL protocol")
            return
        try:
            if not self._ssl_writing_paused and (sealed := self._outgoing.read()):
                self._transport.write(sealed)
            queued = self._outgoing.pending + self._write_buffer_size
            if self._app_writing_paused or queued >= self._outgoing_high_water:
                self._control_app_writing()
        except Exception as error:
            self._fatal_error(error, "Fatal error on SSL protocol")


def _plain(data: Any) -> Any:
    """`data`, or a copy of a view with gaps, which OpenSSL cannot take."""
    if isinstance(data, memoryview) and not data.c_contiguous:
        return data.tobytes()
    return data
