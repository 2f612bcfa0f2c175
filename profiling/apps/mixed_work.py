"""One request of the mixed workload: four waits for another service, one piece of real work.

Only plain Python and its standard library: it is imported under each strategy's interpreter.
"""

import asyncio
import os
import socket
import threading

WAITS = 4
_ADDRESS = ("127.0.0.1", int(os.environ.get("MIXED_UPSTREAM", "0")))
_ASKED = os.environ.get("MIXED_WAIT_US", "2000").encode() + b"\n"
_TURNS = int(os.environ.get("MIXED_TURNS", "4000"))
_OK = b"ok\n"

_here = threading.local()
"""Of a thread, or of a greenlet where gevent has patched it."""


def compute(turns: int = _TURNS) -> int:
    """Keep the interpreter busy, without a system call or a lock."""
    total = 0
    for turn in range(turns):
        total = (total * 31 + turn) & 0xFFFF
    return total


def answer(total: int) -> dict[str, object]:
    """What every strategy answers."""
    return {"waits": WAITS, "total": total}


def blocking() -> dict[str, object]:
    """Serve one request, waiting in a blocking call."""
    upstream = getattr(_here, "upstream", None)
    if upstream is None:
        upstream = _here.upstream = socket.create_connection(_ADDRESS)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(WAITS):
        upstream.sendall(_ASKED)
        if upstream.recv(16) != _OK:
            raise ConnectionError("the upstream service has gone")
    return answer(compute())


async def awaiting() -> dict[str, object]:
    """Serve one request, waiting on the event loop; connections are kept per loop."""
    idle = getattr(_here, "idle", None)
    if idle is None:
        idle = _here.idle = []
    reader, writer = idle.pop() if idle else await asyncio.open_connection(*_ADDRESS)
    for _ in range(WAITS):
        writer.write(_ASKED)
        if await reader.readline() != _OK:
            raise ConnectionError("the upstream service has gone")
    idle.append((reader, writer))
    return answer(compute())
