"""A small DQN, and batches for it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.dqn import DQNConfig
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Transition

B, A = 6, 3
SMALL = DQNConfig(hidden_sizes=(8,), batch_size=B)


def make_spec(observation: Any = None, num_actions: int | None = A) -> EnvironmentSpec:
    if observation is None:
        observation = jax.ShapeDtypeStruct((4,), jnp.float32)
    dtype = jnp.float32 if num_actions is None else jnp.int32
    return EnvironmentSpec(observation, jax.ShapeDtypeStruct((), dtype), num_actions, name="toy")


def make_experience(seed: int = 0, batch_size: int = B) -> Experience:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.normal(size=(batch_size, *shape)).astype(np.float32)

    data = Transition(
        observation=normal(4),
        action=rng.integers(0, A, batch_size).astype(np.int32),
        reward=normal(),
        discount=rng.choice([0.0, 0.95], batch_size).astype(np.float32),
        next_observation=normal(4),
    )
    probability = rng.uniform(0.01, 0.1, batch_size).astype(np.float32)
    return Experience(data, jnp.asarray(probability), jnp.float32(50))
