"""CartPole-v1 once more: the dynamics of gymnasium's at a fraction of their cost.

Reference: Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult
learning control problems" (1983); the equations of motion are those of Florian, "Correct equations
for the dynamics of the cart-pole system" (2007), without friction.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any, final

import jax
import numpy as np
import numpy.typing as npt

from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep

_GRAVITY, _TOTAL_MASS, _POLE_MASS, _HALF_LENGTH = 9.8, 1.1, 0.1, 0.5
_FORCE, _SECONDS = 10.0, 0.02
_MAX_X, _MAX_THETA = 2.4, 12 * 2 * pi / 360
_POLE_MASS_LENGTH = _POLE_MASS * _HALF_LENGTH


@final
class CartPole(AbstractEnvironment):
    """E poles on carts, as gymnasium's `CartPole-v1`: reward 1 a step, cut off after 500 steps.

    State and observations are those of gymnasium to the last bit; episodes begin with other random
    numbers, and in the step that ended the one before. The state is kept in Python's numbers: for
    some fifty environments and fewer that takes less time than one numpy call per operation.
    """

    def __init__(self, num_envs: int = 1, seed: int = 0, max_episode_steps: int = 500) -> None:
        self._num_envs = num_envs
        self._limit = max_episode_steps
        self._rng = np.random.default_rng(seed)
        self._states: list[list[float]] = []  # x, its speed, theta, its speed
        self._steps = [0] * num_envs
        self._ones = np.ones(num_envs, np.float32)
        self._none, self._all = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
        for constant in (self._ones, self._none, self._all):
            constant.flags.writeable = False
        self.reset()

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            observation=jax.ShapeDtypeStruct((4,), np.dtype(np.float32)),
            action=jax.ShapeDtypeStruct((), np.dtype(np.int32)),
            num_actions=2,
            name="lpml/CartPole-v1",
        )

    @property
    def num_envs(self) -> int:
        return self._num_envs

    def reset(self, seed: int | None = None) -> npt.NDArray[np.float32]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._states = self._begin(self._num_envs)
        self._steps = [0] * self._num_envs
        return np.array(self._states, np.float32)

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        fallen, ended, steps = [], [], self._steps
        for lane, (state, chosen) in enumerate(zip(self._states, action.tolist(), strict=True)):
            steps[lane] += 1
            if _move(state, _FORCE if chosen else -_FORCE):
                fallen.append(lane)
                ended.append(lane)
            elif steps[lane] >= self._limit:
                ended.append(lane)
        arrival = np.array(self._states, np.float32)
        if not ended:
            return Timestep(
                arrival, self._ones, self._ones, self._none, arrival, self._none, self._all
            )
        for lane, state in zip(ended, self._begin(len(ended)), strict=True):
            self._states[lane], steps[lane] = state, 0
        last, discount = np.zeros(self._num_envs, np.bool_), self._ones.copy()
        last[ended] = True
        discount[fallen] = 0
        observation = np.array(self._states, np.float32)
        return Timestep(observation, self._ones, discount, last, arrival, last, self._all)

    def _begin(self, count: int) -> list[list[float]]:
        states: list[list[float]] = self._rng.uniform(-0.05, 0.05, (4, count)).T.tolist()
        return states


def _move(state: list[float], force: float) -> bool:
    """Euler's method, with gymnasium's order of operations; whether the pole fell."""
    x, x_dot, theta, theta_dot = state
    cosine, sine = cos(theta), sin(theta)
    pull = (force + _POLE_MASS_LENGTH * (theta_dot * theta_dot) * sine) / _TOTAL_MASS
    theta_acc = (_GRAVITY * sine - cosine * pull) / (
        _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * (cosine * cosine) / _TOTAL_MASS)
    )
    x_acc = pull - _POLE_MASS_LENGTH * theta_acc * cosine / _TOTAL_MASS
    x += _SECONDS * x_dot
    theta += _SECONDS * theta_dot
    state[:] = x, x_dot + _SECONDS * x_acc, theta, theta_dot + _SECONDS * theta_acc
    return abs(x) > _MAX_X or abs(theta) > _MAX_THETA
