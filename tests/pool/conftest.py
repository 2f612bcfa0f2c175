"""A pool of four lanes, and the loops that its handles are awaited on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import treadle
from treadle import LoopPool

LANES = 4


@pytest.fixture
def pool() -> Iterator[LoopPool]:
    with LoopPool(lanes=LANES) as pool:
        yield pool


@pytest.fixture(params=[treadle.run, asyncio.run])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param  # type: ignore[no-any-return]
