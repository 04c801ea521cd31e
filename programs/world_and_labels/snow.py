"""The worlds of the program: small boards before which snow falls.

A snowflake is darker than what matters, but there are many: numbers made of a frame without
knowing what to look for are mostly numbers about the snow.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, final

import jax
import jax.numpy as jnp

from lpml.agents.jax_environments import Catch, GridWorld
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractSimulation, State
from lpml.nodes.simulator import VectorSimulator

DEPTH = 0.6
"""How bright a flake is at most; what matters is 1."""

_SNOW = 0x5F0  # folded into the key of a step, so that the world moves as it would without snow


@final
@dataclass(frozen=True)
class Snow(AbstractSimulation):
    """An environment of frames with bright pixels, behind snow.

    Every pixel is at least as bright as a flake, which is drawn anew in every frame, uniformly in
    [0, depth). All else is as in the environment, with the same random numbers.

    Args:
      environment: its observation is one array of floats in [0, 1].
      depth: how bright a flake is at most.
      name: by which `make_environment` makes it.
    """

    environment: AbstractSimulation
    depth: float = DEPTH
    name: str = ""

    @property
    def spec(self) -> EnvironmentSpec:
        return dataclasses.replace(self.environment.spec, name=self.name)

    def reset(self, key: jax.Array) -> tuple[State, jax.Array]:
        state, frame = self.environment.reset(key)
        return state, self._fall(frame, key)

    def step(
        self, state: State, action: jax.Array, key: jax.Array
    ) -> tuple[State, jax.Array, jax.Array, jax.Array, jax.Array]:
        state, frame, reward, terminated, truncated = self.environment.step(state, action, key)
        return state, self._fall(frame, key), reward, terminated, truncated

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
