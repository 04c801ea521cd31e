"""An agent and its environments in one jitted loop, over all devices of the machine.

Reference: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 3.

The policy and the algorithm are those of the agent's builder, the very same that run in actors and
learners. Where there are several devices, environments and batches are divided among them; what is
computed is what one device would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.builder import AbstractBuilder, window_rows
from lpml.agents.intake import AbstractIntake, Brought, Learning, Windows
from lpml.agents.intake_replay import FromReplay
from lpml.errors import UsageError
from lpml.nodes import simulation
from lpml.nodes.compiling import run_once
from lpml.nodes.data_parallel import make_mesh, place, replicate, spread, tracing_over
from lpml.nodes.learning import LearnerState
from lpml.nodes.replay import CutTransitions, Oldest, Prioritised, Transitions, Uniform
from lpml.nodes.roles import Params
from lpml.nodes.simulation import AbstractSimulation, Simulated
from lpml.nodes.simulator import check_memory
from lpml.nodes.updates import strong
from lpml.nodes.windows import EpisodeSums


class AnakinState(NamedTuple):
    """All that the loop changes."""

    simulated: Simulated
    learner: LearnerState
    bad: jax.Array
    """`[]` int32: the first update whose metrics were not finite, or -1."""
    version: jax.Array
    """`[]` int32: updates so far."""
    held: Any
    """What is kept to learn from: a replay, or nothing."""


class Report(NamedTuple):
    """What one call of the device brought."""

    metrics: Mapping[str, jax.Array]
    """Means over its updates; 0 where there were none."""
    updates: jax.Array
    """`[]` int32: how many there were."""
    sums: EpisodeSums
    bad: jax.Array


@final
class Fused:
    """The loop of one agent in one environment, as functions of the device.

    First episodes are cut off at random steps where there is a time limit, so that environments
    are in different phases of the task (`simulation.staggered`).

    An iteration of an agent that learns from windows is a rollout, and an update from each batch
    of it. One of an agent that learns from a replay is so many ticks, and so many updates from
    draws, as its limiter holds in proportion.

    Args:
      builder: of an agent that learns from windows of consecutive steps, as PPO and IMPALA do, or
        from transitions of a replay, as DQN does.
      environment: one of those it acts in.
      num_envs: E; a multiple of the batch size where it learns from windows. `None` = the batch
        size.
      iterations: of one call of the device.
      devices: to divide E among; `None` = all of this machine.

    Raises:
      UsageError: the agent learns from something else, or E does not divide.
    """

    def __init__(
        self,
        builder: AbstractBuilder,
        environment: AbstractSimulation,
        *,
        num_envs: int | None = None,
        iterations: int = 8,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        devices = jax.local_devices() if devices is None else devices
        self.environment = environment
        self.num_envs = num_envs = builder.batches.batch_size if num_envs is None else num_envs
        if num_envs < 1 or num_envs % len(devices):
            raise UsageError(
                f"anakin: num_envs={num_envs} environments do not divide among {len(devices)} "
                "devices; give a multiple of them"
            )
        self._intake = make_intake(builder, environment, num_envs)
        check_memory(environment, num_envs, length=self._intake.rows)
        self.length = self._intake.ticks  # of one iteration
        self.updates = self._intake.updates * iterations  # of one call, at most
        self.steps = num_envs * self.length * iterations  # of one call, ticks without one included
        self._iterations = iterations
        self._policy = builder.policy(environment.spec)
        self.algorithm = builder.algorithm(environment.spec)
        self._mesh = make_mesh(devices)
        self.call: Callable[[AnakinState], tuple[AnakinState, Report]] = jax.jit(
            self._traced, donate_argnums=0
        )
        """`call(state) -> (state, Report)`: `iterations` times ticks and updates."""
        self.variables: Callable[[LearnerState], Params] = jax.jit(
            lambda state: jax.tree.map(jnp.copy, self.algorithm.variables(state))
        )

    def init(self, seed: int) -> AnakinState:
        """Everything at its beginning, on the devices."""

        def made(seed: jax.Array) -> AnakinState:
            learner_key, policy_key, held_key = jax.random.split(jax.random.key(seed), 3)
            lanes = simulation.begin(self.environment, self.num_envs, seed)
            lanes = simulation.staggered(self.environment, lanes)
            policy = jax.tree.map(jnp.asarray, self._policy.init(self.num_envs))
            learner = strong(self.algorithm.init(learner_key))
            bad, zero = jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32)
            held = self._intake.init(held_key)
            return AnakinState(Simulated(lanes, policy, policy_key), learner, bad, zero, held)

        return self.placed(run_once(made, np.uint32(seed & 0xFFFFFFFF)))

    def placed(self, state: AnakinState) -> AnakinState:
        """The state divided among the devices."""
        lanes, policy, key = state.simulated
        lanes, policy = place((lanes, policy), self._mesh, divided=True)
        key, learner, bad, version = place(
            (key, state.learner, state.bad, state.version), self._mesh, divided=False
        )
        held = self._intake.place(state.held, self._mesh)
        return AnakinState(Simulated(lanes, policy, key), learner, bad, version, held)

    def _traced(self, state: AnakinState) -> tuple[AnakinState, Report]:
        with tracing_over(self._mesh):
            state, (metrics, updates, sums) = jax.lax.scan(
                self._iteration, state, None, length=self._iterations
            )
        totals = jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), sums)
        totals = totals._replace(is_bad=jnp.any(sums.is_bad))
        made = jnp.sum(updates, dtype=jnp.int32)
        weights = updates / jnp.maximum(made, 1)
        return state, Report(
            jax.tree.map(lambda x: jnp.sum(weights * x), metrics), made, totals, state.bad
        )

    def _iteration(self, state: AnakinState, _: None) -> tuple[AnakinState, Brought]:
        learning = Learning(state.learner, state.bad, state.version)
        learning, simulated, held, brought = self._intake.iterate(
            learning, state.simulated, state.held
        )
        simulated = Simulated(
            spread(simulated.lanes), spread(simulated.policy), replicate(simulated.key)
        )
        learner, bad, version = learning
        return AnakinState(simulated, replicate(learner), bad, version, held), brought


def make_intake(
    builder: AbstractBuilder, environment: AbstractSimulation, num_envs: int
) -> AbstractIntake:
    """The intake that fits the table which an agent learns from.

    Raises:
      UsageError: there is none, or the numbers do not fit together.
    """
    spec = environment.spec
    rows = window_rows(builder, spec)
    if rows is not None:
        return Windows(builder, environment, num_envs, rows - 1)
    name = builder.batches.table
    table = next(table for table in builder.tables(spec) if table.name == name)
    cut = builder.cuts(spec)[name]
    if (
        isinstance(cut, CutTransitions)
        and isinstance(table.view, Transitions)
        and cut.n_step == table.view.n_step
        and isinstance(table.sampler, Uniform | Prioritised)
        and isinstance(table.remover, Oldest)
        and table.max_times_sampled is None
    ):
        return FromReplay(builder, environment, num_envs, table, table.view)
    raise UsageError(
        f"anakin: {builder.name} learns from {table.view} of {table.sampler}, cut by {cut}; take "
        "an agent that learns from windows across the ends of episodes, such as ppo or impala, or "
        "from transitions of a replay, such as dqn"
    )
