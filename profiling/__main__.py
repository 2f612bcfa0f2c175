"""`python -m profiling`: `compare`, `loops` and `bridge` measure; `report` shows a result."""

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType

from profiling import bridge, chart, report, results
from profiling.compare import Options, compare, products_of
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.interpreters import PYTHONS, Interpreter
from profiling.loops import compare as loops
from profiling.loops import table as loops_table
from profiling.loops.kinds import Kind
from profiling.loops.scenarios import BY_NAME, SCENARIOS, Scenario
from profiling.measuring import Pace
from profiling.peers import Product
from profiling.ratios import ROWS, Row

_INTERRUPTED = 130
_FEWEST_ROUNDS = 3
_LOOP_SECONDS = 2.0
_QUICK_SECONDS = 0.6
_BRIDGE_ROUNDS = 7
_QUICK_PACE = Pace(seconds=1, warmup=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    parser = _parser()
    words = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        if words.command == "compare":
            _compare(_options(words, parser), words.chart)
        elif words.command == "loops":
            _loops(words, parser)
        elif words.command == "bridge":
            _bridge(words)
        else:
            _report(words.file, words.chart)
    except ComparisonError as error:
        print(f"profiling: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("profiling: stopped before the end.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _compare(options: Options, picture: Path | None) -> None:
    result, _ = compare(options, Console())
    print(report.full(result), end="")
    if picture:
        picture.write_text(chart.draw(result))


def _loops(words: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    result, _ = loops.compare(
        loops.LoopOptions(
            kinds=words.loops or tuple(Kind),
            scenarios=words.only or SCENARIOS,
            rounds=_rounds(words, parser),
            seconds=words.seconds or (_QUICK_SECONDS if words.quick else _LOOP_SECONDS),
            quick=words.quick,
            output=words.output,
        ),
        Console(),
    )
    print(loops_table.document(result), end="")


def _bridge(words: argparse.Namespace) -> None:
    rounds: int = words.rounds or (1 if words.quick else _BRIDGE_ROUNDS)
    console = Console()
    result = bridge.measure(rounds, words.quick, console)
    console.say(f"saved in {bridge.save(result, words.output)}")
    print(bridge.report(result), end="")


def _report(file: Path | None, picture: Path | None) -> None:
    result = results.load(file or results.newest())
    print(report.document(result), end="")
    if picture:
        picture.write_text(chart.draw(result))


def _options(words: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    quick: bool = words.quick
    rows: tuple[Row, ...] = words.only or ROWS
    products = frozenset(words.peers or Product) | {Product.TREADLE}
    if words.only:
        products &= products_of(rows)
    pace = _QUICK_PACE if quick else Pace(seconds=4, warmup=1)
    return Options(
        products=products,
        sides=words.python,
        rows=rows,
        only_rows=bool(words.only),
        connections=words.connections or ((64,) if quick else (8, 64, 256)),
        rounds=_rounds(words, parser),
        pace=Pace(words.seconds, pace.warmup) if words.seconds else pace,
        quick=quick,
        output=words.output,
        pythons={side: path for side in PYTHONS if (path := getattr(words, side.name))},
    )


def _rounds(words: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    rounds: int = words.rounds or (1 if words.quick else _FEWEST_ROUNDS)
    if not words.quick and rounds < _FEWEST_ROUNDS:
        parser.error(f"--rounds must be at least {_FEWEST_ROUNDS} (or say --quick)")
    return rounds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m profiling", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="measure treadle beside its peers")
    add = comparing.add_argument
    add("--quick", action="store_true", help="one round of one second: does the harness work?")
    add("--peers", type=_products, metavar="A,B", help=f"of {_listed(p.value for p in Product)}")
    add("--only", type=_rows, metavar="ROW,ROW", help=f"of {_listed(r.name for r in ROWS)}")
    add("--rounds", type=_positive, metavar="N", help="rounds, 3 or more (default 3)")
    add("--seconds", type=_positive, metavar="S", help="of each measurement (default 4)")
    add("--connections", type=_counts, metavar="N,N", help="loads (default 8,64,256)")
    add("--python", type=_sides, default=PYTHONS, metavar="3.14t|3.14|both", help="which sides")
    for side in PYTHONS:
        add(
            f"--python-{side.value}",
            dest=side.name,
            type=Path,
            metavar="PATH",
            help=f"a Python {side.value} that has treadle installed (or {side.variable})",
        )
    add("--output", type=Path, metavar="FILE", help="where the result goes (default results/)")
    looping = commands.add_parser("loops", help="measure event loops side by side")
    add = looping.add_argument
    add("--quick", action="store_true", help="one short round: does the harness work?")
    add("--loops", type=_kinds, metavar="A,B", help=f"of {_listed(k.value for k in Kind)}")
    add("--only", type=_scenarios, metavar="A,B", help=f"of {_listed(s.name for s in SCENARIOS)}")
    add("--rounds", type=_positive, metavar="N", help="rounds, 3 or more (default 3)")
    add("--seconds", type=float, metavar="S", help=f"of each measurement ({_LOOP_SECONDS:g})")
    add("--output", type=Path, metavar="FILE", help="where the result goes (default results/)")
    crossing = commands.add_parser("bridge", help="measure the bridge beside pyo3-async-runtimes")
    add = crossing.add_argument
    add("--quick", action="store_true", help="one short round: does it work?")
    add("--rounds", type=_positive, metavar="N", help=f"rounds (default {_BRIDGE_ROUNDS})")
    add("--output", type=Path, metavar="FILE", help="where the result goes (default results/)")
    showing = commands.add_parser("report", help="show a result as Markdown")
    showing.add_argument("file", nargs="?", type=Path, help="default: the newest complete one")
    for command in (comparing, showing):
        command.add_argument("--chart", type=Path, metavar="FILE", help="draw it too, as SVG")
    return parser


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _products(text: str) -> tuple[Product, ...]:
    by_name = {product.value: product for product in Product}
    return tuple(_named(name, by_name, "peer") for name in text.split(","))


def _rows(text: str) -> tuple[Row, ...]:
    by_name = {row.name: row for row in ROWS}
    return tuple(_named(name, by_name, "row") for name in text.split(","))


def _kinds(text: str) -> tuple[Kind, ...]:
    by_name = {kind.value: kind for kind in Kind}
    return tuple(_named(name, by_name, "loop") for name in text.split(","))


def _scenarios(text: str) -> tuple[Scenario, ...]:
    return tuple(_named(name, BY_NAME, "scenario") for name in text.split(","))


def _sides(text: str) -> tuple[Interpreter, ...]:
    by_name = {side.value: (side,) for side in PYTHONS}
    return PYTHONS if text == "both" else _named(text, by_name, "side")


def _named[T](name: str, known: Mapping[str, T], kind: str) -> T:
    if name not in known:
        raise argparse.ArgumentTypeError(f"no {kind} is called {name!r}")
    return known[name]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
