"""Which windows of each environment were cut, and which steps the replay holds for the next ones.

A lane is one environment, seen as the stream of its rows. Windows may reach over several inserts,
so the replay holds the last rows of a lane, as many as the windows to come may need.
"""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np

from lpml.nodes.replay.cuts import AbstractCut, Windows
from lpml.nodes.replay.rows import Rows
from lpml.nodes.replay.signature import Bools, Floats, Ints
from lpml.nodes.replay.streams import Insert, Items


class Layout(NamedTuple):
    """What an insert says of its lanes and items; see `Insert`."""

    lanes: Ints
    counts: Ints
    held: Ints
    keep: Ints
    items: list[Items]


@final
class Lanes:
    """The state of `num_envs` lanes.

    Args:
      cuts: one for each table.
      num_envs: E.
      mix: of maximum and mean in priorities made of those of steps.
    """

    def __init__(self, cuts: list[AbstractCut], num_envs: int, mix: float) -> None:
        self._cuts = cuts
        self._mix = mix
        self._held = np.zeros(num_envs, np.int64)  # rows in the replay
        # Places count from the first held row of a lane:
        self._begin = np.zeros(num_envs, np.int64)  # of the episode; may be negative
        self._starts = np.zeros((len(cuts), num_envs), np.int64)  # next window of each table
        self._priorities = [np.empty(0)] * num_envs  # of the held rows, where steps have them

    def cut(self, rows: Rows) -> Layout:
        """The windows that are complete now. Those rows count as held that were not cut up."""
        lanes = np.flatnonzero(rows.counts)
        counts = rows.counts[lanes]
        held = self._held[lanes]
        sizes = held + counts
        bases = sizes.cumsum() - sizes  # places of the insert before each lane
        chains = None
        if rows.priorities is not None:
            chains = self._chain(lanes, counts, rows.priorities)
        stretches = None
        if len(rows.ended):
            stretches = _Stretches(lanes, held, sizes, rows)
        items = []
        kept = sizes.copy()
        for starts, cut in zip(self._starts, self._cuts, strict=True):
            if stretches is None or cut.spans_episodes:
                start = starts[lanes]
                first = start == self._begin[lanes]
                windows = cut.cut(start, sizes, first, np.zeros(len(lanes), np.bool_))
                at, following = bases, windows.following
            else:
                windows = stretches.cut(cut, starts[lanes], self._begin[lanes])
                at, following = bases[stretches.lane], windows.following[stretches.tails]
            starts[lanes] = following
            np.minimum(kept, following, out=kept)
            items.append(self._items(windows, at, chains))
        begin = self._begin[lanes] if stretches is None else stretches.begin(self._begin[lanes])
        self._begin[lanes] = begin - kept
        self._starts[:, lanes] -= kept
        self._held[lanes] = keep = sizes - kept
        if chains is not None:
            for lane, stop, size in zip(
                lanes, (bases + sizes).tolist(), keep.tolist(), strict=True
            ):
                self._priorities[lane] = chains[stop - size : stop]
        return Layout(lanes, counts, held, keep, items)

    def without_held(self, insert: Insert) -> Insert:
        """The same insert without the held steps, which are gone, and the items that need them."""
        sizes = insert.held + insert.counts
        ends = sizes.cumsum()
        lost = insert.held.cumsum()
        items = {}
        for name, (starts, lengths, priorities) in insert.items.items():
            of = ends.searchsorted(starts, "right")  # the lane of each item
            stays = starts - (ends - sizes)[of] >= insert.held[of]
            items[name] = Items(
                (starts - lost[of])[stays],
                lengths[stays],
                None if priorities is None else priorities[stays],
            )
        keep = np.minimum(insert.keep, insert.counts)
        left = np.zeros_like(self._held)
        left[insert.lanes] = keep
        gone = self._held - left
        self._held = left
        self._begin -= gone
        self._starts = np.maximum(0, self._starts - gone)
        self._priorities = [
            chain[len(chain) - size :] for chain, size in zip(self._priorities, left, strict=True)
        ]
        return insert._replace(held=np.zeros_like(insert.held), keep=keep, items=items)

    def _chain(self, lanes: Ints, counts: Ints, priorities: Floats) -> Floats:
        """The priorities of the rows of the insert, held ones included."""
        ends = counts.cumsum().tolist()
        parts = []
        for lane, count, end in zip(lanes.tolist(), counts.tolist(), ends, strict=True):
            parts += [self._priorities[lane], priorities[end - count : end]]
        return np.concatenate(parts)

    def _items(self, windows: Windows, at: Ints, chains: Floats | None) -> Items:
        starts = windows.starts + at.repeat(windows.counts)
        if chains is None:
            return Items(starts, windows.lengths, None)
        return Items(starts, windows.lengths, _mixed(chains, starts, windows.lengths, self._mix))


class _Stretches:
    """The rows of lanes, cut where episodes end: of each lane its ended episodes and the rest."""

    def __init__(self, lanes: Ints, held: Ints, sizes: Ints, rows: Rows) -> None:
        ended = lanes.searchsorted(rows.ended)  # lanes as they are counted here
        counts = np.bincount(ended, minlength=len(lanes)) + 1
        self.lane = np.arange(len(lanes)).repeat(counts)
        self.tails = counts.cumsum() - 1
        self._heads = self.tails - counts + 1
        self._ended: Bools = np.ones(len(self.lane), np.bool_)
        self._ended[self.tails] = False
        self._end = np.empty(len(self.lane), np.int64)
        self._end[self.tails] = sizes
        self._end[self._ended] = held[ended] + rows.ends
        self._several = counts > 1

    def cut(self, cut: AbstractCut, start: Ints, begin: Ints) -> Windows:
        """The windows of all stretches; the first one of each lane may have begun before."""
        starts = np.empty_like(self._end)
        starts[1:] = self._end[:-1]
        begins = starts.copy()
        starts[self._heads] = start
        begins[self._heads] = begin
        return cut.cut(starts, self._end, starts == begins, self._ended)

    def begin(self, begin: Ints) -> Ints:
        """Where the episode of each lane begins that goes on."""
        begins: Ints = np.where(self._several, self._end[self.tails - 1], begin)
        return begins


def _mixed(chain: Floats, starts: Ints, lengths: Ints, mix: float) -> Floats:
    """`mix * max + (1 - mix) * mean` over windows of priorities, without their last rows."""
    if not len(starts):
        return np.empty(0)
    steps = np.maximum(1, lengths - 1)
    offsets = np.arange(int(steps.max()))
    within = offsets < steps[:, None]
    values = np.where(within, chain.take(starts[:, None] + offsets, mode="clip"), 0.0)
    mixed: Floats = mix * values.max(axis=1) + (1 - mix) * values.sum(axis=1) / steps
    return mixed
