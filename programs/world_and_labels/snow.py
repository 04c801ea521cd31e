"""The worlds of the program: small boards before which snow falls.

A snowflake is darker than what matters, but there are many: numbers made of a frame without
knowing what to look for are mostly numbers about the snow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.jax_environments import Catch, GridWorld, drawing
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractDrawn, State
from lpml.nodes.simulator import VectorSimulator

DEPTH = 0.6
"""How bright a flake is at most; what matters is 1."""

_SNOW = 0x5F0  # folded into the key of a step, so that the world moves as it would without snow


class SnowState(NamedTuple):
    """The state of the environment, and its frame behind the snow: what there is to draw."""

    inner: State
    frame: jax.Array


@final
@dataclass(frozen=True)
class Snow(AbstractDrawn):
    """An environment of frames with bright pixels, behind snow.

    Every pixel is at least as bright as a flake, which is drawn anew in every frame, uniformly in
    [0, depth). All else is as in the environment, with the same random numbers.

    Args:
      environment: its observation is one array of floats in [0, 1], `[H, W]` or `[K, H, W]`.
      depth: how bright a flake is at most.
      name: by which `make_environment` makes it.
    """

    environment: AbstractDrawn
    depth: float = DEPTH
    name: str = ""

    @property
    def spec(self) -> EnvironmentSpec:
        return dataclasses.replace(self.environment.spec, name=self.name)

    def reset(self, key: jax.Array) -> tuple[SnowState, jax.Array]:
        inner, frame = self.environment.reset(key)
        seen = self._fall(frame, key)
        return SnowState(inner, seen), seen

    def step(
        self, state: SnowState, action: jax.Array, key: jax.Array
    ) -> tuple[SnowState, jax.Array, jax.Array, jax.Array, jax.Array]:
        inner, frame, reward, terminated, truncated = self.environment.step(
            state.inner, action, key
        )
        seen = self._fall(frame, key)
        return SnowState(inner, seen), seen, reward, terminated, truncated

    def render(self, state: SnowState) -> drawing.Picture:
        """The environment on the left, and right of it what the agent sees, dark for bright."""
        world = self.environment.render(state.inner)
        frame = np.asarray(state.frame)
        planes = frame.reshape(-1, *frame.shape[-2:])
        side = max(1, world.shape[0] // frame.shape[-2])
        shades = [drawing.shaded(plane, side) for plane in planes]
        return drawing.beside([world, *shades], gap=side)

    def _fall(self, frame: Any, key: jax.Array) -> jax.Array:
        flakes = jax.random.uniform(
            jax.random.fold_in(key, _SNOW), frame.shape, frame.dtype, 0.0, self.depth
        )
        return jnp.maximum(frame, flakes)


def catch(num_envs: int, seed: int) -> VectorSimulator:
    """Catch in snow, for `make_environment`."""
    return VectorSimulator(Snow(Catch(), name=f"{__name__}:catch"), num_envs, seed)


def grid_world(num_envs: int, seed: int) -> VectorSimulator:
    """The grid world in snow, for `make_environment`."""
    return VectorSimulator(Snow(GridWorld(), name=f"{__name__}:grid_world"), num_envs, seed)
