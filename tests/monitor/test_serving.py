"""`--metrics` and `--stats-socket` of a server that runs: what is where, and what stays of it."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import signal
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from support.cli import Command, RunCli
from support.gate import SOURCE, Gate
from support.types import Connect, Serve

from treadle import App
from treadle.binding import BindError, Binding
from treadle.monitor import setup
from treadle.monitor.client import MonitorError, connect
from treadle.options import OptionError
from treadle.telemetry import Stats

APP = (
    SOURCE
    + """
@app.get("/items/{id}")
def item(id: int):
    return {"pid": os.getpid()}

@app.get("/block")
def blocking():
    block()

@app.lifespan
async def lifespan(app):
    if "GATE" in os.environ:
        hold()
    yield
"""
)


def small() -> App:
    app = App()

    @app.get("/items/{id}")
    def item(id: int) -> dict[str, int]:
        return {"id": id}

    return app


def samples(body: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def answered(body: bytes, route: str = "/items/{id}", method: str = "GET") -> float:
    labels = (("method", method), ("route", route), ("status_class", "2xx"))
    return samples(body).get(("treadle_http_requests_total", labels), 0)


def fetch(url: str) -> bytes:
    host, path = url.removeprefix("http://").split("/", 1)
    with closing(http.client.HTTPConnection(host, timeout=10)) as connection:
        connection.request("GET", f"/{path}")
        with connection.getresponse() as answer:
            assert answer.status == 200
            return answer.read()


def places(command: Command) -> tuple[str, str]:
    """Where metrics and stats are, by the second line that the command prints."""
    line = command._read_line()
    found = re.fullmatch(r"treadle: metrics at (http://\S+/metrics) · stats at (\S+)", line)
    assert found is not None, line
    return found[1], found[2]


# -- metrics ---------------------------------------------------------------------------------------


def test_a_listener_of_its_own_tells_the_metrics_and_the_stats(serve: Serve, raw: Connect) -> None:
    server = serve(small(), metrics="127.0.0.1:0")
    client = raw(server)
    for number in range(3):
        assert client.get(f"/items/{number}").status == 200
    assert client.get("/metrics").status == 404
    assert server.monitor is not None
    url = server.monitor.url
    assert url is not None
    body = fetch(url)
    assert answered(body) == 3
    assert b"/items/1" not in body
    unmatched = (("method", "unmatched"), ("route", "unmatched"), ("status_class", "4xx"))
    assert samples(body)["treadle_http_requests_total", unmatched] == 1
    stages = {dict(labels).get("stage") for name, labels in samples(body) if "_stage_" in name}
    assert {"run", "serialize", "write"} <= stages
    assert connect(url).read().routes[0].requests == 3


def test_without_an_address_the_metrics_are_a_route_of_the_app(serve: Serve, raw: Connect) -> None:
    app = small()
    client = raw(serve(app, metrics=True))
    assert client.get("/items/1").status == 200
    answer = client.get("/metrics")
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answered(answer.body) == 1
    assert answered(client.get("/metrics").body, "/metrics") == 1
    openmetrics = client.get("/metrics", "Accept: application/openmetrics-text; version=1.0.0")
    assert openmetrics.body.endswith(b"# EOF\n")
    # The app itself has no more routes than before, and can be served again.
    assert [route.path for route in app._table.routes()] == ["/items/{id}"]
    assert raw(serve(app, metrics=True)).get("/metrics").status == 200


def test_a_route_of_the_app_at_that_path_is_refused(serve: Serve) -> None:
    app = small()

    @app.get("/metrics")
    def mine() -> None: ...

    with pytest.raises(OptionError) as caught:
        serve(app, metrics=True)
    assert re.fullmatch(
        r"metrics cannot be told at /metrics, beside the app's own GET /metrics \(\S+:\d+ \S*mine\): "
        r"give them an address of their own, such as --metrics 127\.0\.0\.1:9100\.",
        str(caught.value),
    )


def test_a_port_that_is_taken_is_refused(serve: Serve) -> None:
    taken = serve(small()).port
    with pytest.raises(BindError, match=rf"^cannot listen on 127.0.0.1:{taken}: the address is in"):
        serve(small(), metrics=f"127.0.0.1:{taken}")


def test_the_command_says_what_is_wrong_in_a_line(run_cli: RunCli, serve: Serve) -> None:
    taken = serve(small()).port
    own = 'from treadle import App\napp = App()\n@app.get("/metrics")\ndef mine(): ...\n'
    for source, args, status, said in (
        (APP, ("--metrics", f"127.0.0.1:{taken}"), 1, "cannot listen on 127.0.0.1:"),
        (own, ("--metrics",), 1, "metrics cannot be told at /metrics, "),
        (APP, ("--metrics", "9100"), 2, "--metrics must be HOST:PORT, or true for the path "),
    ):
        command = run_cli(source, *args, listens=False)
        assert command.wait() == status
        assert command.stderr.startswith(f"treadle: {said}")
        assert command.stderr.count("\n") == 1


def test_without_its_package_metrics_are_refused_in_a_line(run_cli: RunCli) -> None:
    (run_cli.folder / "sitecustomize.py").write_text(
        "import sys\nsys.modules['prometheus_client'] = None\n"
    )
    command = run_cli(APP, "--metrics", listens=False, env={"PYTHONPATH": str(run_cli.folder)})
    assert command.wait() == 1
    said = "treadle: metrics need prometheus_client: pip install 'treadle[metrics]'.\n"
    assert command.stderr == said


def test_a_server_that_was_not_asked_imports_nothing_for_it(run_cli: RunCli) -> None:
    source = (
        APP.replace("import asyncio, os, socket", "import asyncio, os, socket, sys")
        + '@app.get("/modules")\ndef modules():\n    return sorted(sys.modules)\n'
    )
    command = run_cli(source, env={"PYTHONPATH": ""})
    modules = fetch(f"{command.url}/modules").decode()
    assert "treadle.server" in modules
    assert not [
        name
        for name in ("prometheus_client", "textual", "treadle.monitor.setup", "http.server")
        if f'"{name}"' in modules
    ]


# -- the stats socket ------------------------------------------------------------------------------


def test_the_stats_socket_is_its_owners_and_goes_with_the_server(
    run_cli: RunCli, raw: Connect, folder: Path
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent)}
    command = run_cli(APP, "--stats-socket", "--metrics", "127.0.0.1:0", env=runtime)
    url, path = places(command)
    assert path == f"{folder}/{command.pid}.sock"
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert raw(command).get("/items/1").status == 200
    told = connect(command.pid).read()
    assert (told.pid, told.routes[0].template) == (command.pid, "/items/{id}")
    assert connect(url).read().pid == command.pid
    assert command.stop() == 0
    assert os.listdir(folder) == []
    assert command.stderr == ""
    with pytest.raises(MonitorError, match=rf"^there is no process {command.pid}\.$"):
        connect(command.pid)


def test_a_server_that_was_killed_leaves_nothing_that_stays(run_cli: RunCli, folder: Path) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent)}
    args = ("--stats-socket", "--workers", "2", "--lanes", "1")
    killed = run_cli(APP, *args, env=runtime)
    worker = connect(killed.pid).read()
    assert worker.pid == killed.pid
    killed.send(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    # Its workers leave by themselves, and hold their files until then.
    while not setup._is_abandoned(f"{folder}/{killed.pid}.workers"):
        os.sched_yield()
    assert sorted(os.listdir(folder)) == [f"{killed.pid}.sock", f"{killed.pid}.workers"]
    command = run_cli(APP, "--stats-socket", env=runtime)
    assert os.listdir(folder) == [f"{command.pid}.sock"]
    assert command.stop() == 0


def test_no_other_server_sweeps_while_one_binds(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, alone = setup.bind_unix, []

    def bind(path: str, backlog: int, *, private: bool = False) -> Binding:
        other = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            alone.append(path)
        finally:
            os.close(other)
        return real(path, backlog, private=private)

    monkeypatch.setattr(setup, "bind_unix", bind)
    serve(small(), stats_socket=True)
    assert alone == [f"{folder}/{os.getpid()}.sock"]


def test_a_stats_socket_in_a_place_of_its_own(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    server = serve(small(), stats_socket=str(path))
    assert connect(str(path)).read().pid == os.getpid()
    with pytest.raises(BindError, match=r"x\.sock: another process listens there\.$"):
        serve(small(), stats_socket=str(path))
    server.stop()
    assert not path.exists()


def test_a_folder_that_others_may_enter_is_no_place_for_it(serve: Serve, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(BindError, match=r"^cannot put a stats socket there: .* mode 0700\.$"):
        serve(small(), stats_socket=True)


@pytest.mark.parametrize("lanes", [1])
def test_it_answers_while_every_lane_stands_still(
    run_cli: RunCli, gate: Gate, raw: Connect, folder: Path, lanes: int
) -> None:
    source = APP.replace("        hold()\n", "        pass\n")
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent), **gate.env}
    command = run_cli(
        source, "--stats-socket", "--stall-warning", "0", "--lanes", str(lanes), env=runtime
    )
    client = raw(command)
    client.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    server = connect(command.pid)
    first, second = server.read(), server.read()
    (before,), (after,) = first.lanes, second.lanes
    assert (before.in_flight, after.in_flight) == (1, 1)
    # What stands still is running, and not polling.
    assert after.running > before.running
    assert after.polling - before.polling < after.running - before.running
    arrival.release()
    assert client.response().status == 204
    assert command.stop() == 0


# -- workers ---------------------------------------------------------------------------------------


def requests(told: Stats) -> float:
    return sum(route.requests for route in told.routes if route.template == "/items/{id}")


def pid_of(client: Any) -> int:
    found = re.search(rb"\d+", client.get("/items/1").body)
    assert found is not None
    return int(found[0])


def test_the_answer_is_of_all_workers_and_keeps_what_dead_ones_counted(
    run_cli: RunCli, gate: Gate, raw: Connect, folder: Path
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent), **gate.env}
    command = run_cli(
        *(APP, "--stats-socket", "--metrics", "127.0.0.1:0", "--workers", "2", "--lanes", "1"),
        env=runtime,
    )
    url, path = places(command)
    arrivals = [gate.arrival(), gate.arrival()]
    # A connection to each: a worker that is blocked accepts nothing.
    blocked = raw(command)
    blocked.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    arrivals.append(gate.arrival())
    other = raw(command)
    first = pid_of(other)
    arrivals[-1].release()
    assert blocked.response().status == 204
    assert pid_of(blocked) != first
    for _ in range(4):  # whoever accepts
        told = connect(path).read()
        assert (told.pid, requests(told)) == (command.pid, 2)
        assert [lane.index for lane in told.lanes] == [0, 1]
        assert answered(fetch(url)) == 2
    os.kill(first, signal.SIGKILL)
    gate.arrival()
    command.wait_for_stderr("starting another\n")
    with raw(command) as client:
        pid_of(client)
    while answered(body := fetch(url)) != 3:  # a moment in which the new one does not answer yet
        assert answered(body) == 2
    assert connect(str(command.pid)).read().pid == command.pid
    assert command.stop() == 0
    assert os.listdir(folder) == []


def test_metrics_on_the_apps_port_are_of_all_workers(
    run_cli: RunCli, gate: Gate, raw: Connect, folder: Path
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent), **gate.env}
    command = run_cli(APP, "--metrics", "--workers", "2", "--lanes", "1", env=runtime)
    gate.arrival(), gate.arrival()
    blocked = raw(command)
    blocked.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    other = raw(command)
    pid_of(other)
    arrival.release()
    assert blocked.response().status == 204
    pid_of(blocked)
    assert answered(other.get("/metrics").body) == 2
    assert answered(blocked.get("/metrics").body) == 2
    assert command.stop() == 0
    assert command.stderr == ""
    assert os.listdir(folder) == []
