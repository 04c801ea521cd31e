"""Environments that step one at a time, together as one of E: the base of adapters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import jax
import numpy as np
import numpy.typing as npt

from lpml.errors import UsageError
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep


class Outcome(NamedTuple):
    """What one action brought in one environment."""

    observation: Any
    """`[...]`: where it led, the last one of the episode where `last`."""
    reward: float
    discount: float
    """0 where the episode ended for good, else 1, also where time cut it off."""
    last: bool
    """The episode ended, for good or by time."""


class AbstractSingle(ABC):
    """One environment. Observations are trees of arrays as its spec has them."""

    @property
    @abstractmethod
    def spec(self) -> EnvironmentSpec:
        """Shapes and dtypes."""

    @abstractmethod
    def reset(self, seed: int | None = None) -> Any:
        """Begins an episode and returns its first observation; `None` = goes on randomly."""

    @abstractmethod
    def step(self, action: npt.NDArray[Any]) -> Outcome:
        """One action, of the spec's shape; never after a last step without `reset`."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Frees what the environment holds."""


@final
class SerialEnvironment(AbstractEnvironment):
    """E single environments, stepped one after the other; each begins anew in its last step.

    Args:
      singles: of one kind.
      seed: of the first reset; `None` = none is given.
      max_episode_steps: after which time cuts an episode off: its discount stays what it was, so
        that a learner goes on from the last observation. `None` = the environments' own limits.

    Raises:
      UsageError: there is none, or their specs differ.
    """

    def __init__(
        self,
        singles: Sequence[AbstractSingle],
        *,
        seed: int | None = None,
        max_episode_steps: int | None = None,
    ) -> None:
        if not singles:
            raise UsageError("SerialEnvironment([]): give at least one environment")
        self._singles = list(singles)
        self._spec = singles[0].spec
        for number, single in enumerate(singles):
            given, wanted = _shapes(single.spec), _shapes(self._spec)
            if given != wanted:
                raise UsageError(
                    f"environment {number} has {given}, environment 0 has {wanted}; give several "
                    "of one kind"
                )
        self._seed = seed
        self._limit = max_episode_steps
        self._lengths = [0] * len(singles)
        leaves, self._structure = jax.tree.flatten(self._spec.observation)
        self._plain = jax.tree_util.treedef_is_leaf(self._structure)  # one array, not a tree
        self._shapes = [((len(singles), *leaf.shape), leaf.dtype) for leaf in leaves]
        self._all = np.ones(len(singles), np.bool_)
        self._all.flags.writeable = False

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    @property
    def num_envs(self) -> int:
        return len(self._singles)

    def reset(self, seed: int | None = None) -> Any:
        seed, self._seed = (self._seed if seed is None else seed), None
        rows = self._empty()
        seeds: list[int | None] = [None] * len(self._singles)
        if seed is not None:
            seeds = [*spread_seed(seed, len(seeds))]
        for lane, (single, own) in enumerate(zip(self._singles, seeds, strict=True)):
            self._write(rows, lane, single.reset(own))
            self._lengths[lane] = 0
        return self._tree(rows)

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        count = len(self._singles)
        arrival = self._empty()
        rewards, discounts = np.empty(count, np.float32), np.empty(count, np.float32)
        ended = []
        for lane, single in enumerate(self._singles):
            observation, reward, discount, last = single.step(action[lane])
            self._write(arrival, lane, observation)
            rewards[lane], discounts[lane] = reward, discount
            if last or self._is_over(lane):
                ended.append(lane)
        following = self._begin(ended, arrival) if ended else arrival
        mask = np.zeros(count, np.bool_)
        mask[ended] = True
        tree = self._tree(arrival)
        observation = tree if following is arrival else self._tree(following)
        return Timestep(observation, rewards, discounts, mask, tree, mask, self._all)

    def close(self) -> None:
        for single in self._singles:
            single.close()

    def _is_over(self, lane: int) -> bool:
        """Whether time is up there."""
        if self._limit is None:
            return False
        self._lengths[lane] += 1
        return self._lengths[lane] >= self._limit

    def _begin(self, lanes: list[int], arrival: list[Any]) -> list[Any]:
        """The arrays with first observations in the place of last ones."""
        following = [leaf.copy() for leaf in arrival]
        for lane in lanes:
            self._lengths[lane] = 0
            self._write(following, lane, self._singles[lane].reset())
        return following

    def _empty(self) -> list[Any]:
        return [np.empty(shape, dtype) for shape, dtype in self._shapes]

    def _write(self, rows: list[Any], lane: int, observation: Any) -> None:
        if self._plain:
            rows[0][lane] = observation
            return
        for row, leaf in zip(rows, jax.tree.leaves(observation), strict=True):
            row[lane] = leaf

    def _tree(self, rows: list[Any]) -> Any:
        return rows[0] if self._plain else jax.tree.unflatten(self._structure, rows)


def spread_seed(seed: int, count: int) -> list[int]:
    """Seeds for `count` environments, such that those of two near seeds have none in common."""
    return [int(word) & 0x7FFFFFFF for word in np.random.SeedSequence(seed).generate_state(count)]


def _shapes(spec: EnvironmentSpec) -> str:
    parts = [spec.observation, spec.action]
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(parts))
