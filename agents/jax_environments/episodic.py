"""Environments with the interface of brax: a state that holds observation, reward and `done`.

Those of MuJoCo Playground have it too. Reference: Freeman et al., "Brax - A Differentiable Physics
Engine for Large Scale Rigid Body Simulation" (2021).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.simulation import AbstractSimulation


class EpisodicState(NamedTuple):
    """What the package knows of an environment, and the steps of its episode."""

    inner: Any
    steps: jax.Array


@final
@dataclass(frozen=True, eq=False)
class EpisodicEnvironment(AbstractSimulation):
    """An environment of brax or of MuJoCo Playground, without the wrappers of those packages.

    `done` is the end for good; time is counted here.

    Args:
      environment: its `reset`, `step` and `action_size` are used.
      name: of the environment.
      limit: steps of an episode, after which time cuts it off.
    """

    environment: Any
    name: str
    limit: int = 1000

    @property
    def spec(self) -> EnvironmentSpec:
        return self._spec

    @functools.cached_property
    def _spec(self) -> EnvironmentSpec:
        """Made once, for the reset is traced; it travels with the environment."""
        size = int(self.environment.action_size)
        seen = jax.eval_shape(lambda key: self.reset(key)[1], jax.random.key(0))
        return EnvironmentSpec(
            observation=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), seen),
            action=jax.ShapeDtypeStruct((size,), jnp.dtype(jnp.float32)),
            low=np.full((size,), -1, np.float32),  # the packages scale to the actuators' ranges
            high=np.full((size,), 1, np.float32),
            name=self.name,
            max_steps=self.limit,
        )

    def reset(self, key: jax.Array) -> tuple[EpisodicState, Any]:
        with as_written():
            inner = self.environment.reset(jax.random.key_data(key))
        return EpisodicState(inner, jnp.zeros((), jnp.int32)), inner.obs

    def step(
        self, state: EpisodicState, action: jax.Array, key: jax.Array
    ) -> tuple[EpisodicState, Any, jax.Array, jax.Array, jax.Array]:
        del key  # what is random in a step is drawn from a key in the state
        mine = jax.tree.map(lambda leaf: leaf, state.inner)  # they write into its dictionaries
        with as_written():
            inner = self.environment.step(mine, jnp.clip(action, -1, 1))
        steps = state.steps + 1
        ended = inner.done > 0
        return EpisodicState(inner, steps), inner.obs, inner.reward, ended, steps >= self.limit


@contextmanager
def as_written() -> Iterator[None]:
    """The packages mix types and ranks in their arithmetic."""
    with ExitStack() as stack:
        stack.enter_context(jax.numpy_dtype_promotion("standard"))
        stack.enter_context(jax.numpy_rank_promotion("allow"))
        yield
