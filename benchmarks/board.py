"""Runs a benchmark's repetitions and says each figure when it is there: lines, a table, a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, final

from benchmarks.common import Measure, row, show, spread


def arguments(description: str | None, repetitions: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    spec = sys.modules["__main__"].__spec__
    parser = argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec is not None else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A line is printed to stderr when a figure is there, with the medians so far; a "
        "ratio is lpml / peer of what ran side by side. Ctrl-C ends with a table of what there is.",
    )
    parser.add_argument(
        "--repetitions",
        "--repeats",
        type=int,
        default=repetitions,
        metavar="N",
        help=f"times each thing is measured (default: {repetitions})",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="begin no repetition that would end later; the first is always made whole",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TEXT",
        help="measure only lines whose name contains this; may be given several times",
    )
    parser.add_argument("--list", action="store_true", help="print the names of all lines and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write the results there after each repetition, too: .json, or .md for a table",
    )
    return parser


@final
class Board:
    """The measures of one benchmark that were asked for.

    Use it as a context manager: the table is printed at the end of the block, whatever ends it.

    Args:
      title: of the table.
      measures: every line there could be, in order.
      options: what `arguments` parsed.
    """

    def __init__(self, title: str, measures: Sequence[Measure], options: Any) -> None:
        if options.list:
            print("\n".join(measure.name for measure in measures))
            sys.exit(0)
        self._title = title
        self._options = options
        self._chosen = [
            measure
            for measure in measures
            if not options.only or any(text in measure.name for text in options.only)
        ]
        if not self._chosen:
            sys.exit(f"no line has {' or '.join(options.only)} in its name; --list prints them")
        if options.output is not None and options.output.suffix not in (".json", ".md"):
            sys.exit(f"--output {options.output}: give a file that ends in .json or .md")
        self._repetition = 0

    def wants(self, *measures: Measure) -> bool:
        """Whether one of these lines was asked for."""
        return any(one is measure for one in self._chosen for measure in measures)

    def repetitions(self) -> Iterator[int]:
        """0, 1, ... as many as were asked for and there is time for."""
        begin = time.monotonic()
        seconds = float("inf") if self._options.minutes is None else 60 * self._options.minutes
        for index in range(self._options.repetitions):
            spent = time.monotonic() - begin
            if index and spent + spent / index > seconds:
                asked = self._options.repetitions
                print(f"{self._title}: time for {index} of {asked} repetitions", file=sys.stderr)
                return
            self._repetition = index + 1
            yield index
            self._write()

    def tell(self, *measures: Measure) -> None:
        """Says how the lines stand that were measured just now."""
        for measure in measures:
            if measure.values and self.wants(measure):
                progress = f"{self._title} {self._repetition}/{self._options.repetitions}"
                print(f"{progress} | {line(measure)}", file=sys.stderr, flush=True)

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if any(measure.values for measure in self._chosen):
            self._write()
            print(json.dumps(self._data(), indent=1)) if self._options.json else self._print()
        if kind is KeyboardInterrupt:
            sys.exit(130)

    # What is shown.

    def _data(self) -> dict[str, Any]:
        lines = [measure.to_json() for measure in self._chosen]
        return {"benchmark": self._title, "machine": machine(), "measures": lines}

    def _write(self) -> None:
        output: Path | None = self._options.output
        if output is not None and any(measure.values for measure in self._chosen):
            text = json.dumps(self._data(), indent=1) + "\n"
            output.write_text(text if output.suffix == ".json" else self._markdown())

    def _peers(self) -> list[str]:
        found = dict.fromkeys(peer for measure in self._chosen for peer in measure.values)
        return ["lpml", *(peer for peer in found if peer != "lpml")]

    def _head(self) -> list[str]:
        peers = self._peers()
        return [self._title, *peers, *(f"/ {peer}" for peer in peers[1:]), "target"]

    def _markdown(self) -> str:
        rows = [row(measure, self._peers()) for measure in self._chosen if measure.values]
        head = self._head()
        table = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
        lines = ["| " + " | ".join(cells) + " |" for cells in table]
        note = f"Ratios are lpml / peer, median [least to greatest], on {machine()}."
        return "\n".join([*lines, "", note]) + "\n"

    def _print(self) -> None:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"{self._title} on {machine()}; ratios are lpml / peer")
        for index, name in enumerate(self._head()):
            table.add_column(name if index else "", justify="right" if index else "left")
        for measure in self._chosen:
            if measure.values:
                table.add_row(*row(measure, self._peers()))
        Console(width=None if sys.stdout.isatty() else 180).print(table)


def machine() -> str:
    """Where this was measured."""
    return f"{os.cpu_count()} cores, Python {platform.python_version()}"


def line(measure: Measure) -> str:
    """How a measure stands: medians of all peers, ratios, the target."""
    facts = []
    for peer in sorted(measure.values, key=lambda peer: peer != "lpml"):
        fact = f"{peer} {show(statistics.median(measure.values[peer]), measure.unit)}"
        ratios = [] if peer == "lpml" else measure.ratios(peer)
        facts.append(f"{fact} ({spread(ratios)['median']:.2f} x)" if ratios else fact)
    if measure.target is not None:
        sign = "<=" if measure.lower_is_better else ">="
        facts.append(f"target {sign} {measure.target:.3g} x {measure.against}")
    return f"{measure.name}: {', '.join(facts)}"
