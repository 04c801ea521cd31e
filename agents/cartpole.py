"""CartPole-v1 once more, as arrays: the dynamics of gymnasium's at a fraction of their cost.

Reference: Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult
learning control problems" (1983); the equations of motion are those of Florian, "Correct equations
for the dynamics of the cart-pole system" (2007), without friction.
"""

from __future__ import annotations

import math
from typing import Any, final

import jax
import numpy as np
import numpy.typing as npt

from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep

_GRAVITY, _TOTAL_MASS, _POLE_MASS, _HALF_LENGTH = 9.8, 1.1, 0.1, 0.5
_FORCE, _SECONDS = 10.0, 0.02
_MAX_X, _MAX_THETA = 2.4, 12 * 2 * math.pi / 360
_POLE_MASS_LENGTH = _POLE_MASS * _HALF_LENGTH


@final
class CartPole(AbstractEnvironment):
    """E poles on carts, as gymnasium's `CartPole-v1`: reward 1 a step, cut off after 500 steps.

    State, in float64, and observations are those of gymnasium to the last bit; episodes begin
    with other random numbers, and in the step that ended the one before.
    """

    def __init__(self, num_envs: int = 1, seed: int = 0, max_episode_steps: int = 500) -> None:
        self._num_envs = num_envs
        self._limit = max_episode_steps
        self._rng = np.random.default_rng(seed)
        self._state = np.zeros((4, num_envs))  # x, its speed, theta, its speed
        self._steps = np.zeros(num_envs, np.int64)
        self._longest = 0  # steps of the oldest episode, at least
        self._ones = np.ones(num_envs, np.float32)
        self._none, self._all = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
        for constant in (self._ones, self._none, self._all):
            constant.flags.writeable = False
        self._begin(np.arange(num_envs))

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
        self._begin(np.arange(self._num_envs))
        return self._observe()

    def step(self, action: npt.NDArray[Any]) -> Timestep:
        state = self._move(np.asarray(action))
        self._steps += 1
        self._longest += 1
        fallen = (np.abs(state[0]) > _MAX_X) | (np.abs(state[2]) > _MAX_THETA)
        last = fallen
        if self._longest >= self._limit:
            last = fallen | (self._steps >= self._limit)
        arrival = self._observe()
        if not np.count_nonzero(last):
            return Timestep(
                arrival, self._ones, self._ones, self._none, arrival, self._none, self._all
            )
        self._begin(np.flatnonzero(last))
        discount = np.where(fallen, np.float32(0), np.float32(1))
        return Timestep(self._observe(), self._ones, discount, last, arrival, last, self._all)

    def _move(self, action: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Euler's method, with gymnasium's order of operations."""
        _, _, theta, theta_dot = state = self._state
        force = np.where(action > 0, _FORCE, -_FORCE)
        cosine, sine = np.cos(theta), np.sin(theta)
        pull = (force + _POLE_MASS_LENGTH * (theta_dot * theta_dot) * sine) / _TOTAL_MASS
        theta_acc = (_GRAVITY * sine - cosine * pull) / (
            _HALF_LENGTH * (4.0 / 3.0 - _POLE_MASS * (cosine * cosine) / _TOTAL_MASS)
        )
        rates = np.empty_like(state)
        rates[0], rates[2] = state[1], theta_dot
        rates[1] = pull - _POLE_MASS_LENGTH * theta_acc * cosine / _TOTAL_MASS
        rates[3] = theta_acc
        rates *= _SECONDS
        state += rates
        return state

    def _begin(self, lanes: npt.NDArray[np.intp]) -> None:
        self._state[:, lanes] = self._rng.uniform(-0.05, 0.05, (4, len(lanes)))
        self._steps[lanes] = 0
        self._longest = int(self._steps.max())

    def _observe(self) -> npt.NDArray[np.float32]:
        observation = np.empty((self._num_envs, 4), np.float32)
        observation[...] = self._state.T
        return observation
