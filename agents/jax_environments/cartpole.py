"""CartPole-v1 in jax: the dynamics of gymnasium's, in float32.

Reference: Barto, Sutton and Anderson, "Neuronlike adaptive elements that can solve difficult
learning control problems" (1983); the equations of motion are those of Florian, "Correct equations
for the dynamics of the cart-pole system" (2007), without friction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp

from lpml.agents.jax_environments import drawing
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn

_CART_MASS, _SECONDS = 1.0, 0.02
_MAX_X, _MAX_THETA = 2.4, 12 * 2 * math.pi / 360


class CartPoleState(NamedTuple):
    """Of one pole on its cart."""

    x: jax.Array
    x_dot: jax.Array
    theta: jax.Array
    theta_dot: jax.Array
    steps: jax.Array


@final
@dataclass(frozen=True)
class CartPole(AbstractDrawn):
    """Reward 1 a step until the pole falls or the cart leaves; cut off after `limit` steps.

    With the defaults it is gymnasium's. All fields may be randomised.
    """

    limit: int = 500
    gravity: float = 9.8
    pole_mass: float = 0.1
    half_length: float = 0.5
    """Of the pole."""
    force: float = 10.0

    @property
    def spec(self) -> EnvironmentSpec:
        return EnvironmentSpec(
            observation=jax.ShapeDtypeStruct((4,), jnp.dtype(jnp.float32)),
            action=jax.ShapeDtypeStruct((), jnp.dtype(jnp.int32)),
            num_actions=2,
            name="jax/CartPole-v1",
            max_steps=self.limit,
        )

    def reset(self, key: jax.Array) -> tuple[CartPoleState, jax.Array]:
        begin = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        state = CartPoleState(begin[0], begin[1], begin[2], begin[3], jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(
        self, state: CartPoleState, action: jax.Array, key: jax.Array
    ) -> tuple[CartPoleState, jax.Array, jax.Array, jax.Array, jax.Array]:
        del key
        mass, length = _CART_MASS + self.pole_mass, self.half_length
        lever = self.pole_mass * length
        force = jnp.where(action > 0, self.force, -self.force)
        cosine, sine = jnp.cos(state.theta), jnp.sin(state.theta)
        pull = (force + lever * state.theta_dot**2 * sine) / mass
        theta_acc = (self.gravity * sine - cosine * pull) / (
            length * (4.0 / 3.0 - self.pole_mass * cosine**2 / mass)
        )
        x_acc = pull - lever * theta_acc * cosine / mass
        new = CartPoleState(
            x=state.x + _SECONDS * state.x_dot,
            x_dot=state.x_dot + _SECONDS * x_acc,
            theta=state.theta + _SECONDS * state.theta_dot,
            theta_dot=state.theta_dot + _SECONDS * theta_acc,
            steps=state.steps + 1,
        )
        fallen = (jnp.abs(new.x) > _MAX_X) | (jnp.abs(new.theta) > _MAX_THETA)
        return new, _observe(new), jnp.ones((), jnp.float32), fallen, new.steps >= self.limit

    def render(self, state: CartPoleState) -> drawing.Picture:
        picture = drawing.paper(200, 300)
        scale = 300 / (2 * _MAX_X + 0.6)  # pixels of a metre
        x, y, theta = 150 + scale * float(state.x), 150.0, float(state.theta)
        length = 2 * self.half_length * 100
        tip = x + length * math.sin(theta), y - length * math.cos(theta)
        drawing.line(picture, (0, y + 12), (300, y + 12), 1, drawing.GREY)
        drawing.box(picture, (x - 22, y - 4), (44, 16), drawing.INK)
        drawing.line(picture, (x, y), tip, 7, drawing.RED)
        drawing.disc(picture, (x, y), 3, drawing.PAPER)
        return picture


def _observe(state: CartPoleState) -> Any:
    return jnp.stack([state.x, state.x_dot, state.theta, state.theta_dot])
