"""The smallest agent that learns from windows: a linear policy, by REINFORCE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import AbstractCut, CutSequences, Fifo, Queue, Sequences, Step, TableConfig


@dataclass(frozen=True)
class WindowBuilder(AbstractBuilder):
    """Learns Catch from windows of four steps."""

    name: ClassVar[str] = "window"
    config: int = 8  # pyright: ignore[reportIncompatibleMethodOverride] - frozen
    """Batch size."""

    @property
    def batches(self) -> Batches:
        return Batches("rollouts", self.config)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        zero = np.float32(0)
        step = Step(spec.observation, spec.action, zero, zero, self.policy(spec).extras)
        return [
            TableConfig(
                "rollouts", step, 64, Sequences(5), Fifo(), limiter=Queue(64), max_times_sampled=1
            )
        ]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        return {"rollouts": CutSequences(5, across_episodes=True)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
            logits = flat(observation) @ params
            action = jax.random.categorical(key, logits).astype(spec.action.dtype)
            return PolicyOutput(action, state, {"valid": jnp.ones(action.shape, bool)}, logits)

        valid = jax.ShapeDtypeStruct((), np.dtype(np.bool_))
        return Policy(lambda num_envs: (), act, {"valid": valid})

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        shape = (spec.observation.size, spec.num_actions or 0)

        def loss(w: jax.Array, steps: Any) -> jax.Array:
            log_pi = jax.nn.log_softmax(flat(steps.observation) @ w)
            chosen = jnp.take_along_axis(log_pi, steps.action[..., None], axis=-1)[..., 0]
            valid = steps.extras["valid"].astype(jnp.float32)
            return -jnp.mean(valid * (steps.reward + 0.1) * chosen)

        def update(w: jax.Array, experience: Experience) -> tuple[jax.Array, Update]:
            value, gradient = jax.value_and_grad(loss)(w, experience.data.steps)
            return w - gradient, Update({"loss": value}, None)

        return Algorithm(lambda key: 0.1 * jax.random.normal(key, shape), update, lambda w: w)


def flat(observation: jax.Array) -> jax.Array:
    """Boards `[..., 10, 5]` as `[..., 50]`."""
    return observation.reshape(*observation.shape[:-2], -1)
