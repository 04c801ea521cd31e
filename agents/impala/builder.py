"""Makes the parts of an IMPALA agent from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.impala.config import ImpalaConfig
from lpml.agents.impala.learner import Extras, Variables, make_algorithm
from lpml.agents.impala.networks import Networks, make_networks
from lpml.errors import UsageError
from lpml.nodes.acting import Policy, PolicyOutput, PolicyState
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm
from lpml.nodes.replay import (
    AbstractCut,
    CutSequences,
    Fifo,
    Queue,
    Sequences,
    Step,
    TableConfig,
)

_TABLE = "rollouts"


@final
@dataclass(frozen=True)
class ImpalaBuilder(AbstractBuilder):
    """IMPALA for environments with discrete actions.

    Args:
      config: the options.
    """

    name: ClassVar[str] = "impala"
    config: ImpalaConfig = ImpalaConfig()  # noqa: RUF009 # pyright: ignore[reportIncompatibleMethodOverride] - both frozen

    @property
    def batches(self) -> Batches:
        """One batch of rollouts an update."""
        return Batches(_TABLE, self.config.batch_size)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        """A queue: every rollout is learned from once, in the order in which they came."""
        size = self.config.batch_size * self.config.queue_batches
        zero = np.float32(0)
        step = Step(spec.observation, spec.action, zero, zero, self.policy(spec).extras)
        return [
            TableConfig(
                _TABLE,
                step,
                max_size=size,
                view=Sequences(self.config.sequence_length + 1),
                sampler=Fifo(),
                limiter=Queue(size),
                max_times_sampled=1,
            )
        ]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        """Rollouts of T steps and the row after them, on over the ends of episodes."""
        del spec
        length = self.config.sequence_length + 1
        return {_TABLE: CutSequences(length, across_episodes=True)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        """Draws from the policy, or takes its most probable action where `evaluation`."""
        del actor, num_actors  # all explore alike: by the entropy of the policy
        networks = self._networks(spec)

        def act(
            variables: Variables, key: jax.Array, observation: object, state: PolicyState
        ) -> PolicyOutput:
            heads, following = networks.step(variables.params, observation, state)
            if evaluation:
                action = jnp.argmax(heads.logits, axis=-1)
            else:
                action = jax.random.categorical(key, heads.logits)
            lead = heads.value.shape
            extras = Extras(
                valid=jnp.ones(lead, bool),
                logits=heads.logits,
                state=state,
                updates=jnp.broadcast_to(variables.updates, lead),
            )
            return PolicyOutput(action.astype(spec.action.dtype), following, extras, heads.logits)

        def record() -> Extras:
            logits = jnp.zeros((spec.num_actions or 0,), jnp.float32)
            state = jax.tree.map(lambda leaf: leaf[0], networks.initial(1))
            return Extras(jnp.zeros((), bool), logits, state, jnp.zeros((), jnp.int32))

        return Policy(networks.initial, act, jax.eval_shape(record))

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        """How to learn from rollouts."""
        return make_algorithm(self.config, self._networks(spec))

    def _networks(self, spec: EnvironmentSpec) -> Networks:
        if spec.num_actions is None:
            raise UsageError(
                f"impala: the actions of {spec.name or 'the environment'} are continuous "
                f"({spec.action}), its policy chooses one of several; take ppo"
            )
        return make_networks(spec, self.config.hidden, self.config.lstm)
