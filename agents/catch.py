"""Catch: a ball falls, a paddle moves below it.

Reference: Osband et al., "Behaviour Suite for Reinforcement Learning" (2020); Mnih et al.,
"Recurrent Models of Visual Attention" (2014), section 4.3.
"""

from __future__ import annotations

from typing import Any, final

import jax
import numpy as np
import numpy.typing as npt

from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep


@final
class Catch(AbstractEnvironment):
    """E boards of 10 rows and 5 columns; +1 for a ball that is caught, -1 for one that is not.

    An observation is the board, `[10, 5]` float32, with a 1 for the ball and one for the paddle.
    Actions are left, stay and right. An episode takes 9 steps and ends for good. The best policy
    returns 1, a random one about -0.6.
    """

    def __init__(self, num_envs: int = 1, seed: int = 0, rows: int = 10, columns: int = 5) -> None:
        self._num_envs = num_envs
        self._rows, self._columns = rows, columns
        self._rng = np.random.default_rng(seed)
        self._lanes = np.arange(num_envs)
        self._row = np.zeros(num_envs, np.int64)
        self._column = np.zeros(num_envs, np.int64)
        self._paddle = np.zeros(num_envs, np.int64)
        self._begin(np.ones(num_envs, bool))

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            observation=jax.ShapeDtypeStruct((self._rows, self._columns), np.dtype(np.float32)),
            action=jax.ShapeDtypeStruct((), np.dtype(np.int32)),
            num_actions=3,
            name="Catch",
        )

    @property
    def num_envs(self) -> int:
        return self._num_envs

    def reset(self, seed: int | None = None) -> npt.NDArray[np.float32]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._begin(np.ones(self._num_envs, bool))
        return self._observe()

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        moved = self._paddle + np.asarray(action) - 1
        self._paddle = np.clip(moved, 0, self._columns - 1)
        self._row += 1
        last = self._row == self._rows - 1
        caught = np.where(self._column == self._paddle, np.float32(1), np.float32(-1))
        arrival = observation = self._observe()
        if last.any():
            self._begin(last)
            observation = self._observe()
        return Timestep(
            observation=observation,
            reward=np.where(last, caught, np.float32(0)),
            discount=np.where(last, np.float32(0), np.float32(1)),
            last=last,
            arrival=arrival,
            begins=last,
            valid=np.ones(self._num_envs, bool),
        )

    def _begin(self, which: npt.NDArray[np.bool_]) -> None:
        columns = self._rng.integers(self._columns, size=self._num_envs)
        self._row = np.where(which, 0, self._row)
        self._column = np.where(which, columns, self._column)
        self._paddle = np.where(which, self._columns // 2, self._paddle)

    def _observe(self) -> npt.NDArray[np.float32]:
        board = np.zeros((self._num_envs, self._rows, self._columns), np.float32)
        board[self._lanes, self._row, self._column] = 1
        board[self._lanes, self._rows - 1, self._paddle] = 1
        return board
