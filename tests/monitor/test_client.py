"""Reading a server from outside: by process, path and URL, and what is said where that fails."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.figures import stats

from treadle.binding import Binding, bind_tcp, bind_unix
from treadle.monitor import client, places
from treadle.monitor.client import MonitorError, Unavailable, connect, running
from treadle.monitor.service import Service
from treadle.telemetry import Stats

Answer = Callable[..., None]


@pytest.fixture
def answer() -> Iterator[Answer]:
    """`answer(binding)` has a service answer there until the test ends."""
    with ExitStack() as opened:

        def begin(binding: Binding, read: Callable[[], Stats] = stats) -> None:
            opened.enter_context(binding)
            started = Service()
            started.add(binding.sockets[0], read, metrics=True)
            started.start()
            opened.callback(started.stop)

        yield begin


@pytest.fixture
def own(folder: Path) -> str:
    """Where a server in this process would have its stats socket."""
    path = places.default_path(os.getpid())
    places.ensure_folder(os.path.dirname(path))
    return path


def failure(target: int | str) -> str:
    with pytest.raises(MonitorError) as caught:
        connect(target)
    return str(caught.value)


def test_a_process_is_read_by_its_number(own: str, answer: Answer) -> None:
    answer(bind_unix(own, 8, private=True))
    for target in (os.getpid(), str(os.getpid())):
        with connect(target) as server:
            assert server.read() == stats()
            assert server.label == f"process {os.getpid()}"
    assert running() == {os.getpid(): own}


def test_a_worker_is_read_with_its_parent(own: str, answer: Answer) -> None:
    answer(bind_unix(own, 8, private=True))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            assert connect(child.pid).label == f"process {os.getpid()}"
        finally:
            child.kill()


def test_a_socket_is_read_by_its_path(tmp_path: Path, answer: Answer) -> None:
    path = str(tmp_path / "my.sock")
    answer(bind_unix(path, 8, private=True))
    assert connect(path).read() == stats()


def test_a_listener_is_read_by_its_url(answer: Answer) -> None:
    binding = bind_tcp("127.0.0.1", 0, 8)
    answer(binding)
    for url in (binding.url, f"{binding.url}/", f"{binding.url}/metrics"):
        assert connect(url).read() == stats()


def test_a_process_that_is_not_there_is_said() -> None:
    assert failure(2**22 + 1) == "there is no process 4194305."


def test_a_process_that_did_not_opt_in_is_told_how(folder: Path) -> None:
    said = failure(os.getpid())
    assert said.startswith(f"process {os.getpid()} cannot be looked at: it has to be started with ")
    assert said.endswith("--stats-socket, and if that was given a PATH, be named by it.")
    assert running() == {}


def test_a_socket_that_a_dead_server_left_is_not_running(own: str) -> None:
    binding = bind_unix(own, 8)
    binding.sockets[0].close()
    assert running() == {}
    said = f"process {os.getpid()} does not answer: Connection refused."
    assert failure(os.getpid()) == said


def test_a_path_without_a_socket_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    assert failure(str(path)) == f"there is no stats socket at {path}."
    path.touch()
    assert failure(str(path)) == f"{path} does not answer: Connection refused."


def test_another_users_process_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert failure(os.getpid()) == f"process {os.getpid()} belongs to another user."
    assert failure(str(Path(__file__))) == f"{__file__} belongs to another user."


def test_a_server_that_refuses_us_is_said(
    own: str, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(bind_unix(own, 8, private=True))
    real = places.peer
    threads = {threading.get_ident()}

    def stranger(connection: socket.socket) -> tuple[int, int]:
        # As the server sees it; the client sees what is.
        pid, uid = real(connection)
        return pid, uid if threading.get_ident() in threads else uid + 1

    monkeypatch.setattr(places, "peer", stranger)
    assert failure(own) == f"{own} belongs to another user."


def test_an_impostor_is_not_believed(
    own: str, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(bind_unix(own, 8, private=True))
    monkeypatch.setattr(places, "peer", lambda connection: (1, 12345))
    assert failure(own) == f"{own} belongs to another user."


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "https://127.0.0.1:1",
            "https://127.0.0.1:1 cannot be read: a --metrics listener speaks http.",
        ),
        ("http://", "http:// is no URL: it lacks a host."),
        ("http://x:y", "http://x:y is no URL: Port could not be cast to integer value as 'y'."),
        ("http://127.0.0.1:1", "http://127.0.0.1:1 does not answer: Connection refused."),
    ],
)
def test_what_is_no_url_of_a_listener_is_said(url: str, said: str) -> None:
    assert failure(url) == said


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
def test_a_host_that_no_name_can_be_is_said(host: str) -> None:
    assert re.match(
        rf"http://{re.escape(host)}:1 is no URL: .*label.*\.$", failure(f"http://{host}:1")
    )


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"220 hello\r\n", "is no stats socket: it does not speak HTTP."),
        (b"", "is no stats socket: it does not speak HTTP."),
        (b"\r\n\r\n", "is no stats socket: it does not speak HTTP."),
        (b"HTTP/1.0\r\n\r\n", "is no stats socket: it does not speak HTTP."),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{",
            "is no stats socket: the answer is incomplete.",
        ),
        (b"HTTP/1.0 404 No\r\n\r\n", "tells no statistics of Treadle."),
        (b"HTTP/1.0 500 No\r\n\r\n", "could not read its statistics; its log says why."),
        (
            b"HTTP/1.0 200 OK\r\n\r\n[]",
            "tells no statistics of Treadle: Expected `object`, got `array`.",
        ),
    ],
)
def test_a_server_of_something_else_is_said(sent: bytes, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert failure(url) == f"{url} {said}"
        thread.join()


def test_a_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert failure(url) == f"{url} did not answer within 0.05 s."


def test_a_server_that_goes_away_is_unavailable(answer: Answer) -> None:
    with bind_tcp("127.0.0.1", 0, 8) as binding:
        running_service = Service()
        running_service.add(binding.sockets[0], stats, metrics=False)
        running_service.start()
        server = connect(binding.url)
        running_service.stop()
    with pytest.raises(Unavailable, match=r"does not answer: Connection refused\.$"):
        server.read()
