"""Options: what is read from where, and what is said of what cannot be read."""

from __future__ import annotations

import os
from typing import Any, get_args, get_type_hints

import pytest

from treadle import TreadleError, interpreter, options
from treadle.options import OptionError, Options
from treadle.run_options import RunOptions


def resolve(**arguments: Any) -> Options:
    return Options.resolve(env={}, **arguments)


def refusal(**arguments: Any) -> str:
    with pytest.raises(OptionError) as caught:
        resolve(**arguments)
    return str(caught.value)


@pytest.fixture
def gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "gil_enabled", lambda: True)


@pytest.fixture
def no_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "gil_enabled", lambda: False)


def test_defaults_are_those_of_the_documentation() -> None:
    assert vars(resolve()) == {
        "host": "127.0.0.1",
        "port": 8000,
        "uds": None,
        "backlog": 2048,
        "lanes": resolve().lanes,
        "workers": 1,
        "offload_threads": min(32, options.cores() + 4),
        "limit_body": 16 * 1024 * 1024,
        "limit_connections": 0,
        "limit_concurrency": 0,
        "timeout_header": 10.0,
        "timeout_keep_alive": 75.0,
        "timeout_request": 60.0,
        "timeout_write": 60.0,
        "grace": 10.0,
        "log_level": "info",
        "access_log": False,
        "telemetry": True,
        "require_free_threading": False,
        "metrics": False,
        "stats_socket": False,
        "stall_warning": 0.1,
    }


def test_an_argument_beats_the_command_line_and_that_the_environment() -> None:
    env = {"TREADLE_PORT": "1", "TREADLE_BACKLOG": "1", "TREADLE_WORKERS": "1"}
    cli = {"port": "2", "backlog": "2"}
    resolved = Options.resolve(cli=cli, env=env, port=3)
    assert (resolved.port, resolved.backlog, resolved.workers) == (3, 2, 1)


def test_what_is_none_or_an_empty_variable_counts_as_not_given() -> None:
    resolved = Options.resolve(cli={"port": None}, env={"TREADLE_PORT": ""}, port=None)
    assert resolved.port == 8000


def test_the_environment_of_the_process_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREADLE_LIMIT_CONNECTIONS", "7")
    assert Options.resolve().limit_connections == 7


def test_every_option_has_its_flag_its_variable_and_a_help_text() -> None:
    table = Options.table()
    assert [option.name for option in table] == list(Options.__annotations__)
    for option in table:
        assert option.flag == "--" + option.name.replace("_", "-")
        assert option.env == "TREADLE_" + option.name.upper()
        assert option.help
        assert option.default
        assert option.boolean or option.metavar


def test_the_arguments_of_run_are_the_options_with_types_that_take_their_defaults() -> None:
    hints = get_type_hints(RunOptions)
    assert list(hints) == [option.name for option in Options.table()]
    for option in Options.table():
        stored = option.unset()
        kind = float if option.metavar == "SECONDS" else type(stored)
        assert kind in get_args(hints[option.name]), option.name
        assert str in get_args(hints[option.name]), option.name


def test_every_default_is_a_value_that_the_option_takes() -> None:
    for option in Options.table():
        if option.default not in ("none", "cores + 4, at most 32"):
            option.read(option.default)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1500", 1500),
        ("2k", 2048),
        ("512K", 512 * 1024),
        ("16M", 16 << 20),
        ("16 M", 16 << 20),
        ("16MB", 16 << 20),
        ("16MiB", 16 << 20),
        ("1g", 1 << 30),
        (" 3 ", 3),
        (1234, 1234),
    ],
)
def test_sizes_are_bytes_with_or_without_a_unit(text: object, number: int) -> None:
    assert resolve(limit_body=text).limit_body == number


@pytest.mark.parametrize(
    "value", ["", " ", "M", "-1", -1, "1.5M", "1T", "1kk", True, 1.5, "9" * 99]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    expected = "limit_body must be a number of bytes such as 65536, 512K or 16M"
    assert refusal(limit_body=value) == f"{expected}, not {value!r}."


@pytest.mark.parametrize(("value", "seconds"), [("0", 0.0), (2, 2.0), ("1.5", 1.5), (0.25, 0.25)])
def test_durations_are_seconds(value: object, seconds: float) -> None:
    assert resolve(grace=value).grace == seconds


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", -0.001, "-1", float("nan"), 1e99, 10**400, "5s", "", True, []]
)
def test_what_is_no_duration_is_refused(value: object) -> None:
    expected = "grace must be a number of seconds from 0 to 31536000"
    assert refusal(grace=value) == f"{expected}, not {value!r}."


@pytest.mark.parametrize(
    "value", ["65536", -1, "-1", "http", "80.0", 80.0, "8_0", "٣", True, "9" * 5000]
)
def test_what_is_no_port_is_refused(value: object) -> None:
    assert refusal(port=value) == f"port must be an integer from 0 to 65535, not {value!r}."


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("on", True), ("YES", True), ("false", False), ("0", False)]
)
def test_switches_are_words_in_the_environment(text: str, value: bool) -> None:
    assert Options.resolve(env={"TREADLE_ACCESS_LOG": text}).access_log is value


def test_a_value_is_refused_by_the_name_it_was_given_by() -> None:
    for source, label in (
        ({"cli": {"timeout_header": "x"}, "env": {}}, "--timeout-header"),
        ({"env": {"TREADLE_TIMEOUT_HEADER": "x"}}, "TREADLE_TIMEOUT_HEADER"),
        ({"timeout_header": "x", "env": {}}, "timeout_header"),
    ):
        with pytest.raises(OptionError) as caught:
            Options.resolve(**source)
        expected = f"{label} must be a number of seconds from 0 to 31536000, not 'x'."
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("host", " ", "a non-empty string"),
        ("host", "a\0b", "a non-empty string"),
        ("uds", "", "a path"),
        ("uds", b"x", "a path"),
        ("backlog", 0, "an integer from 1 to 65535"),
        ("workers", "0", "an integer from 1 to 1024"),
        ("workers", "auto", "an integer from 1 to 1024"),
        ("lanes", 0, "auto or an integer from 1 to 1024"),
        ("lanes", "many", "auto or an integer from 1 to 1024"),
        ("offload_threads", 0, "an integer from 1 to 4096"),
        ("log_level", "loud", "one of debug, info, warning, error, critical"),
        ("access_log", "maybe", "true or false"),
        ("access_log", 1, "true or false"),
    ],
)
def test_a_refusal_says_what_would_do(option: str, value: object, expected: str) -> None:
    assert refusal(**{option: value}) == f"{option} must be {expected}, not {value!r}."


def test_an_unknown_option_is_refused_with_the_nearest_known() -> None:
    assert refusal(prot=1) == "there is no option 'prot'; did you mean 'port'?"
    assert refusal(xyzzy=1) == "there is no option 'xyzzy'."
    with pytest.raises(OptionError, match="'xyzzy'"):
        Options.resolve(cli={"xyzzy": 1})


def test_a_path_like_is_a_path(tmp_path: os.PathLike[str]) -> None:
    assert resolve(uds=tmp_path).uds == os.fspath(tmp_path)


@pytest.mark.usefixtures("no_gil")
def test_auto_lanes_are_the_cores_shared_by_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cores", lambda: 8)
    assert resolve().lanes == 8
    assert resolve(lanes="AUTO").lanes == 8
    assert resolve(workers=2).lanes == 4
    assert resolve(workers=16).lanes == 1
    assert resolve(lanes=3, workers=16).lanes == 3


@pytest.mark.usefixtures("gil")
def test_auto_is_one_lane_with_the_gil() -> None:
    assert resolve().lanes == 1
    assert resolve(lanes=1).lanes == 1


@pytest.mark.usefixtures("gil")
def test_more_lanes_with_the_gil_are_refused_with_what_to_use() -> None:
    text = refusal(lanes=4)
    assert text.startswith("lanes must be 1, not 4, ")
    assert text.endswith(": use --workers 4 to serve on 4 cores.")
    assert "GIL" in text


def test_workers_need_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    assert refusal(workers=2) == "workers must be 1 on this system, which has no fork."


def test_options_do_not_change() -> None:
    with pytest.raises(AttributeError, match="do not change"):
        resolve().port = 1  # type: ignore[misc]


def test_an_option_error_is_a_value_error_and_one_of_treadles() -> None:
    assert issubclass(OptionError, ValueError)
    assert issubclass(OptionError, TreadleError)
