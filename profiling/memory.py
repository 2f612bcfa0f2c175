"""What an idle keep-alive connection weighs: resident memory, thousands of them, divided.

Each connection has had one request answered, as a real one would, and then waits.
"""

import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from profiling.cpu import resident_bytes
from profiling.errors import ComparisonError
from profiling.peers import Product
from profiling.program import Program
from profiling.scenarios import ASYNC

PRODUCTS = (Product.TREADLE, Product.GRANIAN_RSGI, Product.FASTAPI)
"""TurboAPI is not among them: it stops answering at the 24th connection."""

CONNECTIONS = 4_000
QUICK_CONNECTIONS = 400

_PER_ADDRESS = 10_000
"""Connections from one address: the kernel searches long for a port once half of them are taken."""
_WARM_REQUESTS = 200
_SPARE_FILES = 200
_SETTLED_WITHIN = 5.0
_LOOK_EVERY = 0.1
_STILL_FOR = 6
"""How many looks in a row must find the same memory."""
_SAME = 64 * 1024
_PATIENCE = 10.0


def bytes_per_connection(server: Program, connections: int) -> float:
    """Open `connections` to a server that has none, and return what each of them weighs."""
    with held(server, connections, ASYNC.target) as each:
        return each


@contextmanager
def held(server: Program, connections: int, target: str) -> Iterator[float]:
    """So many idle connections inside the block, each with one request answered.

    Gives what each of them weighs, in bytes. The server must have had none.
    """
    require_files(connections)
    request = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    with connection(server) as warm:
        for _ in range(_WARM_REQUESTS):
            ask(server, warm, request)
    before = settled(server)
    with ExitStack() as stack:
        idle: list[socket.socket] = []
        for number in range(connections):
            idle.append(stack.enter_context(connection(server, source(number))))
            ask(server, idle[-1], request)
        after = settled(server)
        _require_open(server, idle)
        yield (after - before) / connections


def source(number: int) -> str:
    """The address that the connection of this number comes from.

    Not 127.0.0.1: ports that were just closed stay taken for a minute, and the load needs some.
    """
    return f"127.0.0.{2 + number // _PER_ADDRESS}"


def require_files(connections: int) -> None:
    """Allow as many open files as are needed, here and in servers started from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise ComparisonError(
            f"{connections} connections need {needed} open files; this session may have {hard}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def connection(server: Program, address: str = "") -> Iterator[socket.socket]:
    """A connection for the block, from one of the addresses of this machine."""
    try:
        opened = _connected(server.port, address)
    except OSError as error:
        raise ComparisonError(f"{server.label} takes no connection: {error}.") from error
    with opened:
        yield opened


def _connected(port: int, address: str) -> socket.socket:
    opened = socket.socket()
    try:
        opened.settimeout(_PATIENCE)
        if address:
            # Else the address has no port left once connections to earlier servers have used them all.
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            opened.bind((address, 0))
        opened.connect(("127.0.0.1", port))
    except BaseException:
        opened.close()
        raise
    return opened


def ask(server: Program, connection: socket.socket, request: bytes) -> None:
    """Send a request and read its answer, which must be JSON of one object."""
    try:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            received = connection.recv(4096)
            if not received:
                raise ComparisonError(f"{server.label} closes connections that ask to stay.")
            answer += received
    except OSError as error:
        raise ComparisonError(f"{server.label} answers no more: {error}.") from error


def settled(server: Program) -> int:
    """Resident memory, once it has stopped moving, or after five seconds."""
    deadline = time.monotonic() + _SETTLED_WITHIN
    seen = [resident_bytes(server.pid)]
    while time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)
        seen.append(resident_bytes(server.pid))
        still = seen[-_STILL_FOR:]
        if len(still) == _STILL_FOR and max(still) - min(still) <= _SAME:
            break
    server.require_alive()
    return seen[-1]


def _require_open(server: Program, idle: list[socket.socket]) -> None:
    """Raise ComparisonError when the server closed some of what was just weighed."""
    poll = select.poll()
    for connection in idle:
        poll.register(connection, select.POLLIN)
    closed = len(poll.poll(0))
    if closed:
        raise ComparisonError(f"{server.label} closed {closed} of {len(idle)} idle connections.")
