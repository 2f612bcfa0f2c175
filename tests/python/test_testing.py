"""What is offered to people who test their apps: a live server and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from treadle import App, StartupError
from treadle.binding import BindError
from treadle.options import OptionError
from treadle.testing import AsyncTestClient, LiveServer, TestClient


def hello() -> App:
    app = App()

    @app.get("/")
    async def root() -> dict[str, object]:
        return {"pid": os.getpid(), "thread": threading.get_ident()}

    return app


def journal() -> tuple[App, list[str]]:
    """An app that writes down when its lifespan begins and ends."""
    lines: list[str] = []
    app = App()

    @app.lifespan
    async def lifespan(app: App):
        lines.append("up")
        yield
        lines.append("down")

    return app, lines


def test_a_live_server_serves_this_process_from_other_threads() -> None:
    with LiveServer(hello()) as live:
        answer = httpx.get(live.url, trust_env=False).json()
        assert live.url == f"http://127.0.0.1:{live.port}"
        assert live.address == ("127.0.0.1", live.port)
        assert live.server.failed is False
    assert answer["pid"] == os.getpid()
    assert answer["thread"] != threading.get_ident()


def test_lifespans_run_between_enter_and_exit() -> None:
    app, lines = journal()
    with LiveServer(app):
        assert lines == ["up"]
    assert lines == ["up", "down"]


def test_two_servers_run_side_by_side() -> None:
    with LiveServer(hello()) as one, LiveServer(hello()) as other:
        assert one.port != other.port
        assert httpx.get(one.url, trust_env=False).status_code == 200
        assert httpx.get(other.url, trust_env=False).status_code == 200


def test_an_app_can_be_served_again_by_another_server() -> None:
    app, lines = journal()
    for _ in range(2):
        with LiveServer(app):
            pass
    assert lines == ["up", "down"] * 2


def test_a_server_that_does_not_run_says_so() -> None:
    live = LiveServer(hello())
    for attribute in ("url", "port", "address", "server"):
        with pytest.raises(RuntimeError, match="enter it with `with`"):
            getattr(live, attribute)
    assert repr(live) == "<LiveServer stopped>"
    with live:
        assert repr(live) == f"<LiveServer {live.url}>"
        with pytest.raises(RuntimeError, match="once"):
            live.start()
    live.stop()


def test_a_lifespan_that_fails_to_start_raises_with_its_cause_and_frees_the_port() -> None:
    app = App()

    @app.lifespan
    async def lifespan(app: App):
        raise ValueError("no database")
        yield

    live = LiveServer(app)
    with pytest.raises(StartupError) as caught:
        live.start()
    assert isinstance(caught.value.__cause__, ValueError)
    assert repr(live) == "<LiveServer stopped>"


def failing_shutdown() -> App:
    app = App()

    @app.lifespan
    async def lifespan(app: App):
        yield
        raise ValueError("cannot close")

    return app


def test_a_lifespan_that_fails_to_end_fails_the_test() -> None:
    live = LiveServer(failing_shutdown())
    live.start()
    with pytest.raises(RuntimeError, match="the log says how"):
        live.stop()


def test_the_tests_own_failure_is_not_hidden_by_that_of_the_end() -> None:
    with pytest.raises(KeyError), LiveServer(failing_shutdown()):
        raise KeyError


@pytest.mark.parametrize("server", [LiveServer, TestClient, AsyncTestClient])
@pytest.mark.parametrize("app", ["main:app", None])
def test_what_is_no_app_is_refused_at_once(server: type[LiveServer], app: Any) -> None:
    with pytest.raises(TypeError, match=f"serves a treadle.App, not {app!r}"):
        server(app)


def test_options_are_those_of_run() -> None:
    with LiveServer(hello(), limit_body="1K", lanes=1) as live:
        assert live.options.limit_body == 1024
    with pytest.raises(OptionError, match="'prot'"):
        LiveServer(hello(), prot=1)


def test_an_address_that_is_taken_is_said_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        live = LiveServer(hello(), port=taken.getsockname()[1])
        with pytest.raises(BindError, match="the address is in use"):
            live.start()


@pytest.mark.parametrize("name", ["workers", "log_level", "require_free_threading"])
def test_options_of_a_whole_process_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"a LiveServer has no option '{name}'"):
        LiveServer(hello(), **{name: 1})


def test_the_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_BACKLOG", "nonsense")
    assert LiveServer(hello()).options.backlog == 2048


def test_stalls_are_told_when_asked_for_alone() -> None:
    assert LiveServer(hello()).options.stall_warning == 0
    assert LiveServer(hello(), stall_warning=0.5).options.stall_warning == 0.5


def test_a_unix_socket_is_served_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with TestClient(hello(), uds=path) as client:
        assert client.get("/").status_code == 200
        assert client.live.address == str(path)
        with pytest.raises(RuntimeError, match="no port"):
            _ = client.live.port
    assert not path.exists()


def test_a_server_can_be_started_outside_the_main_thread() -> None:
    codes: list[int] = []

    def work() -> None:
        with TestClient(hello()) as client:
            codes.append(client.get("/").status_code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [200]


def test_a_test_client_is_an_httpx_client_of_the_app() -> None:
    with TestClient(hello(), headers={"x-one": "1"}) as client:
        assert isinstance(client, httpx.Client)
        assert client.headers["x-one"] == "1"
        assert client.get("/").json()["pid"] == os.getpid()
        assert client.get("/absent").status_code == 404
        assert str(client.base_url).startswith("http://127.0.0.1:")


def test_a_test_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="enter it with `with TestClient"):
        TestClient(hello()).get("/")


async def test_an_async_test_client_that_was_not_entered_says_so() -> None:
    with pytest.raises(RuntimeError, match="enter it with `async with AsyncTestClient"):
        await AsyncTestClient(hello()).get("/")


async def test_an_async_test_client_works_from_the_tests_own_loop() -> None:
    async with AsyncTestClient(hello()) as client:
        assert isinstance(client, httpx.AsyncClient)
        answers = await asyncio.gather(*(client.get("/") for _ in range(10)))
    assert [answer.status_code for answer in answers] == [200] * 10


async def test_a_lifespan_may_need_the_tests_own_loop() -> None:
    """Entering does not block the loop: what the app connects to may live on it."""
    connected = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        writer.write(b".")
        await reader.read()
        writer.close()

    database = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = database.sockets[0].getsockname()[1]
    app = App()

    @app.lifespan
    async def lifespan(app: App):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readexactly(1)
        yield
        writer.close()
        await writer.wait_closed()

    async with database, LiveServer(app):
        assert connected.is_set()


async def test_a_start_that_is_cancelled_leaves_no_server_behind() -> None:
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    ended = threading.Event()
    app = App()

    @app.lifespan
    async def lifespan(app: App):
        loop.call_soon_threadsafe(entered.set)
        try:
            await asyncio.Event().wait()
            yield
        finally:
            ended.set()

    live = LiveServer(app)
    entering = asyncio.ensure_future(live.__aenter__())
    await entered.wait()
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert ended.is_set()
    assert repr(live) == "<LiveServer stopped>"


async def test_a_start_that_is_cancelled_as_it_succeeds_is_stopped() -> None:
    app, lines = journal()
    live = LiveServer(app)
    start = live.start

    def started() -> None:
        start()
        entering.get_loop().call_soon_threadsafe(entering.cancel)

    live.start = started  # type: ignore[method-assign]
    entering = asyncio.ensure_future(live.__aenter__())
    with contextlib.suppress(asyncio.CancelledError):  # the cancellation is first, as a rule
        await entering
        await live.__aexit__(None)
    assert lines == ["up", "down"]
    assert repr(live) == "<LiveServer stopped>"


def test_the_clients_need_httpx_and_say_how_to_get_it() -> None:
    program = (
        "import sys\n"
        "sys.modules['httpx'] = None\n"
        "import treadle.testing\n"
        "try:\n    treadle.testing.TestClient\n"
        "except ModuleNotFoundError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    expected = "treadle's test clients need httpx: pip install 'treadle[testing]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_the_module_offers_what_it_lists() -> None:
    import treadle.testing

    for name in treadle.testing.__all__:
        assert getattr(treadle.testing, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = treadle.testing.absent  # type: ignore[attr-defined]
