"""Scenario files and the command line's request: what they become, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.types import Serve

from treadle import App, Request, TreadleError
from treadle.profile.load import LoadJob, LoadRequest, LoadRun
from treadle.profile.scenario import Scenario, ScenarioError, from_arguments, read

type Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(toml)` is a scenario file of that text."""

    def to_file(text: str) -> Path:
        file = tmp_path / "load.toml"
        file.write_text(text, "utf-8")
        return file

    return to_file


FULL = """
duration = 10
warmup = 0.5
concurrency = 64
rate = 5000

[[request]]
name = "user"
method = "get"
path = "/users/7?full=1"
weight = 3
headers = { accept = "text/html", x-list = ["1", "2"] }
expect = [404, 200]

[[request]]
path = "/users"
json = { name = "ada", tags = [1, 2.5, true] }
"""


# -- files -----------------------------------------------------------------------------------------


def test_a_scenario_is_what_its_file_says(write: Write) -> None:
    scenario = read(write(FULL))
    assert scenario == Scenario(
        duration=10.0,
        warmup=0.5,
        concurrency=64,
        rate=5000.0,
        requests=(
            LoadRequest(
                name="user",
                method="GET",
                path="/users/7?full=1",
                weight=3.0,
                headers=(("accept", "text/html"), ("x-list", "1"), ("x-list", "2")),
                expect=(200, 404),
            ),
            LoadRequest(
                name="POST /users",
                method="POST",
                path="/users",
                headers=(("content-type", "application/json"),),
                body=b'{"name":"ada","tags":[1,2.5,true]}',
            ),
        ),
    )


def test_what_a_scenario_leaves_out_is_the_jobs_default(write: Write) -> None:
    scenario = read(write('[[request]]\npath = "/"\n'))
    assert scenario.requests == (LoadRequest(name="GET /", path="/"),)
    assert scenario.job("/a/socket") == LoadJob(
        address="/a/socket", requests=(LoadRequest(name="GET /", path="/"),)
    )
    job = read(write(FULL)).job(("127.0.0.1", 8000), timeout=2.0, duration=3.0)
    assert (job.connections, job.rate, job.warmup) == (64, 5000.0, 0.5)
    assert (job.timeout, job.duration) == (2.0, 3.0)  # what is said here goes before


@pytest.mark.parametrize(
    ("lines", "method", "body"),
    [
        ('body = "h\\u00e4"', "POST", "hä".encode()),
        ('body = ""', "POST", b""),
        ('body-file = "sub/data"', "POST", b"\x00\xff"),
        ('json = "text"', "POST", b'"text"'),
        ("json = 2026-01-02", "POST", b'"2026-01-02"'),
        ('method = "PUT"\nbody = "x"', "PUT", b"x"),
        ("", "GET", b""),
    ],
)
def test_a_body_is_a_text_a_value_or_a_file_beside_the_scenario(
    write: Write, tmp_path: Path, lines: str, method: str, body: bytes
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data").write_bytes(b"\x00\xff")
    [request] = read(write(f'[[request]]\npath = "/"\n{lines}\n')).requests
    assert (request.method, request.body) == (method, body)


def test_the_type_of_a_json_body_can_be_another(write: Write) -> None:
    text = '[[request]]\npath = "/"\njson = []\nheaders = { Content-Type = "application/x+json" }\n'
    assert read(write(text)).requests[0].headers == (("Content-Type", "application/x+json"),)


def test_requests_of_one_name_are_told_apart(write: Write) -> None:
    text = '[[request]]\npath = "/"\n' * 2 + '[[request]]\npath = "/x"\nname = "GET / #2"\n'
    names = [request.name for request in read(write(text)).requests]
    assert names == ["GET /", "GET / #2", "GET / #2 #2"]


def test_what_weighs_nothing_is_left_in_if_something_else_weighs(write: Write) -> None:
    text = '[[request]]\npath = "/"\nweight = 0\n[[request]]\npath = "/x"\n'
    assert [request.weight for request in read(write(text)).requests] == [0.0, 1.0]


ONE = '[[request]]\npath = "/"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # the file
        ("duration = 1\n", "has no [[request]]."),
        ("duration = \n", "is not TOML: "),
        ("request = []\n", "must have from 1 to 1024 requests, not 0."),
        ('request = { path = "/" }\n', "write [[request]] above each."),
        ('request = ["/"]\n', "write [[request]] above each."),
        # its keys
        (
            f"durations = 1\n{ONE}",
            "there is no key 'durations'; there are duration, warmup, concurrency, rate, request.",
        ),
        (f"duration = 0\n{ONE}", "'duration' must be a number of seconds above 0 to 2592000."),
        (f"duration = nan\n{ONE}", "'duration' must be a number, not NaN."),
        (f"duration = inf\n{ONE}", "'duration' must be a number of seconds above 0"),
        (f"duration = '1'\n{ONE}", "'duration' must be a number, not a string."),
        (f"duration = true\n{ONE}", "'duration' must be a number, not a boolean."),
        (f"duration = 1{'0' * 400}\n{ONE}", "'duration' must be a number of seconds"),
        (f"warmup = -1\n{ONE}", "'warmup' must be a number of seconds from 0 to 2592000."),
        (f"concurrency = 0\n{ONE}", "'concurrency' must be from 1 to 65536."),
        (f"concurrency = 1.5\n{ONE}", "'concurrency' must be a whole number, not a float."),
        (f"rate = 0\n{ONE}", "'rate' must be above 0 and at most 10000000 requests a second."),
        (f"rate = -inf\n{ONE}", "'rate' must be above 0"),
        (f"rate = nan\n{ONE}", "'rate' must be a number, not NaN."),
        # a request's
        ('[[request]]\nname = "a"\n', "request 1 ('a'): 'path' is missing."),
        (f"{ONE}[[request]]\n", "request 2: 'path' is missing."),
        (
            f'{ONE}[[request]]\nname = "x"\npath = "/"\nwieght = 1\n',
            "request 2 ('x'): there is no key 'wieght'; there are name, method, path, weight, "
            "headers, expect, body, json, body-file.",
        ),
        (f"{ONE}weight = -1\n", "request 1: 'weight' must be finite and not negative."),
        (f"{ONE}weight = nan\n", "request 1: 'weight' must be a number, not NaN."),
        (f"{ONE}weight = inf\n", "request 1: 'weight' must be finite and not negative."),
        (f"{ONE}weight = '3'\n", "request 1: 'weight' must be a number, not a string."),
        (f"{ONE}weight = 0\n", "'weight' is 0 in every request: one must be above."),
        (f"{ONE}weight = 1e308\n{ONE}weight = 1e308\n", "the sum of all 'weight' is too large."),
        ("[[request]]\npath = 7\n", "request 1: 'path' must be a string, not an integer."),
        ('[[request]]\npath = "x"\n', "request 1: 'path' must start with a slash, not be 'x'."),
        ('[[request]]\npath = "/a b"\n', "'path' must be percent-encoded, which '/a b' is not."),
        ('[[request]]\npath = "/ä"\n', "'path' must be percent-encoded"),
        ('[[request]]\npath = "/a#b"\n', "'path' must be percent-encoded"),
        (f'{ONE}name = " "\n', "'name' must be a printable text that is not empty."),
        (f'{ONE}name = "\\u001b[31m"\n', "'name' must be a printable text"),
        (f'{ONE}method = "GE T"\n', "'method' must be a method such as GET, not 'GE T'."),
        (f'{ONE}method = "CONNECT"\n', "'method' must be a method such as GET"),
        (f"{ONE}method = 1\n", "'method' must be a string, not an integer."),
        (f"{ONE}expect = 99\n", "'expect' must be a status from 200 to 999 or a list of them"),
        (f"{ONE}expect = ['200']\n", "'expect' must be a status from 200 to 999"),
        (f"{ONE}expect = []\n", "'expect' must have a status; leave it out for any below 400."),
        (f"{ONE}headers = []\n", "'headers' must be a table, not an array."),
        (f"{ONE}headers = {{ a = 1 }}\n", "'headers' must have a string for 'a', not an integer."),
        (f"{ONE}headers = {{ 'a b' = '' }}\n", "'headers' cannot have the name 'a b'."),
        (f'{ONE}headers = {{ a = "x\\r\\ny" }}\n', "'headers' cannot have the value 'x\\r\\ny'"),
        (f"{ONE}headers = {{ Content-Length = '1' }}\n", "'headers' cannot have 'Content-Length'"),
        (f"{ONE}body = 1\n", "'body' must be a string, not an integer."),
        (f"{ONE}body = 'a'\njson = 1\n", "'body' and 'json' cannot both be its body."),
        (f"{ONE}body-file = 'no/such'\n", "'body-file' cannot read 'no/such': No such file or"),
        (f"{ONE}body-file = '.'\n", "'body-file' cannot read '.': Is a directory."),
        (f'{ONE}body-file = "\\u0000"\n', "'body-file' cannot read '\\x00': "),
        (f"{ONE}body-file = 1979-05-27\n", "must be a string, not a date or a time."),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_sentence(
    write: Write, text: str, said: str
) -> None:
    file = write(text)
    with pytest.raises(ScenarioError) as caught:
        read(file)
    refusal = str(caught.value)
    assert refusal.startswith(f"{file}: ")
    assert said in refusal
    assert refusal.endswith(".")
    assert "\n" not in refusal


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name, said in (("missing", "No such file"), (".", "Is a directory"), ("a\0b", "null byte")):
        with pytest.raises(ScenarioError, match=f"cannot be read: .*{said}"):
            read(tmp_path / name)
    (tmp_path / "latin").write_bytes(b'name = "\xe4"')
    with pytest.raises(ScenarioError, match="is not UTF-8"):
        read(tmp_path / "latin")


def test_a_refusal_is_a_mistake_of_the_user() -> None:
    assert issubclass(ScenarioError, TreadleError)
    assert issubclass(ScenarioError, ValueError)


# -- the command line ------------------------------------------------------------------------------


def test_arguments_become_a_scenario_of_one_request() -> None:
    scenario = from_arguments(
        path="/x?y=1",
        method="patch",
        body="text",
        headers=["Accept: a/b", "x-empty:", "x: y: z"],
        concurrency=8,
        duration=2,
        warmup=0,
        rate=100,
    )
    assert scenario == Scenario(
        duration=2.0,
        warmup=0.0,
        concurrency=8,
        rate=100.0,
        requests=(
            LoadRequest(
                name="PATCH /x?y=1",
                method="PATCH",
                path="/x?y=1",
                headers=(("Accept", "a/b"), ("x-empty", ""), ("x", "y: z")),
                body=b"text",
            ),
        ),
    )
    assert from_arguments(path="/").requests == (LoadRequest(name="GET /", path="/"),)


def test_a_body_of_the_command_line_is_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    assert from_arguments(path="/", body=f"@{tmp_path}/body").requests[0].body == b"\xff"
    posted = from_arguments(path="/", body=b"@raw").requests[0]
    assert (posted.method, posted.body) == ("POST", b"@raw")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "users"}, "--path must start with a slash, not be 'users'."),
        ({"method": "no method"}, "--method must be a method such as GET, not 'no method'."),
        ({"headers": ["accept"]}, "--header must be written 'name: value', not 'accept'."),
        ({"headers": [": x"]}, "--header cannot have the name ''."),
        ({"headers": ["a: b\nc"]}, "--header cannot have the value 'b\\nc' for 'a'."),
        ({"body": "@/no/such"}, "--body cannot read '/no/such': No such file or directory."),
        ({"concurrency": 0}, "--concurrency must be from 1 to 65536."),
        ({"duration": float("nan")}, "--duration must be a number, not NaN."),
        ({"rate": -1.0}, "--rate must be above 0 and at most 10000000 requests a second."),
    ],
)
def test_an_argument_that_cannot_be_meant_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        from_arguments(**{"path": "/", **arguments})
    assert str(caught.value) == said


# -- the generator takes what passes ---------------------------------------------------------------


def test_what_a_scenario_allows_can_be_sent(serve: Serve, write: Write) -> None:
    app = App()
    seen: list[tuple[str, str, bytes]] = []

    @app.get("/{rest:path}")
    @app.post("/{rest:path}")
    async def take(rest: str, request: Request) -> None:
        seen.append((rest, request.headers["x"], await request.body()))

    punctuation = "!$&'()*+,-.:;=@_~|[]%20"
    text = f"""
        concurrency = 1
        duration = 0.2
        warmup = 0
        [[request]]
        path = "/{punctuation}?{punctuation}?/"
        headers = {{ x = "!\\"#$%\\t~" }}
        json = [1]
    """
    server = serve(app)
    with LoadRun(read(write(text)).job(server.address)) as run:
        result = run.result()
    assert (result.failed, result.failures) == (0, ())
    assert seen[0] == (punctuation.replace("%20", " "), '!"#$%\t~', b"[1]")
