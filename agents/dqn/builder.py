"""Makes the parts of DQN from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.dqn.config import DQNConfig
from lpml.agents.dqn.learner import make_algorithm
from lpml.agents.dqn.networks import make_network
from lpml.errors import UsageError
from lpml.nodes import Params
from lpml.nodes.acting import Policy, PolicyOutput, PolicyState
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm
from lpml.nodes.replay import (
    AbstractCut,
    CutTransitions,
    Prioritised,
    SamplesPerInsert,
    Step,
    TableConfig,
    Transitions,
    Uniform,
)

TABLE = "replay"


@final
@dataclass(frozen=True)
class DQNBuilder(AbstractBuilder):
    """DQN with the options of `config`.

    Raises:
      UsageError: from any method, if the actions of the environment are not discrete.
    """

    name: ClassVar[str] = "dqn"
    config: DQNConfig = DQNConfig()  # noqa: RUF009 # pyright: ignore[reportIncompatibleMethodOverride] - both frozen

    @property
    def batches(self) -> Batches:
        return Batches(TABLE, self.config.batch_size, self.config.updates_per_step)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        config = _check(self.config, spec)
        exponent = config.priority_exponent
        table = TableConfig(
            TABLE,
            Step(spec.observation, spec.action, np.float32(0), np.float32(0)),
            max_size=config.replay_size,
            view=Transitions(config.n_step, config.discount),
            sampler=Prioritised(exponent) if exponent else Uniform(),
            limiter=SamplesPerInsert(
                config.samples_per_insert, config.min_replay_size, _tolerance(config)
            ),
        )
        return [table]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        del spec
        return {TABLE: CutTransitions(self.config.n_step)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        config = _check(self.config, spec)
        network = make_network(spec, config)

        def init(num_envs: int) -> PolicyState:
            del num_envs
            return ()

        def act(
            params: Params, key: jax.Array, observation: Any, state: PolicyState
        ) -> PolicyOutput:
            q = network.apply(params["params"], observation)
            action = q.argmax(axis=-1)
            if not evaluation:
                epsilon = exploration(config, params["updates"], len(q), actor, num_actors)
                action = explore(key, action, epsilon, q.shape[-1])
            return PolicyOutput(action.astype(spec.action.dtype), state, (), q)

        return Policy(init, act)

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        config = _check(self.config, spec)
        return make_algorithm(make_network(spec, config), config)


def exploration(
    config: DQNConfig, updates: jax.Array, num_envs: int, actor: int = 0, num_actors: int = 1
) -> jax.Array:
    """The share of random actions, `[E]`.

    It falls linearly to `epsilon_end ** (1 + spread * i / (N - 1))` for environment i of the N of
    all actors: Horgan et al. (2018), section 4.1. Updates of the learner stand for steps.

    Args:
      updates: `[]` integer, made when the parameters were published.
      num_envs: E, of each actor.
      actor, num_actors: which of how many.
    """
    steps = updates.astype(jnp.float32) * (config.batch_size / config.samples_per_insert)
    progress = jnp.minimum(steps / config.epsilon_steps, 1.0)
    place = (actor * num_envs + np.arange(num_envs)) / max(1, num_actors * num_envs - 1)
    end = np.asarray(config.epsilon_end ** (1 + config.epsilon_spread * place), np.float32)
    return config.epsilon_begin + progress * (end - config.epsilon_begin)


def explore(key: jax.Array, action: jax.Array, epsilon: jax.Array, num_actions: int) -> jax.Array:
    """Actions `[E]`, each replaced by a random one with probability `epsilon` `[E]`."""
    whether_key, which_key = jax.random.split(key)
    whether = jax.random.uniform(whether_key, action.shape) < epsilon
    which = jax.random.randint(which_key, action.shape, 0, num_actions, action.dtype)
    return jnp.where(whether, which, action)


def _tolerance(config: DQNConfig) -> float:
    """Room for the batches that are prefetched and for the steps that are sent at once."""
    batch = config.batch_size * config.updates_per_step
    customary = 0.1 * config.samples_per_insert * config.min_replay_size  # as Acme's
    return max(customary, 4.0 * batch, 2.0 * max(1.0, config.samples_per_insert))


def _check(config: DQNConfig, spec: EnvironmentSpec) -> DQNConfig:
    if spec.num_actions is None:
        raise UsageError(
            f"DQN on {spec.name or 'this environment'}: its actions {spec.action} are continuous, "
            "and DQN values each of a finite number of actions; take ppo"
        )
    return config
