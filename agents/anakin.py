"""Anakin: environment, policy and update in one jitted loop, over all devices of the machine.

Reference: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 3.

The policy and the algorithm are those of the agent's builder, the very same that run in actors and
learners. Where there are several devices, environments and batches are divided among them; what is
computed is what one device would compute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, final

import jax
import jax.numpy as jnp
import numpy as np

import lpml
from lpml.agents.builder import AbstractBuilder
from lpml.errors import CallTimeout, NotFinite, UsageError
from lpml.nodes import simulation
from lpml.nodes.compiling import in_background
from lpml.nodes.counter import Counter, CountOf
from lpml.nodes.data_parallel import make_mesh, place, replicate, spread, tracing_over
from lpml.nodes.learning import LearnerState
from lpml.nodes.replay import CutSequences, Sequences
from lpml.nodes.roles import Params, Snapshot
from lpml.nodes.simulation import AbstractSimulation, EpisodeSums, Simulated
from lpml.nodes.simulator import check_memory, raise_bad
from lpml.nodes.updates import from_arrays, many_updates, strong, to_arrays


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

        return self.placed(jax.jit(made)(np.uint32(seed & 0xFFFFFFFF)))

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
        totals = EpisodeSums(*(jnp.sum(x, axis=0, dtype=x.dtype) for x in sums[:-1]), sums[-1][-1])
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


@dataclass(frozen=True)
class AnakinStatistics:
    """What the loop did so far."""

    updates: int
    steps: int
    """Of all environments together."""
    episodes: int
    seconds: float
    """Since the first call of the device was compiled."""


@final
class Anakin:
    """Acts and learns on the device; whoever wants the parameters pulls them.

    Its version is its count of updates. Metrics and states that are not finite end the program.

    Args:
      fused: the loop.
      seed: of everything that is drawn.
      counter: where `actor_steps`, `actor_episodes` and `learner_steps` are counted.
      max_steps: of all environments, after which `run` returns; `None` = when the program stops.
      at_end: called with the last parameters when `run` ends.
      log_seconds: from one log of the metrics to the next.
    """

    lpml_role: ClassVar[str] = "learner"

    def __init__(
        self,
        fused: Fused,
        *,
        seed: int = 0,
        counter: Counter | None = None,
        max_steps: int | None = None,
        at_end: Callable[[Params], object] | None = None,
        log_seconds: float = 1.0,
    ) -> None:
        self._context = lpml.context()
        self._clock = self._context.clock
        self._fused = fused
        self._seed = seed
        self._max_steps = max_steps
        self._at_end = at_end
        self._log_seconds = log_seconds
        self._counts = CountOf(counter, "actor"), CountOf(counter, "learner")
        self._changed = self._clock.condition()  # guards what follows; never held for long
        self._state = fused.init(seed)
        self._version = 0
        self._final = False
        self._published: Snapshot | None = None
        self._under_way: deque[Report] = deque()
        self._steps = self._episodes = 0
        self._began: float | None = None
        self._logged = self._clock.time(), 0

    def run(self) -> None:
        """Goes on until the program stops or `max_steps` are made."""
        done = False
        try:
            with lpml.deadline(None):
                self._compile()
                while not self._context.should_stop and not done:
                    self.step()
                    done = self._max_steps is not None and self._steps >= self._max_steps
                while self._under_way:
                    self._settle()
                for count in self._counts:
                    count.flush()
        except lpml.ProgramStopped:
            pass
        finally:
            with self._changed:
                self._final = True
                self._changed.notify_all()
        if self._at_end is not None:
            self._at_end(self.pull().params)
        if done:
            self._context.stop_program(f"the learner made its {self._steps} steps")

    def step(self) -> int:
        """One call of the device; how many updates were made so far.

        Raises:
          NotFinite: metrics, or the state of an environment, of an earlier call are not finite.
        """
        if self._began is None:
            self._began = self._clock.time()
        with self._changed:
            self._state, report = self._fused.call(self._state)
            self._version += self._fused.updates
            self._changed.notify_all()
        self._under_way.append(report)
        if len(self._under_way) > 1:  # the device has the next one to do meanwhile
            self._settle()
        return self._version

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters; waits for version `at_least`, or until the last one.

        Raises:
          CallTimeout: there was no such version in time.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._version >= at_least or self._final, timeout
            ):
                raise CallTimeout(
                    f"pull by {worker or 'a reader'} waited {timeout} s for version {at_least}: "
                    f"the learner is at {self._version}; allow more time"
                )
            version, final, known = self._version, self._final, self._published
            if known is not None and (known.version, known.final) == (version, final):
                return known
            params = self._fused.variables(self._state.learner)
        shared = lpml.Shared(jax.tree.map(np.asarray, params))
        self._published = Snapshot(version, shared, final)
        return self._published

    @lpml.concurrent
    def statistics(self) -> AnakinStatistics:
        """What was done so far."""
        seconds = 0.0 if self._began is None else self._clock.time() - self._began
        return AnakinStatistics(self._version, self._steps, self._episodes, seconds)

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """The whole state, environments and random keys included."""
        with self._changed:
            state = jax.tree.map(jnp.copy, self._state)
            counts = {"version": self._version, "steps": self._steps, "episodes": self._episodes}
        return {"state": to_arrays(state), **counts}

    @lpml.concurrent
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` of a loop with the same options returned.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        with self._changed:
            self._state = self._fused.placed(from_arrays(state["state"], self._state))
            self._version, self._steps = int(state["version"]), int(state["steps"])
            self._episodes, self._published = int(state["episodes"]), None
            self._changed.notify_all()

    def _compile(self) -> None:
        """A call whose outcome is thrown away; pulls are answered meanwhile."""
        in_background(self._fused.call, jax.tree.map(jnp.copy, self._state))

    def _settle(self) -> None:
        """Waits for the oldest call, and passes on what it found."""
        report = self._under_way.popleft()
        steps, episodes, returns, lengths, is_bad = (float(value) for value in report.sums)
        if is_bad:
            raise_bad(self._fused.environment, self._state.simulated.lanes, self._seed)
        if int(report.bad) >= 0:
            raise NotFinite(
                f"{self._context.name}: the metrics of update {int(report.bad)} are not finite; "
                "lower the learning rate, or clip gradients"
            )
        self._steps += int(steps)
        self._episodes += int(episodes)
        self._counts[0].increment(steps=int(steps), episodes=int(episodes))
        self._counts[1].increment(steps=self._fused.updates)
        now, (before, then) = self._clock.time(), self._logged
        if now - before >= self._log_seconds:
            self._logged = now, self._steps
            metrics = {name: float(value) for name, value in report.metrics.items()}
            if episodes:
                metrics |= {"episode_return": returns / episodes}
                metrics |= {"episode_length": lengths / episodes}
            metrics["steps_per_second"] = (self._steps - then) / (now - before)
            self._context.log(metrics, step=self._steps)
            self._context.progress(self._steps, self._max_steps)


def _window(builder: AbstractBuilder, spec: Any) -> int:
    """Rows of the windows that an agent learns from."""
    name = builder.batches.table
    table = next(table for table in builder.tables(spec) if table.name == name)
    cut = builder.cuts(spec)[name]
    if isinstance(cut, CutSequences) and isinstance(table.view, Sequences):
        if cut.across_episodes and cut.length == table.view.length > 1:
            return cut.length
    raise UsageError(
        f"anakin: {builder.name} learns from {table.view}, cut by {cut}; take an agent that learns "
        "from windows across the ends of episodes, such as ppo or impala"
    )
