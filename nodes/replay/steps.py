"""Where steps live: preallocated columns in which every step is written once.

Rows are counted references: an item holds the rows of its window, a writer holds the rows that
later items may still need. A row that nobody holds is used again. Each row knows the row that
follows it in its episode, so a window is a first row and a length, whatever lies between.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from lpml.errors import LaunchError
from lpml.nodes.replay.signature import Array, Field, Ints, Signature

_ONE = np.int32(1)  # of the counts' own type, or numpy takes a path ten times as slow


@final
class StepStore:
    """Columns `[capacity, ...]`, one per field, with counted references to their rows.

    Args:
      signature: the fields.
      capacity: rows.
      folder: where the columns live as memory-mapped files, for more steps than main memory
        holds; `None` = in main memory. The files have no name there and vanish with the process.

    Raises:
      LaunchError: neither the machine nor the folder can hold that much.
    """

    def __init__(self, signature: Signature, capacity: int, folder: str | None = None) -> None:
        self.signature = signature
        self.capacity = capacity
        self.columns = [_allocate(field, capacity, folder) for field in signature.fields]
        self._references = np.zeros(capacity, np.int32)
        self._following = np.zeros(capacity, np.int64)  # the next row of the episode
        self._run = np.zeros(capacity, np.int64)  # how many rows row+1, row+2, ... follow for sure
        self._free = np.empty(capacity, np.int64)  # a stack: rows used before, free now
        self._num_free = 0
        self._used = 0  # rows from here on were never written

    @property
    def available(self) -> int:
        """Rows that can be allocated now."""
        return self._num_free + self.capacity - self._used

    @property
    def num_bytes(self) -> int:
        """Bytes of the columns, written or not."""
        return sum(column.nbytes for column in self.columns)

    @property
    def step_bytes(self) -> int:
        """Bytes of one step."""
        return max(1, self.num_bytes // max(1, self.capacity))

    def append(self, columns: Sequence[Array], count: int) -> Ints:
        """Writes `count` new rows and returns them, held once. The last free rows come first."""
        again = min(count, self._num_free)
        fresh = count - again
        self._num_free -= again
        rows = np.empty(count, np.int64)
        rows[:again] = self._free[self._num_free : self._num_free + again]
        rows[again:] = np.arange(self._used, self._used + fresh)
        self._used += fresh
        self._references[rows] = 1
        self._run[rows] = 0
        if count and rows[-1] - rows[0] == count - 1 and (rows[1:] > rows[:-1]).all():
            place: Any = slice(int(rows[0]), int(rows[0]) + count)
        else:
            place = rows
        for mine, given in zip(self.columns, columns, strict=True):
            mine[place] = given
        return rows

    def link(self, rows: Ints, stops: Ints) -> None:
        """Records that `rows` follow one another, in chains that end before `stops`."""
        if len(rows) < 2:
            return
        following = rows[1:]
        self._following[rows[:-1]] = following
        breaks = np.empty(len(rows), np.bool_)
        np.not_equal(following, rows[:-1] + 1, out=breaks[:-1])
        breaks[stops - 1] = True  # an empty chain repeats the end of the one before
        breaks[-1] = True
        ends = np.flatnonzero(breaks)
        places = np.arange(len(rows))
        if len(ends) == 1:
            self._run[rows] = places[::-1]
        else:
            sizes = ends.copy()
            sizes[1:] -= ends[:-1]
            sizes[0] += 1
            self._run[rows] = ends.repeat(sizes) - places

    def hold(self, rows: Ints) -> None:
        """One more reference to each of `rows` (repeated rows count repeatedly)."""
        np.add.at(self._references, rows, _ONE)

    def release(self, rows: Ints) -> None:
        """One reference less; rows without any are free."""
        np.subtract.at(self._references, rows, _ONE)
        freed = distinct(rows[self._references[rows] == 0])
        self._free[self._num_free : self._num_free + len(freed)] = freed
        self._num_free += len(freed)

    def windows(self, starts: Ints, lengths: Ints, size: int) -> Ints:
        """Rows `[size, B]` of windows that begin at `starts`; a shorter one repeats its last."""
        if size == 1:
            return starts[None]
        last = lengths - 1
        steps = np.minimum(np.arange(size)[:, None], last)
        rows: Ints = starts + steps
        broken = np.flatnonzero(self._run[starts] < last)
        if len(broken):
            row, last = starts[broken], last[broken]
            for step in range(1, size):
                row = np.where(step <= last, self._following[row], row)
                rows[step, broken] = row
        return rows

    def rows_of(self, starts: Ints, lengths: Ints, size: int) -> Ints:
        """All rows of these windows, one after another; each row once per window."""
        rows = self.windows(starts, lengths, size)
        if int(lengths.min(initial=size)) == size:
            return rows.ravel()
        whole: Ints = rows[np.arange(size)[:, None] < lengths]
        return whole

    def advance(self, starts: Ints, offsets: Ints) -> Ints:
        """The rows that lie `offsets` steps after `starts`."""
        rows: Ints = starts.copy()
        left: Ints = offsets.copy()
        while True:
            jump = np.minimum(self._run[rows], left)
            rows += jump
            left -= jump
            moving = left > 0
            if not moving.any():
                return rows
            rows[moving] = self._following[rows[moving]]
            left[moving] -= 1

    def save(self) -> dict[str, Any]:
        """Everything that was ever written, as arrays."""
        used = self._used
        columns = {
            field.name: np.array(column[:used])
            for field, column in zip(self.signature.fields, self.columns, strict=True)
        }
        return {
            "columns": columns,
            "references": self._references[:used].copy(),
            "following": self._following[:used].copy(),
            "run": self._run[:used].copy(),
            "free": self._free[: self._num_free].copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""
        used = len(state["references"])
        for field, column in zip(self.signature.fields, self.columns, strict=True):
            column[:used] = state["columns"][field.name]
        for mine, name in (
            (self._references, "references"),
            (self._following, "following"),
            (self._run, "run"),
        ):
            mine[:used] = state[name]
        self._references[used:] = 0
        self._num_free = len(state["free"])
        self._free[: self._num_free] = state["free"]
        self._used = used


def spread(starts: Ints, counts: Ints, period: int = 1) -> Ints:
    """`start, start + period, ...` for each start, as many as its count says."""
    ends = counts.cumsum()
    offsets = np.arange(int(ends[-1]) if len(ends) else 0) * period
    places: Ints = offsets + (starts - period * (ends - counts)).repeat(counts)
    return places


def distinct(values: Ints) -> Ints:
    """The different values, in order; `np.unique` costs several times as much."""
    if len(values) < 2:
        return values
    values = np.sort(values)
    first = np.empty(len(values), np.bool_)
    first[0] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


def _allocate(field: Field, capacity: int, folder: str | None) -> npt.NDArray[Any]:
    shape = (capacity, *field.shape)
    try:
        if folder is None:
            return np.zeros(shape, field.dtype)
        return _map_file(shape, field.dtype, folder)
    except (MemoryError, OSError, ValueError) as error:
        size = capacity * field.dtype.itemsize * int(np.prod(field.shape, dtype=np.int64))
        raise LaunchError(
            f"replay: field {field.name!r} of {capacity} steps takes {size / 2**30:.1f} GiB in "
            f"{folder or 'main memory'} ({error}); lower max_size or max_steps, or give a folder "
            "with room"
        ) from error


def _map_file(shape: tuple[int, ...], dtype: np.dtype[Any], folder: str) -> npt.NDArray[Any]:
    Path(folder).mkdir(parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(prefix="replay-", dir=folder)
    try:
        with os.fdopen(descriptor, "r+b") as file:
            return np.memmap(file, dtype, "w+", shape=shape)
    finally:
        os.unlink(path)  # the mapping keeps the bytes; a killed process leaves no file
