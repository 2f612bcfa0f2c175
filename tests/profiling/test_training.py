"""What a profile-guided build is trained with, and the tool that reads what was counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.types import Serve

from profiling import profdata
from profiling.errors import UnavailableError
from profiling.training import client, programs
from profiling.training.service import app


@pytest.mark.slow
def test_the_service_answers_all_that_the_client_asks(serve: Serve) -> None:
    rounds = len(client.RARE)
    *_, answered = client.ask(serve(app).address, rounds)
    each = len(client.MIX) + 1
    assert answered == rounds * each * (client.CONNECTIONS + client.CONNECTIONS * client.DEPTH + 1)


def test_only_one_method_is_asked_for(serve: Serve) -> None:
    *_, answered = client.ask(serve(app).address, 1, only=b"DELETE")
    assert answered == client.CONNECTIONS + client.CONNECTIONS * client.DEPTH + 1


@pytest.mark.slow
def test_the_programs_run() -> None:
    programs.run(40)


def _tool(folder: Path, name: str, said: str) -> Path:
    """A program that says this, whatever it is asked."""
    tool = folder / name
    tool.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    tool.chmod(0o755)
    return tool


def test_the_tool_is_one_of_rustcs_llvm_or_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _tool(tmp_path, "rustc", "rustc 1.99.0\nhost: x-y-z\nLLVM version: 31.1.2")
    _tool(tmp_path, "llvm-profdata", "LLVM (http://llvm.org/):\n  LLVM version 30.0.6")
    with pytest.raises(UnavailableError, match=r"llvm-profdata of LLVM 31 or later: rustup "):
        profdata.find()
    later = _tool(tmp_path, "llvm-profdata-32", "Debian LLVM version 32.1.0")
    assert profdata.find() == later
    right = _tool(tmp_path, "llvm-profdata-31", "Debian LLVM version 31.1.2")
    assert profdata.find() == right
