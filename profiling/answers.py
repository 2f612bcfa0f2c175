"""Whether a server really does what it is timed for, asked before anything is timed."""

import http.client
import json
import socket
from typing import BinaryIO

from profiling.scenarios import ANSWER, JSON_TYPE, Scenario

_PATIENCE = 5.0
"""Seconds that one answer may take."""


def fault(port: int, scenario: Scenario) -> str | None:
    """Send the scenario's request; return what is wrong with the answer, None when nothing is."""
    try:
        return _fault(port, scenario)
    except (OSError, http.client.HTTPException) as error:
        return f"does not answer ({type(error).__name__})"


def _fault(port: int, scenario: Scenario) -> str | None:
    status, kind, body = _ask(port, scenario, scenario.body)
    if status != 200:
        return f"answers with status {status}"
    if not kind.startswith(JSON_TYPE):
        return f"answers with {kind or 'no content type'}"
    if _decoded(body) != ANSWER:
        return f"answers {body[:80]!r}"
    if scenario.bad_body is not None:
        status, _, _ = _ask(port, scenario, scenario.bad_body)
        if not 400 <= status < 500:
            return f"answers a body of the wrong type with status {status}: it validates nothing"
    if scenario.depth > 1:
        answers = _pipelined(port, scenario)
        if answers != scenario.depth:
            return f"answers {answers} of {scenario.depth} pipelined requests"
    return None


def _ask(port: int, scenario: Scenario, body: str | None) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        headers = {} if body is None else {"Content-Type": JSON_TYPE}
        connection.request(scenario.method, scenario.target, body, headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type", ""), response.read()
    finally:
        connection.close()


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _pipelined(port: int, scenario: Scenario) -> int:
    """Send all requests of a batch in one write; return how many are answered well."""
    request = f"GET {scenario.target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    good = 0
    with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE) as connection:
        connection.sendall(request * scenario.depth)
        with connection.makefile("rb") as answers:
            while good < scenario.depth:
                head = _head(answers)
                if not head or b" 200 " not in head[0]:
                    break
                length = next(
                    (line for line in head if line.lower().startswith(b"content-length:")), b":0"
                )
                if _decoded(answers.read(int(length.split(b":")[1]))) != ANSWER:
                    break
                good += 1
    return good


def _head(answers: BinaryIO) -> list[bytes]:
    """The lines of a head, up to the empty one; none at the end of the stream."""
    lines: list[bytes] = []
    while (line := answers.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return lines
