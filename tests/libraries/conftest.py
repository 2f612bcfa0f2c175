"""The servers that the libraries talk to, one of each for all tests, and where the loop runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import servers

import treadle

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["main thread", "another thread"])
def run(request: pytest.FixtureRequest) -> Run:
    """`treadle.run` on the main thread, and on another one."""
    if request.param == "main thread":
        return treadle.run

    def run_elsewhere(main: Coroutine[Any, Any, Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(treadle.run, main).result()

    return run_elsewhere


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    with servers.postgres() as folder:
        yield folder


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.Redis]:
    with servers.redis() as server:
        yield server


@pytest.fixture(scope="session")
def nginx() -> Iterator[servers.Nginx]:
    with servers.nginx() as server:
        yield server
