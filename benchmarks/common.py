"""What the benchmarks share: peers in their environments, repetitions, ratios, tables."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

PYTHONS = {
    "acme": ROOT / ".venv-acme" / "bin" / "python",
    "lpml": Path(sys.executable),
    "courier": ROOT / ".venv-launchpad" / "bin" / "python",
    "grpc": ROOT / ".venv-peers" / "bin" / "python",
    "zmq": ROOT / ".venv-peers" / "bin" / "python",
    "ray": ROOT / ".venv-peers" / "bin" / "python",
    "reverb": ROOT / ".venv-reverb" / "bin" / "python",
}
SCRIPTS = {"courier": "launchpad_peer.py"}  # the others are NAME_peer.py


@dataclass
class Measure:
    """One line of a report: the values of each peer, one a repetition, and what better means."""

    name: str
    unit: str
    lower_is_better: bool = True
    target: float | None = None  # what the ratio to `against` should reach
    against: str = "courier"
    values: dict[str, list[float]] = field(default_factory=dict)  # {peer: one value a repetition}

    def add(self, peer: str, value: float) -> None:
        self.values.setdefault(peer, []).append(value)

    def ratios(self, peer: str) -> list[float]:
        """lpml divided by the peer, repetition by repetition: what ran side by side."""
        pairs = zip(self.values.get("lpml", []), self.values[peer], strict=False)
        return [a / b if b else math.inf for a, b in pairs]

    def to_json(self) -> dict[str, Any]:
        others = [peer for peer in self.values if peer != "lpml"]
        return {
            "name": self.name,
            "unit": self.unit,
            "target": self.target,
            "values": self.values,
            "median": {peer: statistics.median(found) for peer, found in self.values.items()},
            "ratio": {peer: spread(self.ratios(peer)) for peer in others if self.ratios(peer)},
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class Peer:
    """A driver script in its own environment, which answers commands."""

    def __init__(self, name: str) -> None:
        self.name = name
        script = HERE / "peers" / SCRIPTS.get(name, f"{name}_peer.py")
        paths = os.pathsep.join([str(ROOT)] if name == "lpml" else [])
        self._runs = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [str(PYTHONS[name]), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "LPML_RUNS": self._runs.name},
        )

    def ask(self, **command: Any) -> dict[str, float] | None:
        """What a measurement found, or `None` (and a line on stderr) where it could not be made."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "its driver ended"}
        if "error" in answer:
            print(f"{self.name} failed at {command}: {answer['error']}", file=sys.stderr)
            return None
        found: dict[str, float] = answer["ok"]
        return found or None

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._runs.cleanup()


def run_once(
    python: Path, script: str, *words: object, timeout: float = 180.0
) -> dict[str, float] | None:
    """The JSON object that a script prints, or `None` (and a line on stderr)."""
    with tempfile.TemporaryDirectory() as runs:
        paths = os.pathsep.join([str(HERE / "peers"), *[str(ROOT)] * (python == PYTHONS["lpml"])])
        process = subprocess.Popen(
            [str(python), str(HERE / "peers" / script), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "LPML_RUNS": runs},
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            output, errors = "", "it did not end"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what it may have left
            process.wait()
    # Launchpad's nodes print into the same stream, at times before it and on the same line.
    lines = [line for line in output.splitlines() if line.rstrip().endswith("}")]
    if process.returncode != 0 or not lines:
        print(f"{script} {words} failed: {errors[-800:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(lines[-1][lines[-1].index("{") :])
    return found


def installed(names: Sequence[str]) -> list[str]:
    """The peers that can be measured here; says which cannot."""
    missing = [name for name in names if not PYTHONS[name].exists()]
    if missing:
        print(f"not installed: {', '.join(missing)}; `make bench-peers` does", file=sys.stderr)
    return [name for name in names if name not in missing]


@contextlib.contextmanager
def awake(processes: int) -> Iterator[None]:
    """Keeps the cores from sleeping, by loops that yield to everybody else."""
    loop = "import os\nos.nice(19)\nwhile True: pass"
    hogs = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(processes)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """The flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--repetitions",
        "--repeats",
        dest="repeats",
        type=int,
        default=repeats,
        help="times each thing is measured",
    )
    parser.add_argument("--only", default="", help="measure only lines whose name contains this")
    parser.add_argument("--json", action="store_true", help="print one JSON object, no table")
    return parser


def report(title: str, measures: Sequence[Measure], as_json: bool) -> None:
    """Prints medians and ratios. A ratio is `median [least to greatest]` over the repetitions."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    if as_json:
        lines = [measure.to_json() for measure in measures]
        print(json.dumps({"benchmark": title, "machine": machine, "measures": lines}, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    found = dict.fromkeys(peer for measure in measures for peer in measure.values)
    peers = ["lpml", *(peer for peer in found if peer != "lpml")]
    table = Table(title=f"{title} on {machine}; ratios are lpml / peer")
    table.add_column("")
    for peer in peers:
        table.add_column(peer, justify="right")
    for peer in peers[1:]:
        table.add_column(f"/ {peer}", justify="right")
    table.add_column("target", justify="right")
    for measure in measures:
        table.add_row(*row(measure, peers))
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def row(measure: Measure, peers: Sequence[str]) -> list[str]:
    cells = [measure.name]
    for peer in peers:
        found = measure.values.get(peer)
        cells.append(show(statistics.median(found), measure.unit) if found else "")
    for peer in peers[1:]:
        ratios = measure.ratios(peer) if peer in measure.values else []
        if ratios:
            cells.append(
                f"{statistics.median(ratios):.2f} [{min(ratios):.2f} to {max(ratios):.2f}]"
            )
        else:
            cells.append("")
    sign = "≤" if measure.lower_is_better else "≥"
    cells.append(
        "" if measure.target is None else f"{sign} {measure.target:.3g} × {measure.against}"
    )
    return cells


def show(value: float, unit: str) -> str:
    """A value with its unit: `93 µs`, `12.4 k/s`, `3.1 M steps/s`, `712 MiB`."""
    if unit == "s":
        for size, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if value >= size:
                return f"{value / size:.3g} {name}"
        return f"{value * 1e6:.2g} µs"
    if unit.endswith("/s"):
        for size, prefix in ((1e6, "M"), (1e3, "k")):
            if value >= size:
                return f"{value / size:.3g} {prefix}{'' if unit == '/s' else ' '}{unit}"
    if unit == "B":
        return f"{value / 2**20:.0f} MiB"
    return f"{value:.3g} {unit}"
