"""Pendulum-v1 in jax: swing up and balance, with too little torque to do it in one go.

The dynamics and the reward are those of gymnasium's `Pendulum-v1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.jax_environments import drawing
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn

_SECONDS, _MAX_SPEED, _MAX_TORQUE = 0.05, 8.0, 2.0


class PendulumState(NamedTuple):
    """Of one pendulum; the angle is 0 where it stands."""

    theta: jax.Array
    theta_dot: jax.Array
    steps: jax.Array


@final
@dataclass(frozen=True)
class Pendulum(AbstractDrawn):
    """Costs for angle, speed and torque; never ends for good, cut off after `limit` steps."""

    limit: int = 200
    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            observation=jax.ShapeDtypeStruct((3,), jnp.dtype(jnp.float32)),
            action=jax.ShapeDtypeStruct((1,), jnp.dtype(jnp.float32)),
            low=np.full((1,), -_MAX_TORQUE, np.float32),
            high=np.full((1,), _MAX_TORQUE, np.float32),
            name="jax/Pendulum-v1",
            max_steps=self.limit,
        )

    def reset(self, key: jax.Array) -> tuple[PendulumState, jax.Array]:
        begin = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
        state = PendulumState(begin[0] * math.pi, begin[1], jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(
        self, state: PendulumState, action: jax.Array, key: jax.Array
    ) -> tuple[PendulumState, jax.Array, jax.Array, jax.Array, jax.Array]:
        del key
        torque = jnp.clip(action[0], -_MAX_TORQUE, _MAX_TORQUE)
        angle = (state.theta + math.pi) % (2 * math.pi) - math.pi
        cost = angle**2 + 0.1 * state.theta_dot**2 + 0.001 * torque**2
        pull = 1.5 * self.gravity / self.length * jnp.sin(state.theta)
        push = 3.0 / (self.mass * self.length**2) * torque
        speed = state.theta_dot + (pull + push) * _SECONDS
        speed = jnp.clip(speed, -_MAX_SPEED, _MAX_SPEED)
        new = PendulumState(state.theta + speed * _SECONDS, speed, state.steps + 1)
        never = jnp.zeros((), jnp.bool_)
        return new, _observe(new), -cost, never, new.steps >= self.limit

    def render(self, state: PendulumState) -> drawing.Picture:
        picture = drawing.paper(200, 200)
        theta = float(state.theta)  # 0 is upright, and it grows to the left
        tip = 100 - 75 * math.sin(theta), 100 - 75 * math.cos(theta)
        drawing.line(picture, (100, 100), tip, 12, drawing.RED)
        drawing.disc(picture, (100, 100), 5, drawing.INK)
        return picture


def _observe(state: PendulumState) -> jax.Array:
    return jnp.stack([jnp.cos(state.theta), jnp.sin(state.theta), state.theta_dot])
