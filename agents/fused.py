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

from lpml.agents.builder import AbstractBuilder
from lpml.errors import UsageError
from lpml.nodes import simulation
from lpml.nodes.compiling import run_once
from lpml.nodes.data_parallel import make_mesh, place, replicate, spread, tracing_over
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import LearnerState
from lpml.nodes.replay import CutSequences, Sequences
from lpml.nodes.roles import Params
from lpml.nodes.simulation import AbstractSimulation, EpisodeSums, Simulated
from lpml.nodes.simulator import check_memory
from lpml.nodes.updates import many_updates, strong


class AnakinState(NamedTuple):
    """All that the loop changes."""

    simulated: Simulated
    learner: LearnerState
    bad: jax.Array
    """`[]` int32: the first update whose metrics were not finite, or -1."""
    version: jax.Array
    """`[]` int32: updates so far."""


class Report(NamedTuple):
    """What one call of the device brought."""

    metrics: Mapping[str, jax.Array]
    """Means over its updates."""
    sums: EpisodeSums
    bad: jax.Array


@final
class Fused:
    """The loop of one agent in one environment, as functions of the device.

    Args:
      builder: of an agent that learns from windows of consecutive steps: PPO, IMPALA.
      environment: one of those it acts in.
      num_envs: E, a multiple of the agent's batch size: k batches of a rollout bring k updates.
        `None` = the batch size.
      iterations: rollouts of one call of the device.
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
        spec, batches = environment.spec, builder.batches
        devices = jax.local_devices() if devices is None else devices
        self.environment = environment
        self.num_envs = num_envs = batches.batch_size if num_envs is None else num_envs
        self.length = _window(builder, spec) - 1
        if num_envs < 1 or num_envs % batches.batch_size or num_envs % len(devices):
            raise UsageError(
                f"anakin: num_envs={num_envs} environments do not divide into batches of "
                f"{batches.batch_size} and among {len(devices)} devices; give a multiple of both"
            )
        check_memory(environment, num_envs, length=4 * self.length)
        self.updates = num_envs // batches.batch_size * iterations  # of one call
        self.steps = num_envs * self.length * iterations  # of one call, ticks without one included
        self._batch_size, self._iterations = batches.batch_size, iterations
        self._policy, self.algorithm = builder.policy(spec), builder.algorithm(spec)
        self._many = many_updates(
            self.algorithm, num_envs // batches.batch_size, batches.batch_size
        )
        self._mesh = make_mesh(devices)
        self.call: Callable[[AnakinState], tuple[AnakinState, Report]] = jax.jit(
            self._traced, donate_argnums=0
        )
        """`call(state) -> (state, Report)`: `iterations` rollouts, each with its updates."""
        self.variables: Callable[[LearnerState], Params] = jax.jit(
            lambda state: jax.tree.map(jnp.copy, self.algorithm.variables(state))
        )

    def init(self, seed: int) -> AnakinState:
        """Everything at its beginning, on the devices."""

        def made(seed: jax.Array) -> AnakinState:
            learner_key, policy_key = jax.random.split(jax.random.key(seed))
            lanes = simulation.begin(self.environment, self.num_envs, seed)
            policy = jax.tree.map(jnp.asarray, self._policy.init(self.num_envs))
            learner = strong(self.algorithm.init(learner_key))
            bad = jnp.full((), -1, jnp.int32)
            simulated = Simulated(lanes, policy, policy_key)
            return AnakinState(simulated, learner, bad, jnp.zeros((), jnp.int32))

        return self.placed(run_once(made, np.uint32(seed & 0xFFFFFFFF)))

    def placed(self, state: AnakinState) -> AnakinState:
        """The state divided among the devices."""
        lanes, policy, key = state.simulated
        lanes, policy = place((lanes, policy), self._mesh, divided=True)
        key, learner, bad, version = place(
            (key, state.learner, state.bad, state.version), self._mesh, divided=False
        )
        return AnakinState(Simulated(lanes, policy, key), learner, bad, version)

    def _traced(self, state: AnakinState) -> tuple[AnakinState, Report]:
        with tracing_over(self._mesh):
            state, (metrics, sums) = jax.lax.scan(
                self._iteration, state, None, length=self._iterations
            )
        totals = jax.tree.map(lambda x: jnp.sum(x, dtype=x.dtype), sums._replace(is_bad=()))
        totals = totals._replace(is_bad=jnp.any(sums.is_bad))
        return state, Report(jax.tree.map(jnp.mean, metrics), totals, state.bad)

    def _iteration(self, state: AnakinState, _: None) -> tuple[AnakinState, Any]:
        """A rollout, and an update from each of its batches."""
        params = self.algorithm.variables(state.learner)
        simulated, data, sums = simulation.rollout(
            self.environment, self._policy, params, state.simulated, self.length
        )
        batches = self.num_envs // self._batch_size
        if batches > 1:  # every batch has rows of every device
            data = jax.tree.map(
                lambda x: x.reshape(-1, batches, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape),
                data,
            )
        else:
            data = spread(data)
        ones = jnp.ones((self.num_envs,), jnp.float32)
        learner, update, bad = self._many(
            state.learner, data, ones, jnp.float32(self.num_envs), state.bad, state.version
        )
        simulated = Simulated(
            spread(simulated.lanes), spread(simulated.policy), replicate(simulated.key)
        )
        new = AnakinState(simulated, replicate(learner), bad, state.version + batches)
        return new, (update.metrics, sums)


def _window(builder: AbstractBuilder, spec: EnvironmentSpec) -> int:
    """Rows of the windows that an agent learns from."""
    name = builder.batches.table
    table = next(table for table in builder.tables(spec) if table.name == name)
    cut = builder.cuts(spec)[name]
    if (
        isinstance(cut, CutSequences)
        and isinstance(table.view, Sequences)
        and cut.across_episodes
        and cut.length == table.view.length > 1
    ):
        return cut.length
    raise UsageError(
        f"anakin: {builder.name} learns from {table.view}, cut by {cut}; take an agent that learns "
        "from windows across the ends of episodes, such as ppo or impala"
    )
