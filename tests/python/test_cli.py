"""The command line: what it runs, what it refuses, and how it ends."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.types import Connect

import treadle
from treadle import cli, loading
from treadle.options import Options

HELLO = """
from treadle import App

app = App()

@app.get("/")
async def hello():
    return {"hello": "world"}
"""


def refused(run_cli: RunCli, source: str, *args: str, target: str = "main:app") -> tuple[int, str]:
    """Status and standard error of a command that must not get as far as serving."""
    command = run_cli(source, *args, target=target, listens=False)
    code = command.wait()
    assert command.rest() == ""
    return code, command.stderr


def test_run_serves_the_app_of_a_module_in_the_working_directory(
    run_cli: RunCli, raw: Connect
) -> None:
    command = run_cli(HELLO)
    assert raw(command).get("/").body == b'{"hello":"world"}'
    assert command.stop() == 0
    assert command.stderr == ""


def test_the_attribute_may_be_dotted(run_cli: RunCli) -> None:
    source = HELLO + "class site:\n    main = app\n"
    assert run_cli(source, target="main:site.main").stop() == 0


def test_a_factory_makes_the_app(run_cli: RunCli) -> None:
    source = HELLO + "def make():\n    return app\n"
    assert run_cli(source, "--factory", target="main:make").stop() == 0


def test_a_flag_beats_its_variable(run_cli: RunCli, tmp_path: Path) -> None:
    path = tmp_path / "s"
    command = run_cli(HELLO, "--uds", "s", env={"TREADLE_UDS": "other", "TREADLE_GRACE": "3"})
    assert command.address == "s"
    assert path.is_socket()
    assert command.stop() == 0


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("main", "'main' names no app; write module:attribute, such as main:app."),
        (":app", "':app' names no app; write module:attribute, such as main:app."),
        ("main:", "'main:' names no app; write module:attribute, such as main:app."),
        ("main.py:app", "'main.py' is a file, not a module; write main:app."),
        ("./web/main.py:app", "'./web/main.py' is a file, not a module; write web.main:app."),
        ("../web.py:app", "'../web.py' is a file, not a module; change to .. and write web:app."),
        (
            "/srv/web.py:app",
            "'/srv/web.py' is a file, not a module; change to /srv and write web:app.",
        ),
        (".main:app", "'.main' is no module's name; write it in full, such as main:app."),
        ("main..x:app", "'main..x' is no module's name; write it in full, such as main:app."),
        (
            "main:make()",
            "module 'main' has no 'make()'; for a function that makes the app write "
            "main:make --factory.",
        ),
        ("main:nothing", "module 'main' has no 'nothing'; its apps: main:app."),
        ("main:app.nothing", "module 'main' has no 'app.nothing'; its apps: main:app."),
        ("main:number", "'main:number' is an int, not a treadle.App."),
        ("main:none", "'main:none' is None, not a treadle.App."),
        (
            "main:make",
            "'main:make' is a function, not a treadle.App; if it makes one, add --factory.",
        ),
    ],
)
def test_a_target_that_is_no_app_is_one_sentence(
    run_cli: RunCli, target: str, sentence: str
) -> None:
    source = HELLO + "number = 1\nnone = None\ndef make(): return app\n"
    assert refused(run_cli, source, target=target) == (2, f"treadle: {sentence}\n")


@pytest.mark.parametrize("target", ["absent:app", "absent.main:app"])
def test_a_missing_module_is_one_sentence_without_traceback(run_cli: RunCli, target: str) -> None:
    code, stderr = refused(run_cli, HELLO, target=target)
    folder = run_cli.folder.resolve()
    sentence = f"treadle: there is no module 'absent' in {folder} or on sys.path.\n"
    assert (code, stderr) == (2, sentence)


def test_a_factory_that_makes_no_app_is_one_sentence(run_cli: RunCli) -> None:
    code, stderr = refused(run_cli, "make = dict", "--factory", target="main:make")
    assert (code, stderr) == (2, "treadle: 'main:make' made a dict, not a treadle.App.\n")
    code, stderr = refused(run_cli, "make = 1", "--factory", target="main:make")
    sentence = "treadle: 'main:make' is an int, not a function that makes an app.\n"
    assert (code, stderr) == (2, sentence)


@pytest.mark.parametrize(
    ("source", "last"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("import absent", "ModuleNotFoundError: No module named 'absent'"),
        ("(", "SyntaxError: '(' was never closed"),
    ],
)
def test_an_app_that_cannot_be_imported_shows_its_own_traceback(
    run_cli: RunCli, source: str, last: str
) -> None:
    code, stderr = refused(run_cli, source)
    lines = stderr.splitlines()
    assert code == 1
    assert lines[-1] == "treadle: importing 'main' failed."
    assert lines[-2] == last
    # The first frame is the app's.
    files = re.findall(r'File "([^"]+)"', stderr)
    assert Path(files[0]).name == "main.py"


def test_a_factory_that_raises_shows_its_own_traceback(run_cli: RunCli) -> None:
    source = "def make():\n    raise ValueError('no')\n"
    code, stderr = refused(run_cli, source, "--factory", target="main:make")
    assert code == 1
    assert stderr.endswith("ValueError: no\ntreadle: main:make raised.\n")
    assert "loading.py" not in stderr


@pytest.mark.parametrize(
    ("source", "target", "factory"),
    [
        (HELLO + "app.run(port=0)\n", "main:app", []),
        (HELLO + "def make():\n    app.run(port=0)\n", "main:make", ["--factory"]),
    ],
)
def test_a_module_that_serves_while_it_is_imported_is_told_where_run_belongs(
    run_cli: RunCli, source: str, target: str, factory: list[str]
) -> None:
    code, stderr = refused(run_cli, source, *factory, target=target)
    assert code == 1
    assert f"{target} is being loaded to be served, and may not serve by itself" in stderr
    assert 'put app.run() under `if __name__ == "__main__":`' in stderr


def test_a_working_directory_that_is_gone_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(loading.NoSuchApp, match="the working directory has been removed"):
        loading.load("main:app")


@pytest.mark.parametrize(("argument", "status"), [("7", 7), ("0", 1), ("", 1)])
def test_an_app_that_leaves_while_it_is_imported_is_named_and_is_no_success(
    run_cli: RunCli, argument: str, status: int
) -> None:
    code, stderr = refused(run_cli, f"import sys\nsys.exit({argument})")
    file = run_cli.folder.resolve() / "main.py"
    assert code == status
    assert stderr == f"treadle: loading 'main:app' called sys.exit(), at {file}:2.\n"


@pytest.mark.parametrize("signame", ["SIGTERM", "SIGINT"])
def test_a_signal_during_the_import_is_a_clean_stop(
    run_cli: RunCli, gate: Gate, signame: str
) -> None:
    import signal

    command = run_cli(SOURCE + "block()\n", env=gate.env, listens=False)
    gate.arrival()
    assert command.stop(signal.Signals[signame]) == 0
    assert command.stderr == ""


def test_threads_that_the_app_left_running_do_not_keep_the_process(run_cli: RunCli) -> None:
    source = HELLO + (
        "import threading, treadle.process\n"
        "treadle.process.STOP_MARGIN = 0.1\n"
        "threading.Thread(target=threading.Event().wait, name='poller').start()\n"
    )
    command = run_cli(source)
    assert command.stop() == 1
    expected = "treadle: the app's threads still run: poller. Leaving without them.\n"
    assert command.stderr == expected


def test_threads_that_end_by_themselves_are_waited_for(run_cli: RunCli, gate: Gate) -> None:
    source = SOURCE + (
        "import threading\n"
        "def work():\n    block()\n    print('worked')\n"
        "threading.Thread(target=work).start()\n"
    )
    command = run_cli(source, env=gate.env)
    arrival = gate.arrival()
    command.send()
    command.wait_refusing()
    arrival.release()
    assert command.wait() == 0
    assert command.rest() == "worked\n"
    assert command.stderr == ""


def test_a_bad_option_is_one_sentence_and_nothing_is_imported(run_cli: RunCli) -> None:
    code, stderr = refused(run_cli, "raise SystemExit(3)", "--grace", "-1")
    expected = "treadle: --grace must be a number of seconds from 0 to 31536000, not '-1'.\n"
    assert (code, stderr) == (2, expected)


def test_a_bad_variable_is_one_sentence(run_cli: RunCli) -> None:
    command = run_cli(HELLO, env={"TREADLE_WORKERS": "many"}, listens=False)
    assert command.wait() == 2
    expected = "treadle: TREADLE_WORKERS must be an integer from 1 to 1024, not 'many'.\n"
    assert command.stderr == expected


@pytest.mark.parametrize("argv", [[], ["serve"], ["run"], ["run", "main:app", "--prot", "1"]])
def test_a_wrong_command_line_is_status_2_with_the_usage(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: treadle")


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["run", "main:app", "--por", "1"])
    assert "--por" in capsys.readouterr().err


def test_the_help_shows_every_option_with_its_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in Options.table():
        assert option.flag in text
        assert option.env in text
    # That is no property of a server: it says what MODULE:ATTRIBUTE is.
    assert "Every option but --factory can also be set by the environment" in " ".join(text.split())
    assert "--factory" not in {option.flag for option in Options.table()}


def test_version_names_the_interpreter_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    version = re.escape(treadle.__version__)
    expected = rf"treadle {version} \(CPython 3\.\d+\.\S+ (free-threaded|GIL on)\)\n"
    assert re.fullmatch(expected, capsys.readouterr().out)


# What an answer needs nothing of: each takes a millisecond or more of the time to the first one.
UNNEEDED = {
    *("difflib", "email", "encodings.idna", "html", "http", "httpx", "json"),
    *(
        "importlib.metadata",
        "multiprocessing",
        "pathlib",
        "prometheus_client",
        "pydantic",
        "random",
    ),
    *("rich", "shutil", "tempfile", "textual", "unittest", "urllib"),
    *("treadle.monitor.service", "treadle.monitor.setup", "treadle.monitor.top"),
    *("treadle.profile", "treadle.telemetry", "treadle.testing", "treadle.workers"),
}


def test_a_server_imports_only_what_it_serves_with(run_cli: RunCli, raw: Connect) -> None:
    source = (
        HELLO + '\n@app.get("/modules")\nasync def modules():\n    return sorted(sys.modules)\n'
    )
    command = run_cli("import sys\n" + source, env={"PYTHONPATH": ""})
    modules = set(json.loads(raw(command).get("/modules").body))
    assert "treadle.server" in modules
    assert not modules & UNNEEDED


BROKEN = """
import sys
sys.modules["treadle._treadle"] = None
{}
"""


@pytest.mark.parametrize(
    "use",
    [
        "from treadle.cli import main; sys.exit(main(['run', 'main:app', '--port', '0']))",
        "from treadle import App; App().run(port=0)",
    ],
)
def test_without_the_native_module_nothing_runs_and_that_is_said(run_cli: RunCli, use: str) -> None:
    (run_cli.folder / "main.py").write_text(HELLO)
    command = run_cli.python(["-c", BROKEN.format(use)], listens=False)
    assert command.wait() == 1
    assert command.rest() == ""
    assert "_treadle" in command.stderr
