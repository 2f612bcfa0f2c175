"""The pytest plugin that comes with `treadle.testing`, in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from treadle.testing import plugin

Outcome = Callable[..., str]


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """`outcome(test file, *arguments)` is what pytest says of it, the plugin taken in one line."""

    def run(source: str, *arguments: str, conftest: str = "") -> str:
        line = 'pytest_plugins = ["treadle.testing.plugin"]\n'
        (tmp_path / "conftest.py").write_text(line + conftest)
        (tmp_path / "test_it.py").write_text(source)
        (tmp_path / "pytest.ini").write_text(
            "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-W", "error", "-v", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    return run


def test_tests_and_fixtures_run_on_our_loop(outcome: Outcome) -> None:
    said = outcome("""
import asyncio, pytest, pytest_asyncio, treadle

@pytest_asyncio.fixture
async def loop_of_fixture():
    yield asyncio.get_running_loop()

@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def loop_of_module():
    return asyncio.get_running_loop()

async def test_function(loop_of_fixture):
    assert type(asyncio.get_running_loop()) is treadle.EventLoop
    assert loop_of_fixture is asyncio.get_running_loop()

@pytest.mark.asyncio(loop_scope="module")
async def test_module(loop_of_module):
    assert type(loop_of_module) is treadle.EventLoop
    assert loop_of_module is asyncio.get_running_loop()
""")
    assert "test_it.py::test_function PASSED" in said, said
    assert "2 passed" in said, said


def test_a_hook_of_ones_own_wins(outcome: Outcome) -> None:
    said = outcome(
        """
import asyncio
async def test_names(request):
    print(request.node.name, type(asyncio.get_running_loop()).__module__)
""",
        "-s",
        conftest="""
import asyncio, treadle
def pytest_asyncio_loop_factories(config, item):
    return {"asyncio": asyncio.SelectorEventLoop, "ours": treadle.new_event_loop}
""",
    )
    assert "test_names[asyncio] asyncio.unix_events" in said, said
    assert "test_names[ours] treadle.loop" in said, said
    assert "2 passed" in said, said


def test_servers_and_clients_are_fixtures_that_end_with_the_test(outcome: Outcome) -> None:
    said = outcome("""
import asyncio, socket
import pytest
from treadle import App

lines = []
app = App()

@app.lifespan
async def lifespan(app):
    lines.append("up")
    yield
    lines.append("down")

@app.get("/{word}")
async def echo(word: str) -> str:
    return word

def test_a_client(test_client):
    client = test_client(app, headers={"X-Test": "1"})
    assert client.get("/word").text == "word"
    assert client.headers["X-Test"] == "1"
    assert lines == ["up"]

def test_it_has_ended():
    assert lines == ["up", "down"]

async def test_a_server(live_server):
    servers = [live_server(app, lanes=1) for _ in range(2)]
    for server in servers:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"GET /served HTTP/1.1\\r\\nHost: t\\r\\nConnection: close\\r\\n\\r\\n")
        assert (await reader.read()).endswith(b"served")
        writer.close()
        await writer.wait_closed()
    assert lines.count("up") == 3

def test_these_have_ended():
    assert lines.count("down") == 3
""")
    assert "4 passed" in said, said


def test_it_works_without_pytest_asyncio(outcome: Outcome) -> None:
    said = outcome("def test_it(live_server): pass", "-p", "no:asyncio", "-W", "default")
    assert "1 passed" in said, said


def test_a_pytest_asyncio_without_the_hook_is_refused() -> None:
    plugins = pluggy.PluginManager("pytest")
    plugins.register(plugin)
    config: Any = SimpleNamespace(pluginmanager=plugins)
    plugin.pytest_configure(config)
    plugins.register(object(), "asyncio")
    with pytest.raises(pytest.UsageError, match=r"whose loop can be chosen: 1\.4 or later"):
        plugin.pytest_configure(config)
