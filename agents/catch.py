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
        cells = rows * columns
        self._first = np.arange(0, num_envs * cells, cells)  # cell of each board, all in a row
        self._bottom = self._first + cells - columns
        self._row = 0  # of every ball: all episodes take as many steps
        self._column = self._paddle = np.zeros(num_envs, np.int64)
        self._zero, self._one = np.zeros(num_envs, np.float32), np.ones(num_envs, np.float32)
        self._none, self._all = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
        for constant in (self._zero, self._one, self._none, self._all):
            constant.flags.writeable = False
        self._begin()

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
        self._begin()
        return self._observe()

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        moved = self._paddle + action
        moved -= 1
        self._paddle = np.minimum(np.maximum(moved, 0), self._columns - 1)
        self._row += 1
        arrival = self._observe()
        if self._row < self._rows - 1:
            return Timestep(
                arrival, self._zero, self._one, self._none, arrival, self._none, self._all
            )
        caught = np.where(self._column == self._paddle, np.float32(1), np.float32(-1))
        self._begin()
        return Timestep(
            self._observe(), caught, self._zero, self._all, arrival, self._all, self._all
        )

    def _begin(self) -> None:
        self._row = 0
        self._column = self._rng.integers(self._columns, size=self._num_envs)
        self._paddle = np.full(self._num_envs, self._columns // 2)

    def _observe(self) -> npt.NDArray[np.float32]:
        boards = np.zeros((self._num_envs, self._rows, self._columns), np.float32)
        cells = boards.reshape(-1)
        cells[self._first + (self._row * self._columns + self._column)] = 1
        cells[self._bottom + self._paddle] = 1
        return boards
