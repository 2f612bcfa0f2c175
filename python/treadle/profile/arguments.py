"""The command line of `treadle profile`, and what it means."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from treadle.profile import scenario
from treadle.profile.samplers import NAMES as SAMPLERS
from treadle.profile.scenario import Scenario

__all__ = ["Asked", "UsageError", "fill", "read"]

DURATION = 10.0
READINGS = 40
"""How often the statistics are read in a run, about."""
ANY_STATUS = tuple(range(200, 600))
_REQUEST = ("path", "method", "header", "body")
_NOT_ATTACHED = (
    *_REQUEST,
    *("scenario", "allow_errors", "concurrency", "warmup", "rate", "factory", "lanes", "port"),
)
"""What is for a server that is started, and for a load that is driven."""


class UsageError(Exception):
    """The command line asks for what cannot be. The text is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for; durations are seconds."""

    app: str | None
    factory: bool
    attach: str | None
    scenario: Scenario | None
    """None when a running server is only looked at."""
    duration: float
    lanes: int | None
    port: int
    sampler: str
    budget: bool
    bridge: str | None
    allow_errors: bool
    output: Path | None
    json: Path | None

    @property
    def interval(self) -> float:
        """Between two readings of the statistics."""
        return max(0.1, min(1.0, self.duration / READINGS))

    @property
    def name(self) -> str:
        """What is profiled."""
        if self.app is not None:
            return self.app
        attach = str(self.attach)
        return f"process {attach}" if attach.isdecimal() else attach


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `treadle profile`."""
    parser.add_argument("app", nargs="?", metavar="MODULE:ATTRIBUTE", help="the app to start")
    add = parser.add_argument
    add("--factory", action="store_true", help="MODULE:ATTRIBUTE is a function that makes the app")
    add(
        "--attach",
        metavar="PID|URL|PATH",
        help="read a running server instead: one started with --stats-socket or --metrics HOST:PORT",
    )
    what = parser.add_argument_group("what is asked for")
    add = what.add_argument
    add("--path", metavar="PATH", help="path and query, such as /users/7 (default: /)")
    add("--method", metavar="METHOD", help="default: GET, or POST with a body")
    add("--header", action="append", default=[], metavar="NAME:VALUE", help="may be repeated")
    add("--body", metavar="TEXT|@FILE", help="the request's body")
    add("--scenario", type=Path, metavar="FILE.toml", help="several requests with weights")
    add(
        "--allow-errors",
        action="store_true",
        help="profile answers of 4xx and 5xx like any others",
    )
    how = parser.add_argument_group("how")
    add = how.add_argument
    add("--concurrency", metavar="N", help="connections (default: 64)")
    add("--duration", metavar="SECONDS", help="measured time (default: 10)")
    add("--warmup", metavar="SECONDS", help="time before that (default: 1)")
    add(
        "--rate",
        metavar="N",
        help="requests a second, sent on time whatever the server does (default: as many as it "
        "answers)",
    )
    add("--lanes", metavar="N", help="lanes of the server (default: as treadle run)")
    add("--port", metavar="PORT", help="port of the server (default: a free one)")
    add(
        "--sampler",
        choices=SAMPLERS,
        default="auto",
        help="who samples the flame graph (default: the first that works)",
    )
    add("--no-budget", action="store_true", help="leave the async budget out")
    add(
        "--bridge",
        metavar="MODULE:FUNCTION",
        help="a function of an extension on pyo3-async-runtimes that returns an awaitable, for the "
        "budget",
    )
    out = parser.add_argument_group("where to")
    out.add_argument("--output", type=Path, metavar="FILE.html", help="write charts")
    out.add_argument("--json", type=Path, metavar="FILE", help="write everything")


def read(given: dict[str, Any]) -> Asked:
    """What was given, checked. Raises `UsageError`."""
    if (given["app"] is None) == (given["attach"] is None):
        raise UsageError("name either an app, such as main:app, or a running server by --attach.")
    named = [f"--{name}" for name in _REQUEST if given[name]]
    if given["attach"] is not None:
        _only_looks(given)
    if given["scenario"] is not None and named:
        raise UsageError(f"{named[0]} and --scenario exclude each other.")
    for name in ("output", "json"):
        file: Path | None = given[name]
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"--{name} {file}: there is no folder {file.absolute().parent}.")
    found = None if given["attach"] else _scenario(given)
    duration = found.duration if found is not None else _number(given, "duration")
    return Asked(
        app=given["app"],
        factory=given["factory"],
        attach=given["attach"],
        scenario=found,
        duration=DURATION if duration is None else duration,
        lanes=None if given["lanes"] is None else _whole(given, "lanes", 1, 1024),
        port=0 if given["port"] is None else _whole(given, "port", 0, 65_535),
        sampler=given["sampler"],
        budget=not given["no_budget"],
        bridge=given["bridge"],
        allow_errors=given["allow_errors"],
        output=given["output"],
        json=given["json"],
    )


def _only_looks(given: dict[str, Any]) -> None:
    """Refuses what `--attach` would leave undone."""
    for name in _NOT_ATTACHED:
        if given[name]:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"--attach only looks, at a server as it is: {option} is not for it.")


def _scenario(given: dict[str, Any]) -> Scenario:
    """From the file or from the options; options for how fast win over the file's."""
    how: dict[str, Any] = {name: _number(given, name) for name in ("duration", "warmup", "rate")}
    if given["concurrency"] is not None:
        how["concurrency"] = _whole(given, "concurrency", 1, scenario.MAX_CONCURRENCY)
    how = {name: value for name, value in how.items() if value is not None}
    try:
        request = {name: given[name] for name in ("method", "body")}
        found = scenario.from_arguments(
            path=given["path"] or "/", headers=given["header"], **request, **how
        )
        if given["scenario"] is not None:
            found = msgspec.structs.replace(scenario.read(given["scenario"]), **how)
    except scenario.ScenarioError as error:
        raise UsageError(str(error)) from None
    if given["allow_errors"]:
        requests = tuple(
            msgspec.structs.replace(request, expect=ANY_STATUS) for request in found.requests
        )
        found = msgspec.structs.replace(found, requests=requests)
    return found


def _number(given: dict[str, Any], name: str) -> float | None:
    if given[name] is None:
        return None
    try:
        number = float(given[name])
    except ValueError:
        number = math.nan
    if not number >= 0:
        raise UsageError(f"--{name} must be a number, 0 or above, not {given[name]!r}.")
    return number


def _whole(given: dict[str, Any], name: str, low: int, high: int) -> int:
    text = str(given[name])
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise UsageError(f"--{name} must be an integer from {low} to {high}, not {text!r}.")
    return int(text)
