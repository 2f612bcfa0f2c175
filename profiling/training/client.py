"""Asks the service: of many connections one request each, then several behind each other."""

import json
import socket
from collections.abc import Iterator

CONNECTIONS = 32
DEPTH = 4
"""Requests that are sent behind each other."""

_HEADERS = (
    "Host: shop.example\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n"
    "Accept: application/json,text/html;q=0.9,*/*;q=0.8\r\n"
    "Accept-Encoding: gzip, deflate, br\r\n"
    "Cookie: user=ann; theme=dark\r\n"
)
_BRIEF = "Host: shop.example\r\nAccept: */*\r\n"


def _get(target: str, headers: str = _HEADERS, method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\n{headers}\r\n".encode()


def _send(method: str, target: str, body: object) -> bytes:
    data = json.dumps(body).encode()
    head = f"{_HEADERS}Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return _get(target, head, method) + data


def _chunked(target: str, parts: list[bytes]) -> bytes:
    sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])
    return _get(target, f"{_HEADERS}Transfer-Encoding: chunked\r\n", "POST") + sent


_PRODUCT = {"name": "a lamp", "price": 12.5, "tags": ["new", "bright"]}

# What is asked most comes several times.
MIX: list[bytes] = [
    *3 * [_get("/shop/products/7"), _get("/shop/products/7", _BRIEF)],
    *3 * [_get("/shop/products?page=2&size=3&order=price"), _get("/health", _BRIEF)],
    *2
    * [_get("/shop/cached"), _get("/shop/cached", _BRIEF), _get("/shop/products?size=1", _BRIEF)],
    *2 * [_send("POST", "/shop/products", _PRODUCT), _send("POST", "/shop/notes", {"a": [1, 2.5]})],
    _send("PUT", "/shop/products/3/amount", {"quantity": 4}),
    _get("/shop/products/3", method="DELETE"),
    _get("/shop/orders/7b7fa4ab-0d43-4f6f-a1e0-3c7f4a4f5f5e"),
    _get("/shop/stock/north/hall%204?tag=a&tag=b%20c"),
    _get("/shop/stock/south"),
    _get("/shop/overview"),
    _get("/"),
    _get("/picture"),
    _get("/", method="HEAD"),
    _get("/shop/export"),
    _get("/shop/report"),
    _get("/old"),
    _chunked("/shop/pictures", [bytes(2000), bytes(300)]),
]
RARE: list[bytes] = [
    _get("/shop/products/700"),
    _get("/absent"),
    _get("/shop/products/x"),
    _send("POST", "/shop/products", {"name": "", "price": -1}),
    _get("/health", method="OPTIONS"),
    _get("/health", method="POST"),
]
"""What does not go well, once in a while."""


def ask(address: tuple[str, int], rounds: int, only: bytes = b"") -> Iterator[int]:
    """Yields the number of answers after each round; `only` is the method of those that are asked.

    Raises OSError, and ValueError where an answer is missing or the service failed.
    """
    answered = 0
    for size, depth in ((CONNECTIONS, 1), (CONNECTIONS, DEPTH), (1, 1)):
        connections = [socket.create_connection(address, timeout=30) for _ in range(size)]
        for number in range(rounds):
            mix = [*MIX, RARE[number % len(RARE)]]
            mix = [request for request in mix if request.startswith(only)]
            for place in range(len(mix)):
                # Neighbours ask different things, and the same thing comes in bursts, too.
                bursts = [mix[(place + n * (number % 2)) % len(mix)] for n in range(size)]
                for connection, request in zip(connections, bursts, strict=True):
                    connection.sendall(request * depth)
                for connection, request in zip(connections, bursts, strict=True):
                    _read(connection, depth, head=request.startswith(b"HEAD"))
                answered += size * depth
            yield answered
        for connection in connections:
            connection.close()


def _read(connection: socket.socket, count: int, *, head: bool) -> None:
    """Reads so many answers."""
    data = b""
    while count:
        end = _end(data, head=head)
        if end is None:
            more = connection.recv(1 << 18)
            if not more:
                raise ValueError(f"the connection ended within an answer: {data[:200]!r}")
            data += more
        else:
            data = data[end:]
            count -= 1


def _end(data: bytes, *, head: bool) -> int | None:
    """Where the first answer in `data` ends; None if that is still to come."""
    body = data.find(b"\r\n\r\n") + 4
    if body < 4:
        return None
    fields = data[: body - 2].lower()
    if fields.startswith(b"http/1.1 5"):
        raise ValueError(f"the service failed: {data[:200]!r}")
    if head or fields.startswith(b"http/1.1 204"):
        return body
    start = fields.find(b"\r\ncontent-length: ")
    if start >= 0:
        end = body + int(fields[start + 18 : fields.index(b"\r\n", start + 2)])
        return end if end <= len(data) else None
    last = data.find(b"0\r\n\r\n", body)  # no part of an answer here ends so
    return None if last < 0 else last + 5
