"""TLS over a transport: asyncio's `SSLProtocol` with a shorter way for what happens per event.

The shorter ways cover an established connection that nothing holds up; anything else (handshake,
shutdown, flow control, errors) goes through asyncio's own methods. What makes them shorter:

* a record is read into an object of its size, not of the 256 KiB that asyncio asks for;
* what is written is not copied again for every record that is made of it;
* OpenSSL is not asked for data that cannot be there, which it would answer by an exception;
* nothing is sent, and no water mark compared, where nothing is queued.
"""

from __future__ import annotations

from asyncio import sslproto
from typing import Any

_WRAPPED = sslproto.SSLProtocolState.WRAPPED
_READABLE = (_WRAPPED, sslproto.SSLProtocolState.FLUSHING)

LARGEST_RECORD = 16 * 1024
"""The most that one TLS record carries, in bytes."""


_SSLProtocol: Any = sslproto.SSLProtocol
"""Without its types: what is used of it here is private."""


class TlsProtocol(_SSLProtocol):  # type: ignore[misc]
    """The protocol between a socket's transport and the application's protocol."""

    def get_buffer(self, n: int) -> memoryview:
        """Where the transport puts what arrives."""
        return self._ssl_buffer_view  # type: ignore[no-any-return]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes `nbytes` of ciphertext."""
        if self._state is not _WRAPPED:
            super().buffer_updated(nbytes)
            return
        self._incoming.write(self._ssl_buffer_view[:nbytes])
        self._do_read()

    def _do_read(self) -> None:
        if self._app_reading_paused or self._state not in _READABLE:
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
        incoming, tls = self._incoming, self._sslobj
        chunks: list[bytes] = []
        closed = False
        try:
            while True:
                waiting = incoming.pending
                chunk = tls.read(waiting if 0 < waiting < LARGEST_RECORD else LARGEST_RECORD)
                if not chunk:
                    closed = True  # close_notify
                    break
                chunks.append(chunk)
                if not incoming.pending and not tls.pending():
                    break
        except sslproto.SSLAgainErrors:
            pass
        if chunks:
            self._app_protocol.data_received(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if closed:
            self._call_eof_received()
            self._start_shutdown()

    def _write_appdata(self, list_of_data: Any) -> None:
        data = list_of_data[0] if type(list_of_data) is tuple and len(list_of_data) == 1 else None
        if (
            self._state is not _WRAPPED
            or self._write_backlog
            or not isinstance(data, bytes | bytearray)
        ):
            super()._write_appdata(list_of_data)
            return
        write, size, done = self._sslobj.write, len(data), 0
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
