"""Returns and lengths of the episodes of E environments."""

from __future__ import annotations

from typing import final

import numpy as np
import numpy.typing as npt

from lpml.nodes.environment import Timestep

_RECENT = 20


@final
class Episodes:
    """Sums rewards and counts steps, episode by episode.

    Args:
      num_envs: E.
    """

    def __init__(self, num_envs: int) -> None:
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self.returns: list[float] = []
        """Undiscounted, of the episodes that ended, in order."""
        self.lengths: list[int] = []
        """In steps."""
        self.lanes: list[int] = []
        """The environment of each."""

    def add(self, step: Timestep, valid: npt.NDArray[np.bool_] | None = None) -> int:
        """One step of all; how many episodes it ended.

        Args:
          step: what the environments returned.
          valid: `step.valid`, or `None` where that is True everywhere.
        """
        if valid is None:
            self._return += step.reward
            self._length += 1
        else:
            self._return += np.where(valid, step.reward, 0)
            self._length += valid
        if not np.count_nonzero(step.last):
            return 0
        ended = np.flatnonzero(step.last)
        self.returns += self._return[ended].tolist()
        self.lengths += self._length[ended].tolist()
        self.lanes += ended.tolist()
        self._return[ended] = 0
        self._length[ended] = 0
        return len(ended)

    def summary(self) -> dict[str, float]:
        """Means over the last episodes; nothing before the first has ended."""
        if not self.returns:
            return {}
        return {
            "episode_return": float(np.mean(self.returns[-_RECENT:])),
            "episode_length": float(np.mean(self.lengths[-_RECENT:])),
        }

    def forget(self) -> None:
        """Keeps the last episodes only."""
        for kept in (self.returns, self.lengths, self.lanes):
            del kept[:-_RECENT]
