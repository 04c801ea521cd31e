"""Logged scalars, as JSON lines: one file per node, one object per call of `log`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

from lpml.errors import LaunchError

if TYPE_CHECKING:
    from lpml.record.folder import RunFolder

_TAKEN = ("time", "step")


@final
class MetricsWriter:
    """Appends `{"time": s, "step": n, name: value, ...}` to a file, line by line.

    What is not finite is written as `json_number` says. Each line is handed to the kernel at
    once, so what was logged survives a killed node.

    Raises:
      LaunchError: the file cannot be opened, or (from `write`) the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._step = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise _refused(path, error) from error

    def write(self, metrics: Mapping[str, float], step: int | None, wall_time: float) -> None:
        """Appends one line. `step=None` counts up from the last step.

        Raises:
          ValueError: a metric has the name `time` or `step`, which every line has already.
          LaunchError: the disk is full.
        """
        taken = [name for name in _TAKEN if name in metrics]
        if taken:
            raise ValueError(
                f"log({{{taken[0]!r}: ...}}): every line has a {taken[0]!r} already; "
                "give the metric another name (a step is given by `step=`)"
            )
        self._step = self._step + 1 if step is None else int(step)
        row = {"time": round(wall_time, 6), "step": self._step, **metrics}
        try:
            rest = memoryview(_line(row))
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _refused(self._path, error) from error

    def close(self) -> None:
        self._file.close()


def _line(row: Mapping[str, float]) -> bytes:
    try:
        text = json.dumps(row, allow_nan=False)
    except ValueError:
        numbers = {name: json_number(value) for name, value in row.items()}
        text = json.dumps(numbers, allow_nan=False)
    return text.encode() + b"\n"


def json_number(value: float) -> float | str:
    """A value for JSON, which has no number that is not finite: "NaN", "Infinity", "-Infinity".

    `float` reads these words.
    """
    return value if math.isfinite(value) else json.dumps(value)


def _refused(path: Path, error: OSError) -> LaunchError:
    from lpml.record.folder import disk_error

    return disk_error(path, error)


@final
@dataclass(frozen=True)
class Row:
    """One call of `log`."""

    time: float
    """Seconds since 1970."""
    step: int
    metrics: Mapping[str, float]


@final
class MetricsFollower:
    """Reads what the nodes of a run have logged since it last looked.

    Never blocks, and reads every line once. A line that is still being written waits for the
    next `poll`; a line that is no row is skipped.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}
        self._nodes: dict[str, str] = {}  # stem of a file -> name of the node

    def poll(self) -> list[tuple[str, Row]]:
        """`(node, row)` for every new line, in order within a node."""
        found = []
        for path in sorted(self._folder.metrics.glob("*.jsonl")):
            lines = self._new_lines(path)
            if lines:
                node = self._node(path.stem)
                found += [(node, row) for row in map(_parse, lines) if row is not None]
        return found

    def _new_lines(self, path: Path) -> list[bytes]:
        start = self._offsets.get(path, 0)
        try:
            if path.stat().st_size <= start:
                return []
            with path.open("rb") as file:
                file.seek(start)
                text = file.read()
        except OSError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offsets[path] = start + len(whole)
        return whole.splitlines()

    def _node(self, stem: str) -> str:
        from lpml.record.folder import file_stem, node_of_stem

        if stem not in self._nodes:
            self._nodes.update({file_stem(node): node for node in self._folder.nodes})
        return self._nodes.setdefault(stem, node_of_stem(stem))


def _parse(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
        time, step = float(row.pop("time")), int(row.pop("step"))
        return Row(time, step, {name: float(value) for name, value in row.items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
