"""Returns and lengths of the episodes of E environments."""

from __future__ import annotations

from typing import final

import numpy as np

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

    def add(self, step: Timestep) -> int:
        """One step of all; how many episodes it ended."""
        self._return += np.where(step.valid, step.reward, 0)
        self._length += step.valid
        ended = np.flatnonzero(step.last & step.valid)
        if len(ended):
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
        recent = self.returns[-_RECENT:], self.lengths[-_RECENT:]
        return {
            "episode_return": float(np.mean(recent[0])),
            "episode_length": float(np.mean(recent[1])),
            "episodes": float(len(self.returns)),
        }
