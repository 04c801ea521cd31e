"""A sum tree: draws leaves in proportion to their weights, whole batches at a time.

Three levels: weights, sums of 32 weights, sums of 32 sums. Each block of 32 keeps its running
sums, so a draw is one binary search at the top and two comparisons with 32 numbers below, and its
cost hardly depends on the number of leaves. A block's sum is its last running sum, computed from
its children and never adjusted: rounding does not build up, and a sum is zero exactly where all
its weights are.
"""

from __future__ import annotations

from typing import final

import numpy as np

from lpml.nodes.replay.signature import Floats, Ints

_FAN = 32


@final
class SumTree:
    """Weights of `capacity` leaves in float64, all zero at first."""

    def __init__(self, capacity: int) -> None:
        tops = -(-capacity // _FAN**2)
        self.capacity = capacity
        self._leaves = np.zeros((tops * _FAN, _FAN))
        self._leaf_sums = np.zeros((tops * _FAN, _FAN))  # running, within the block
        self._middle = np.zeros((tops, _FAN))
        self._middle_sums = np.zeros((tops, _FAN))
        self._top = np.zeros(tops)
        self._running: Floats | None = None
        self._flat = self._leaves.reshape(-1)  # views of the same numbers
        self._flat_middle = self._middle.reshape(-1)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._sums()[-1])

    def get(self, leaves: Ints) -> Floats:
        """The weights of `leaves`."""
        return self._flat[leaves]

    def set(self, leaves: Ints, weights: Floats) -> None:
        """Gives `leaves` new weights, at least 0; of a repeated leaf the last counts."""
        self._flat[leaves] = weights
        parents = _merge_neighbours(leaves // _FAN)
        sums = self._leaves.take(parents, axis=0).cumsum(axis=1)
        self._leaf_sums[parents] = sums
        self._flat_middle[parents] = sums[:, -1]
        parents = _merge_neighbours(parents // _FAN)
        sums = self._middle.take(parents, axis=0).cumsum(axis=1)
        self._middle_sums[parents] = sums
        self._top[parents] = sums[:, -1]
        self._running = None

    def find(self, points: Floats) -> Ints:
        """The leaves at `points` of the running sum, each in [0, total).

        Never a leaf of weight zero, whatever the rounding; `total` must be positive.
        """
        running = self._sums()
        points = np.minimum(points, np.nextafter(running[-1], 0.0))
        block = np.searchsorted(running[1:], points, side="right")
        points = points - running.take(block)
        for sums in (self._middle_sums, self._leaf_sums):
            inner = sums.take(block, axis=0)
            # What was subtracted was rounded: stay within the block. The first running sum above
            # a point belongs to a child that adds something, so to a positive one.
            points = np.minimum(points, np.nextafter(inner[:, -1], 0.0))
            child = (inner > points[:, None]).argmax(axis=1)
            before = inner.reshape(-1).take(np.arange(-1, inner.size - 1, _FAN) + child)
            points = points - np.where(child > 0, before, 0.0)
            block = block * _FAN + child
        found: Ints = block
        return found

    def weights(self) -> Floats:
        """All weights, a copy."""
        return self._flat[: self.capacity].copy()

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
