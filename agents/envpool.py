"""Environments of EnvPool, stepped in threads of C++; the one file that imports envpool.

Reference: Weng et al., "EnvPool: A Highly Parallel Reinforcement Learning Environment Execution
Engine", NeurIPS 2022.
"""

from __future__ import annotations

import warnings
from typing import Any, final

import envpool  # type: ignore[import-not-found,import-untyped,unused-ignore]
import numpy.typing as npt

from lpml.agents.gym import GymVector
from lpml.agents.serial import spread_seed
from lpml.errors import UsageError, closest
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep


def make_envpool(name: str, num_envs: int = 1, seed: int = 0) -> EnvpoolEnvironment:
    """Environments by EnvPool's name, with `envpool/` before it or not."""
    return EnvpoolEnvironment(name.removeprefix("envpool/"), num_envs, seed)


@final
class EnvpoolEnvironment(AbstractEnvironment):
    """E environments of one pool, all of which step together.

    An episode that ended needs a step of its own to begin anew, as in `GymVector`: what EnvPool
    returns then is the first observation, and the action is ignored. Images are `[H, W, K]`. A pool
    has its seeds from the begin, so a reset with other ones makes another pool.

    Args:
      task: EnvPool's name, such as `Pong-v5`.
      num_envs: E.
      seed: of the first reset.

    Raises:
      UsageError: there is no such task, or its spaces are of kinds that cannot be learned from.
    """

    def __init__(self, task: str, num_envs: int, seed: int = 0) -> None:
        known = envpool.list_all_envs()
        if task not in known:
            raise UsageError(
                f"environment 'envpool/{task}': envpool {envpool.__version__} has none"
                f"{_near(task, known)}"
            )
        self._task = task
        self._num_envs = num_envs
        self._unused: int | None = seed
        self._pool = self._make(seed)

    @property
    def spec(self) -> EnvironmentSpec:
        return self._pool.spec

    @property
    def num_envs(self) -> int:
        return self._num_envs

    def reset(self, seed: int | None = None) -> Any:
        unused, self._unused = self._unused, None
        if seed not in (None, unused):
            self._pool.close()
            self._pool = self._make(seed)
        return self._pool.reset()

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        return self._pool.step(action)

    def close(self) -> None:
        self._pool.close()

    def _make(self, seed: int) -> GymVector:
        with warnings.catch_warnings():  # gymnasium's, of the precision of bounds
            warnings.simplefilter("ignore")
            pool = envpool.make(
                self._task,
                env_type="gymnasium",
                num_envs=self._num_envs,
                seed=spread_seed(seed, self._num_envs),
            )
            return GymVector(pool, name=f"envpool/{self._task}", seed=None, frames_last=True)


def _near(task: str, known: list[str]) -> str:
    near = closest(task, known)
    return near if near.startswith("; did") else "; envpool.list_all_envs() names them all"
