"""Makes the parts of PPO from its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import jax
import jax.numpy as jnp

from lpml.agents.builder import AbstractBuilder, Batches
from lpml.agents.ppo.config import PPOConfig
from lpml.agents.ppo.heads import AbstractHead, array_spec
from lpml.agents.ppo.learner import Variables, make_algorithm, observe
from lpml.agents.ppo.networks import make_network
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm
from lpml.nodes.replay import AbstractCut, CutSequences, Fifo, Queue, Sequences, Step, TableConfig

_TABLE = "rollouts"


@final
@dataclass(frozen=True)
class PPOBuilder(AbstractBuilder):
    """Proximal policy optimisation; see `lpml.agents.ppo`."""

    name: ClassVar[str] = "ppo"
    options: PPOConfig = field(default_factory=PPOConfig)

    @property
    def config(self) -> PPOConfig:
        return self.options

    @property
    def batches(self) -> Batches:
        return Batches(table=_TABLE, batch_size=self.options.batch_size)

    def tables(self, spec: EnvironmentSpec) -> list[TableConfig]:
        head = make_network(self.options, spec).head
        scalar = array_spec()
        waiting = self.options.queued_batches * self.options.batch_size
        table = TableConfig(
            name=_TABLE,
            signature=Step(spec.observation, spec.action, scalar, scalar, extras(head)),
            max_size=waiting,
            view=Sequences(self.options.unroll_length + 1),
            sampler=Fifo(),
            limiter=Queue(waiting),
            max_times_sampled=1,
        )
        return [table]

    def cuts(self, spec: EnvironmentSpec) -> Mapping[str, AbstractCut]:
        del spec
        return {_TABLE: CutSequences(self.options.unroll_length + 1, across_episodes=True)}

    def policy(
        self,
        spec: EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: int = 0,
        num_actors: int = 1,
    ) -> Policy:
        del actor, num_actors  # all draw from the same policy, with random keys of their own
        network = make_network(self.options, spec)
        head = network.head

        def init(num_envs: int) -> tuple[()]:
            del num_envs
            return ()

        def act(params: Variables, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
            outputs, _ = network.apply(params.params, observe(params.observations, observation))
            raw = head.mode(outputs) if evaluation else head.sample(outputs, key)
            beside: dict[str, jax.Array] = {}
            if not evaluation:
                log_prob = head.log_prob(outputs, raw)
                beside = {"log_prob": log_prob, "valid": jnp.ones(log_prob.shape, jnp.bool_)}
                if "raw" in extras(head):
                    beside["raw"] = raw
            return PolicyOutput(head.action(raw), state, beside or (), head.scores(outputs))

        return Policy(init, act, () if evaluation else extras(head))

    def algorithm(self, spec: EnvironmentSpec) -> Algorithm:
        return make_algorithm(self.options, spec, make_network(self.options, spec))


def extras(head: AbstractHead) -> dict[str, jax.ShapeDtypeStruct]:
    """What is recorded beside a step.

    `log_prob` of what was drawn, by the policy that drew it; `valid`, True where there is an
    action; `raw`, the draw, where it is not the action itself.
    """
    scalar = array_spec()
    recorded = {"log_prob": scalar, "valid": array_spec((), jnp.bool_)}
    if head.is_indirect:
        recorded["raw"] = head.raw
    return recorded
