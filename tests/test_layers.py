"""The layers of src/: who may import whom, which of them know no Python, and what is fenced in.

Works on tokens of the sources, so what comments and strings say does not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "src"

# A layer imports only from those above it; layers of one line do not know each other, except for
# the two of the first.
LAYERS = (
    ("config", "error"),
    ("telemetry", "load"),
    ("python",),
    ("bridge", "router", "http"),
    ("lane",),
    ("transport",),
    ("app",),
    ("dispatch", "asgi"),
    ("server", "load_face"),
)
RANK = {layer: rank for rank, line in enumerate(LAYERS) for layer in line}
WITHOUT_PYTHON = {"config", "error", "telemetry", "load", "router", "http"}
FENCE = "python"
DRIVE_A_RUNTIME = {"lane", "load"}

# Comments, strings and lifetimes are recognised to be skipped; `_tokens` counts nested comments.
_TOKEN = re.compile(
    r"""
      (?P<skip> \s+ | //[^\n]* | (?:br|cr|r)(?P<hashes>\#*)".*?"(?P=hashes)
              | [bc]?"(?:\\.|[^"\\])*" | b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])' | '\w+ )
    | (?P<comment> /\* )
    | (?P<token> (?:r\#)?[A-Za-z_]\w* | :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


@dataclass(frozen=True)
class Token:
    text: str
    line: int


def _tokens(source: str) -> list[Token]:
    """Names, `::` and single characters; no comments, strings, characters or lifetimes."""
    tokens = []
    position = 0
    while match := _TOKEN.match(source, position):
        position = match.end()
        if match["comment"]:
            depth = 1
            while depth:
                edge = _COMMENT_EDGE.search(source, position)
                assert edge, "a comment without an end"
                depth += 1 if edge[0] == "/*" else -1
                position = edge.end()
        elif match["token"]:
            tokens.append(Token(match["token"], source.count("\n", 0, match.start()) + 1))
    return tokens


def _heads(tokens: list[Token], at: int) -> Iterator[Token]:
    """The first names of the path, or of the `{...}` group of paths, that starts at `at`."""
    if tokens[at].text != "{":
        yield tokens[at]
        return
    depth = 0
    for before, token in zip(tokens[at - 1 :], tokens[at:], strict=False):
        if token.text == "}":
            depth -= 1
            if not depth:
                return
        elif depth == 1 and before.text in "{,":
            yield token
        if token.text == "{":
            depth += 1


def _imports(tokens: list[Token], module: tuple[str, ...]) -> Iterator[Token]:
    """The top-level modules that a file names by a path from the root of the crate.

    `module` is the file's own; `super::` is followed, inside inline modules too.
    """
    inline: list[int] = []
    depth = 0
    for at, token in enumerate(tokens):
        if token.text == "{":
            depth += 1
            if at > 1 and tokens[at - 2].text == "mod":
                inline.append(depth)
        elif token.text == "}":
            if inline and inline[-1] == depth:
                inline.pop()
            depth -= 1
        following = [each.text for each in tokens[at + 1 : at + 2]]
        if following != ["::"]:
            continue
        if token.text == "crate":
            yield from _named(tokens, at + 2)
        elif token.text == "super" and tokens[at - 1].text != "::":
            up = 1
            while tokens[at + 2 * up].text == "super":
                up += 1
            if up == len(module) + len(inline):
                yield from _named(tokens, at + 2 * up)


def _named(tokens: list[Token], at: int) -> Iterator[Token]:
    for head in _heads(tokens, at):
        after = tokens[at + 1].text if at + 1 < len(tokens) else ""
        if not (after == "!" and tokens[at] is head):  # a macro has no place in the tree
            yield head


def _module(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(SOURCES).with_suffix("").parts
    return parts[:-1] if parts[-1] == "mod" else parts


def _files() -> list[Path]:
    # src/tests holds the tests of several layers together: they may import any.
    return sorted(
        file
        for file in SOURCES.rglob("*.rs")
        if file.name != "lib.rs" and SOURCES / "tests" not in file.parents
    )


def _upward(layer: str, imported: str) -> bool:
    if imported == layer:
        return False
    if imported not in RANK:  # an item of lib.rs, or a module without a place
        return True
    if RANK[imported] == RANK[layer]:
        return RANK[layer] != 0
    return RANK[imported] > RANK[layer]


def _places(file: Path, tokens: list[Token], word: str) -> list[str]:
    return [f"{file}:{token.line}: {word}" for token in tokens if token.text == word]


def test_every_module_of_the_crate_has_a_place_among_the_layers() -> None:
    modules = {_module(file)[0] for file in _files()}
    assert modules <= RANK.keys(), f"without a place: {sorted(modules - RANK.keys())}"
    assert FENCE in modules


def test_a_layer_imports_only_from_the_layers_above_it() -> None:
    found = [
        f"{file}:{name.line}: {layer} imports from {name.text}"
        for file in _files()
        for layer in [_module(file)[0]]
        for name in _imports(_tokens(file.read_text("utf-8")), _module(file))
        if _upward(layer, name.text)
    ]
    assert not found, "\n".join(found)


def test_the_layers_without_python_do_not_use_pyo3() -> None:
    found = [
        place
        for file in _files()
        if _module(file)[0] in WITHOUT_PYTHON
        for place in _places(file, _tokens(file.read_text("utf-8")), "pyo3")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("word", "allowed_in"),
    [("block_in_place", set()), ("block_on", DRIVE_A_RUNTIME), ("unsafe", {FENCE})],
)
def test_what_blocks_or_is_unsafe_stays_where_it_belongs(word: str, allowed_in: set[str]) -> None:
    found = [
        place
        for file in [*_files(), SOURCES / "lib.rs"]
        if _module(file)[0] not in allowed_in
        for place in _places(file, _tokens(file.read_text("utf-8")), word)
    ]
    assert not found, "\n".join(found)


# -- the reader itself ------------------------------------------------------------------------------


def test_comments_strings_and_lifetimes_are_no_tokens() -> None:
    source = """
        // unsafe
        /* unsafe /* nested */ unsafe */
        fn f<'a>(x: &'a str) -> char { g("unsafe \\" unsafe", r#"un"safe"#, b'x', '"'); '\\'' }
    """
    words = [token.text for token in _tokens(source) if token.text.isidentifier()]
    assert words == ["fn", "f", "x", "str", "char", "g"]
    assert _tokens(source)[0].line == 4


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("use crate::config::Config;", ["config"]),
        ("use crate::{config::{Config, x}, http::{self, Body}, lane};", ["config", "http", "lane"]),
        ("fn f() -> crate::lane::Lane { crate::log!(1); super::g() }", ["lane"]),
        ("use super::super::app::Plan; use super::body;", ["app"]),
        (
            "mod tests { use super::*; use super::super::x; use super::super::super::lane; }",
            ["lane"],
        ),
        ("mod a { } use super::super::server;", ["server"]),
        ("pub(crate) use self::x; pub(in crate::http) fn f() {}", ["http"]),
    ],
)
def test_paths_from_the_root_of_the_crate_are_found(source: str, expected: list[str]) -> None:
    assert [token.text for token in _imports(_tokens(source), ("http", "body"))] == expected


def test_an_import_from_a_later_layer_is_upward_and_so_is_one_from_a_sibling() -> None:
    assert _upward("http", "lane")
    assert _upward("http", "bridge")
    assert _upward("bridge", "Treadle")
    assert not _upward("lane", "http")
    assert not _upward("config", "error")
    assert not _upward("http", "http")
