"""Which windows of an episode are items: rules without state, for many episodes at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.signature import Bools, Ints
from lpml.nodes.replay.steps import spread


class Windows(NamedTuple):
    """The windows of S stretches of steps, one stretch after the other, M together."""

    starts: Ints
    """`[M]`"""
    lengths: Ints
    """`[M]`"""
    counts: Ints
    """`[S]`: windows of each stretch."""
    following: Ints
    """`[S]`: where the next window of each stretch begins."""


class AbstractCut(ABC):
    """Which windows of an episode are items of a table."""

    @property
    @abstractmethod
    def spans_episodes(self) -> bool:
        """Whether windows run on over the ends of episodes, as if there were none."""

    @abstractmethod
    def cut(self, start: Ints, end: Ints, first: Bools, ended: Bools) -> Windows:
        """The windows that are complete in S stretches of steps, each of one episode.

        Args:
          start: `[S]`, where the next window begins.
          end: `[S]`, steps before this place are known; the last one of an episode that ended
            holds its last observation only.
          first: `[S]`, whether the next window is the first of its episode.
          ended: `[S]`, whether the episode ends before `end`; never, if the cut spans episodes.
        """


@final
@dataclass(frozen=True)
class CutTransitions(AbstractCut):
    """Every step with the observation `n_step` steps later, or with the last one."""

    n_step: int = 1

    def __post_init__(self) -> None:
        if self.n_step < 1:
            raise UsageError(f"{self}: give n_step of at least 1")

    @property
    def spans_episodes(self) -> bool:
        return False

    def cut(self, start: Ints, end: Ints, first: Bools, ended: Bools) -> Windows:
        del first
        stop = np.maximum(start, end - np.where(ended, 1, self.n_step))
        counts = stop - start
        starts = spread(start, counts, 1)
        lengths = np.minimum(self.n_step + 1, end.repeat(counts) - starts)
        return Windows(starts, lengths, counts, stop)


@final
@dataclass(frozen=True)
class CutSequences(AbstractCut):
    """`length` steps, beginning every `period` steps.

    Args:
      length: steps of a window; to learn from the value of the observation after T steps, T + 1.
      period: steps from one window to the next; less than `length` makes them overlap.
        `None` = `length - 1`: each begins with the last step of the one before.
      pad: whether the end of an episode is a shorter window, if it has a step that the window
        before it has not (more than the last observation alone); else that end is not kept.
      across_episodes: windows run on over the ends of episodes, in the stream of rows of one
        environment, so all are of full length and `pad` means nothing. The last observation of an
        episode is a row like others, whose other fields are zero: an extra that is `True` in every
        step tells it apart. For learners on policy, where no step is to be left out.
    """

    length: int
    period: int | None = None
    pad: bool = True
    across_episodes: bool = False

    def __post_init__(self) -> None:
        if self.length < 1 or (self.period is not None and self.period < 1):
            raise UsageError(f"{self}: give a length and a period of at least 1")

    @property
    def spans_episodes(self) -> bool:
        return self.across_episodes

    def cut(self, start: Ints, end: Ints, first: Bools, ended: Bools) -> Windows:
        period = max(1, self.length - 1) if self.period is None else self.period
        counts = np.maximum(0, (end - start - self.length) // period + 1)
        following = start + period * counts
        if self.pad and ended.any():
            unseen = first & (counts == 0)  # none of the steps is in a window yet
            new = np.where(unseen, following, following + max(0, self.length - period))
            padded = ended & (new < end) & (following < end - 1)
            counts = counts + padded
        starts = spread(start, counts, period)
        lengths = np.minimum(self.length, end.repeat(counts) - starts)
        return Windows(starts, lengths, counts, following)
