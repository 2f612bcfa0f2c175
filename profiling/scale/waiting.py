"""Thousands of handlers that wait at once, held from here by a connection each.

One thread opens, asks and reads; a handler that waits has its request sent and no answer yet.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep

from profiling import memory
from profiling.errors import ComparisonError
from profiling.program import Program

_PATIENCE = 60.0
_ASK_AGAIN_AFTER = 0.02
_REQUEST = b"GET /hold HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_WARM = 50


@contextmanager
def handlers(server: Program, count: int) -> Iterator[float]:
    """So many suspended handlers inside the block; gives what each weighs, in bytes.

    Leaving the block releases them and reads every answer; ComparisonError when one is missing.
    """
    memory.require_files(count)
    with memory.connection(server) as warm:
        for _ in range(_WARM):
            memory.ask(server, warm, _REQUEST.replace(b"/hold", b"/sync"))
    before = memory.settled(server)
    with ExitStack() as stack:
        waiting: list[socket.socket] = []
        for number in range(count):
            address = memory.source(number)
            waiting.append(stack.enter_context(memory.connection(server, address)))
            waiting[-1].sendall(_REQUEST)
        _until_held(server, count)
        yield (memory.settled(server) - before) / count
        _tell(server, "POST", "/release")
        for number, connection in enumerate(waiting):
            connection.settimeout(_PATIENCE)
            if not _answered(connection):
                raise ComparisonError(
                    f"{server.label} has lost {count - number} of {count} suspended handlers."
                )


def _answered(connection: socket.socket) -> bool:
    try:
        return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _until_held(server: Program, count: int) -> None:
    deadline = monotonic() + _PATIENCE
    while (held := _tell(server, "GET", "/held")) != count:
        if monotonic() > deadline:
            raise ComparisonError(f"{server.label} holds {held} of {count} suspended handlers.")
        sleep(_ASK_AGAIN_AFTER)


def _tell(server: Program, method: str, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_PATIENCE)
    try:
        connection.request(method, path)
        body = connection.getresponse().read()
        return int(json.loads(body)["n"]) if body else None
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        server.require_alive()
        raise ComparisonError(f"{server.label} does not answer {method} {path}.") from error
    finally:
        connection.close()
