"""The smallest agent that learns Catch: values that are linear in where ball and paddle are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.catch import Catch
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience, Update
from lpml.nodes.replay import (
    AbstractCut,
    CutTransitions,
    Prioritised,
    SamplesPerInsert,
    Step,
    TableConfig,
    Transitions,
)


@dataclass(frozen=True)
class TinyConfig:
    """Options; of every kind that a saved policy can hold."""

    rate: float = 0.5
    epsilon: float = 0.3
    batch_size: int = 32
    updates_per_step: int = 2
    samples_per_insert: float = 16.0
    tolerance: float | None = None
    remember: bool = False
    """The policy's state counts the steps of an episode, and decides: for tests of that."""
    shape: tuple[int, ...] = (25, 3)


@dataclass(frozen=True)
class TinyBuilder(AbstractBuilder):
    """Learns the mean return of each action, from whole episodes."""

    name: ClassVar[str] = "tiny"
    config: TinyConfig = TinyConfig()  # pyright: ignore[reportIncompatibleMethodOverride] - frozen

    @property
    def batches(self) -> Batches:
        return Batches("replay", self.config.batch_size, self.config.updates_per_step)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        zero = np.float32(0)
        limiter = SamplesPerInsert(self.config.samples_per_insert, 64, self.config.tolerance or 512)
        table = TableConfig(
            "replay",
            Step(spec.observation, spec.action, zero, zero),
            max_size=2_000,
            view=Transitions(n_step=9, discount=1.0),
            sampler=Prioritised(0.5),
            limiter=limiter,
        )
        return [table]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        return {"replay": CutTransitions(n_step=9)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        epsilon = 0.0 if evaluation else self.config.epsilon

        def init(num_envs: int) -> Any:
            return jnp.zeros((num_envs,), jnp.int32) if self.config.remember else ()

        def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
            values = features(observation) @ params["w"]
            explore, draw = jax.random.split(key)
            lead = values.shape[:1]
            action = jnp.where(
                jax.random.uniform(explore, lead) < epsilon,
                jax.random.randint(draw, lead, 0, values.shape[1]),
                jnp.argmax(values, axis=-1),
            )
            if self.config.remember:
                action, state = state % 3, state + 1
            return PolicyOutput(action.astype(spec.action.dtype), state, (), values)

        return Policy(init, act)

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        def init(key: jax.Array) -> Any:
            return {"w": 0.01 * jax.random.normal(key, self.config.shape)}

        def loss(w: jax.Array, experience: Experience) -> tuple[jax.Array, jax.Array]:
            data = experience.data
            values = features(data.observation) @ w
            chosen = jnp.take_along_axis(values, data.action[:, None], axis=1)[:, 0]
            error = data.reward - chosen
            weight = 1 / (experience.probability * experience.size)  # as if drawn uniformly
            return jnp.mean(weight * error**2), jnp.abs(error) + 0.5

        def update(state: Any, experience: Experience) -> tuple[Any, Update]:
            gradient = jax.value_and_grad(loss, has_aux=True)
            (value, priorities), grads = gradient(state["w"], experience)
            w = state["w"] - self.config.rate * grads
            return {"w": w}, Update({"loss": value}, priorities)

        return Algorithm(init, update, lambda state: state)


def features(board: jax.Array) -> jax.Array:
    """The columns of ball and paddle, one-hot together: `[E, 25]` of boards `[E, 10, 5]`."""
    ball = jnp.max(board[:, :-1], axis=1)
    paddle = board[:, -1]
    return (ball[:, :, None] * paddle[:, None, :]).reshape(len(board), -1)


def host_catch(num_envs: int, seed: int) -> Catch:
    """An environment that is named by its function."""
    return Catch(num_envs, seed)
