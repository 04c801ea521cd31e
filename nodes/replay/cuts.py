"""Which windows of an episode are items: rules without state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.signature import Ints


class AbstractCut(ABC):
    """Which windows of an episode are items of a table."""

    @property
    @abstractmethod
    def spans_episodes(self) -> bool:
        """Whether windows run on over the ends of episodes, as if there were none."""

    @abstractmethod
    def cut(self, start: int, end: int, first: bool, ended: bool) -> tuple[Ints, Ints, int]:
        """The windows that are complete.

        Args:
          start: where the next window begins.
          end: steps before this place are known; the last one of an episode that ended holds
            its last observation only.
          first: whether the next window is the first of its episode.
          ended: whether the episode ends before `end`; never, if the cut spans episodes.

        Returns:
          Starts and lengths of the windows, and where the next one begins.
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

    def cut(self, start: int, end: int, first: bool, ended: bool) -> tuple[Ints, Ints, int]:
        del first
        stop = max(start, end - 1 if ended else end - self.n_step)
        starts = np.arange(start, stop)
        return starts, np.minimum(self.n_step + 1, end - starts), stop


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

    def cut(self, start: int, end: int, first: bool, ended: bool) -> tuple[Ints, Ints, int]:
        period = max(1, self.length - 1) if self.period is None else self.period
        starts = np.arange(start, end - self.length + 1, period)
        lengths = np.full(len(starts), self.length)
        following = start + period * len(starts)
        overlap = self.length - period
        new = following if first and not len(starts) else max(following, following + overlap)
        if ended and self.pad and new < end and following < end - 1:
            starts = np.append(starts, following)
            lengths = np.append(lengths, end - following)
        return starts, lengths, following
