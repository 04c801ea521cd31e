"""What a node knows of an environment: several of one kind that step together.

E is the number of environments, one axis in front of every array. A single environment is E = 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class EnvironmentSpec:
    """Shapes and dtypes of one environment, without the axis E.

    Rewards and discounts are scalars of float32.
    """

    observation: Any
    """A tree of `jax.ShapeDtypeStruct`."""
    action: jax.ShapeDtypeStruct
    num_actions: int | None = None
    """Of a discrete action, which is an integer in [0, num_actions); `None` = continuous."""
    low: npt.NDArray[np.floating[Any]] | None = None
    """Smallest continuous action, of the shape of `action`."""
    high: npt.NDArray[np.floating[Any]] | None = None
    name: str = ""
    """Of the environment, for messages and files."""
    max_steps: int | None = None
    """Steps after which time cuts an episode off; `None` = never, or it is not known."""


class Timestep(NamedTuple):
    """What one step of E environments brought.

    Environments begin their next episode by themselves. One that does so in the same step has
    `last` and `begins` set together; one that needs a step of its own for it, in which its action
    is ignored, has `last` first, and in the next step `begins` without `valid`.
    """

    observation: Any
    """`[E, ...]`: to act on next; the first of an episode where `begins`."""
    reward: npt.NDArray[np.float32]
    """`[E]`: what followed the action."""
    discount: npt.NDArray[np.float32]
    """`[E]`: 0 where the action ended the episode for good, else 1, also where time cut it off."""
    last: npt.NDArray[np.bool_]
    """`[E]`: whether the action was the last of its episode, for good or by time."""
    arrival: Any
    """`[E, ...]`: where the action led: the last observation of the episode where `last`, else
    the same as `observation`."""
    begins: npt.NDArray[np.bool_]
    """`[E]`: whether `observation` is the first of an episode."""
    valid: npt.NDArray[np.bool_]
    """`[E]`: False where the action was ignored, and there is nothing to learn from."""


class AbstractEnvironment(ABC):
    """E environments of one kind that step together, each with its own episodes.

    The arrays that `reset` and `step` return are the caller's: they are not written again.
    """

    @property
    @abstractmethod
    def spec(self) -> EnvironmentSpec:
        """Of one environment."""

    @property
    @abstractmethod
    def num_envs(self) -> int:
        """E."""

    @abstractmethod
    def reset(self, seed: int | None = None) -> Any:
        """Begins an episode in every environment.

        Args:
          seed: of all that is random from here on, differently in each; `None` = goes on.

        Returns:
          The first observations, `[E, ...]`.
        """

    @abstractmethod
    def step(self, action: npt.NDArray[Any]) -> Timestep:
        """One action in every environment.

        Args:
          action: `[E, ...]`, of the spec's dtype.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Frees what the environments hold."""
