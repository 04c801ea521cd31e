"""A sum tree: draws leaves in proportion to their weights, whole batches at a time.

Three levels: weights, sums of 16 weights, sums of 32 sums. Each block keeps its running sums
beside its numbers, so a draw is one binary search at the top and two comparisons with a block
below, and its cost hardly depends on the number of leaves. A block's sum is its last running sum,
computed from its children and never adjusted: rounding does not build up, and a sum is zero
exactly where all its weights are.
"""

from __future__ import annotations

from typing import final

import numpy as np

from lpml.nodes.replay.signature import Floats, Ints

_FAN = 16
_MIDDLE_FAN = 32


@final
class _Level:
    """Numbers in blocks of `fan`; row 2b holds block b, row 2b + 1 its running sums."""

    __slots__ = ("_flat", "_rows", "fan")

    def __init__(self, num_blocks: int, fan: int) -> None:
        self.fan = fan
        self._rows = np.zeros((2 * num_blocks, fan))
        self._flat = self._rows.reshape(-1)

    def get(self, places: Ints) -> Floats:
        numbers: Floats = self._flat[places + places // self.fan * self.fan]
        return numbers

    def set(self, places: Ints, numbers: Floats) -> tuple[Ints, Floats]:
        """Returns the blocks that changed, and their sums."""
        blocks = places // self.fan
        self._flat[places + blocks * self.fan] = numbers
        blocks = _merge_neighbours(blocks)
        sums = self._rows.take(2 * blocks, axis=0).cumsum(axis=1)
        self._rows[2 * blocks + 1] = sums
        return blocks, sums[:, -1]

    def find(self, blocks: Ints, points: Floats) -> tuple[Ints, Floats]:
        """The places in `blocks` at `points` of the running sums, and what is left of these."""
        sums = self._rows.take(2 * blocks + 1, axis=0)
        # What was subtracted before was rounded: stay within the block. The first running sum
        # above a point belongs to a number that adds something, so to a positive one.
        points = np.minimum(points, np.nextafter(sums[:, -1], 0.0))
        child = (sums > points[:, None]).argmax(axis=1)
        before = sums.reshape(-1).take(np.arange(-1, sums.size - 1, self.fan) + child)
        return blocks * self.fan + child, points - np.where(child > 0, before, 0.0)


@final
class SumTree:
    """Weights of `capacity` leaves in float64, all zero at first."""

    def __init__(self, capacity: int) -> None:
        tops = -(-capacity // (_FAN * _MIDDLE_FAN))
        self._leaves = _Level(tops * _MIDDLE_FAN, _FAN)
        self._middle = _Level(tops, _MIDDLE_FAN)
        self._top = np.zeros(tops)
        self._running: Floats | None = None

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._sums()[-1])

    def get(self, leaves: Ints) -> Floats:
        """The weights of `leaves`."""
        return self._leaves.get(leaves)

    def set(self, leaves: Ints, weights: Floats) -> None:
        """Gives `leaves` new weights, at least 0; of a repeated leaf the last counts."""
        tops, sums = self._middle.set(*self._leaves.set(leaves, weights))
        self._top[tops] = sums
        self._running = None

    def find(self, points: Floats) -> Ints:
        """The leaves at `points` of the running sum, each in [0, total).

        Never a leaf of weight zero, whatever the rounding; `total` must be positive.
        """
        running = self._sums()
        points = np.minimum(points, np.nextafter(running[-1], 0.0))
        blocks: Ints = np.searchsorted(running[1:], points, side="right")
        points = points - running.take(blocks)
        leaves, _ = self._leaves.find(*self._middle.find(blocks, points))
        return leaves

    def _sums(self) -> Floats:
        """Running sums of the top, from 0."""
        if self._running is None:
            self._running = np.zeros(len(self._top) + 1)
            np.cumsum(self._top, out=self._running[1:])
        return self._running


def _merge_neighbours(parents: Ints) -> Ints:
    """Without repetitions that stand side by side; leaves set in order share parents."""
    if len(parents) < 2:
        return parents
    changes = np.empty(len(parents), np.bool_)
    changes[0] = True
    np.not_equal(parents[1:], parents[:-1], out=changes[1:])
    return parents[changes]
