"""Sebulba: actor threads on some devices of the machine, a learner on the others.

References: Hessel et al., "Podracer architectures for scalable Reinforcement Learning" (2021),
section 4; Huang et al., "Cleanba: A Reproducible and Efficient Distributed Reinforcement Learning
Platform" (2023), section 4 (which rollouts an update learns from does not depend on the weather).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax

import lpml
from lpml.agents.builder import AbstractBuilder, window_rows
from lpml.agents.serial import spread_seed
from lpml.errors import UsageError
from lpml.nodes.acting import Policy
from lpml.nodes.actor import fresh_seed
from lpml.nodes.averaging import Average
from lpml.nodes.collector import Collector, RolloutSource
from lpml.nodes.counter import Counter
from lpml.nodes.data_parallel import Divided
from lpml.nodes.environment import AbstractEnvironment
from lpml.nodes.experience import example_batch
from lpml.nodes.learner import Learner
from lpml.nodes.learning_time import LearnerStatistics
from lpml.nodes.roles import Params, Snapshot
from lpml.nodes.rollouts import Rollouts
from lpml.nodes.simulator import VectorSimulator


@dataclass(frozen=True)
class SebulbaStatistics:
    """What the node did so far."""

    learner: LearnerStatistics
    """Its waiting is that for rollouts."""
    steps: int
    """Of all environments together, learned from."""
    episodes: int
    rollouts: int
    """Of each actor, learned from."""
    acting_seconds: float
    """Of all actors together."""
    waiting_seconds: float
    """Of all actors together, for parameters."""


@final
class Sebulba:
    """Acts in threads and learns beside them; whoever wants the parameters pulls them.

    Update n + 1 learns from one rollout of every actor. An actor makes its rollout n with the
    parameters after update n - `ahead`: so it acts while the learner learns, and the same seed
    gives the same parameters, however fast each of them is (where the environments are
    reproducible).

    Trajectories go from the device that acted to those that learn, parameters the other way; with
    a single device all share it, and the node says so.

    Args:
      builder: of an agent that learns from windows of consecutive steps: PPO, IMPALA.
      make: `make(num_envs, seed)`, environments; those of a `VectorSimulator` never leave the
        device.
      num_envs: of all actors together; a multiple of the agent's batch size. `None` = that size.
      num_actors: threads, spread over the devices that act; `None` = one for each.
      ahead: rollouts by which an actor may be ahead of the learner; 0 = it waits for each update.
      acting: devices that act; `None` = those that do not learn.
      learning: devices that learn; `None` = as many as batches divide among, at most three quarters
        of all.
      average: this node's part in the average of several, as in `Learner`; `None` = it is the only
        one.
      seed: of everything that is drawn; each of several needs its own.
      counter: where `actor_steps`, `actor_episodes` and `learner_steps` are counted.
      max_updates: of the parameters, after which `run` returns; `None` = when the program stops.
      at_end: called with the last parameters when `run` ends.
      log_seconds: from one log of the metrics to the next.

    Raises:
      UsageError: the agent learns from something else, or the numbers do not divide.
    """

    lpml_role: ClassVar[str] = "learner"

    def __init__(
        self,
        builder: AbstractBuilder,
        make: Callable[[int, int], AbstractEnvironment],
        *,
        num_envs: int | None = None,
        num_actors: int | None = None,
        ahead: int = 1,
        acting: Sequence[jax.Device] | None = None,
        learning: Sequence[jax.Device] | None = None,
        average: Average | None = None,
        seed: int = 0,
        counter: Counter | None = None,
        max_updates: int | None = None,
        at_end: Callable[[Params], object] | None = None,
        log_seconds: float = 1.0,
    ) -> None:
        batches = builder.batches
        num_envs = batches.batch_size if num_envs is None else num_envs
        size = batches.batch_size

        def fits(actors: int, learners: int) -> bool:
            return size % learners == 0 == num_envs % ((num_actors or actors) * learners)

        acting, learning = _split(acting, learning, fits)
        num_actors = len(acting) if num_actors is None else num_actors
        check_numbers(num_envs, num_actors, size, ahead, len(learning))
        print(_said(acting, learning, num_actors), flush=True)
        seed = fresh_seed(seed, lpml.context().attempt)
        shared = acting == learning == jax.local_devices()[:1]
        devices = [None if shared else acting[a % len(acting)] for a in range(num_actors)]
        divided = Divided(None if shared else learning)
        seeds = [seed, *spread_seed(seed, num_actors)[1:]]
        made = [make(num_envs // num_actors, own) for own in seeds]
        spec = made[0].spec
        rows = window_rows(builder, spec)
        if rows is None:
            raise UsageError(
                f"sebulba: {builder.name} does not learn from windows across the ends of "
                "episodes; take an agent that does, such as ppo or impala"
            )
        policy = builder.policy(spec)
        sources = [
            _source(environment, policy, rows - 1, own, device)
            for environment, own, device in zip(made, seeds, devices, strict=True)
        ]
        table = next(table for table in builder.tables(spec) if table.name == batches.table)
        example = example_batch(table, builder.cuts(spec)[batches.table], num_envs)
        self._rollouts = Rollouts(
            sources,
            devices,
            divided,
            batches=num_envs // size,
            ahead=ahead,
            counter=counter,
            log_seconds=log_seconds,
        )
        self._learner = Learner(
            divided.algorithm(builder.algorithm(spec)),
            self._rollouts,
            batch_size=size,
            updates_per_step=num_envs // size,
            average=average,
            counter=counter,
            max_updates=max_updates,
            seed=seed,
            example=example._replace(data=divided.put(example.data)),
            at_end=at_end,
            log_seconds=log_seconds,
        )

    def run(self) -> None:
        """Goes on until the program stops or `max_updates` are made."""
        try:
            with lpml.deadline(None):
                self._learner.join()  # actors begin with what all learners have
            self._rollouts.start(self._learner.variables)
            self._learner.run()
        finally:
            self._rollouts.close()

    @lpml.concurrent
    @lpml.idempotent
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """As `Learner.pull`."""
        return self._learner.pull(worker, at_least=at_least, timeout=timeout)

    @lpml.concurrent
    def statistics(self) -> SebulbaStatistics:
        """What was done so far."""
        rollouts = self._rollouts
        return SebulbaStatistics(
            self._learner.statistics(),
            rollouts.steps,
            rollouts.episodes,
            rollouts.taken,
            *rollouts.seconds,
        )

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """The learner's state and the counts; environments are not saved."""
        return {"learner": self._learner.save(), "rollouts": self._rollouts.save()}

    @lpml.concurrent
    def restore(self, state: Mapping[str, Any]) -> None:
        """Puts back what `save` returned, before `run`; the actors begin new episodes.

        Raises:
          UsageError: the states differ in names or shapes; nothing was changed.
        """
        self._learner.restore(state["learner"])
        self._rollouts.restore(state["rollouts"])


def _split(
    acting: Sequence[jax.Device] | None,
    learning: Sequence[jax.Device] | None,
    fits: Callable[[int, int], bool],
) -> tuple[list[jax.Device], list[jax.Device]]:
    """Devices that act, and those that learn.

    Left open, at most three quarters of the devices learn, as many as batches divide among.
    """
    devices = jax.local_devices()
    if learning is None:
        left = [device for device in devices if device not in (acting or ())]
        most = len(left) if acting is not None else len(left) - max(1, len(left) // 4)
        counts = [n for n in range(most, 0, -1) if fits(len(acting or left[n:]), n)]
        learning = left[len(left) - counts[0] :] if counts else left[-1:]
    if acting is None:
        acting = [device for device in devices if device not in learning]
    learning = list(learning) or list(acting)
    return list(acting) or learning, learning


def _said(acting: list[jax.Device], learning: list[jax.Device], num_actors: int) -> str:
    """What the log says of who shares what."""
    threads = f"{num_actors} actor thread{'s' * (num_actors > 1)}"
    if set(acting) & set(learning):
        return (
            f"sebulba: {threads} and the learner share {', '.join(map(str, learning))}; with "
            "more devices, actors would have some of their own"
        )
    return (
        f"sebulba: {threads} on {', '.join(map(str, acting))}; the learner on "
        f"{', '.join(map(str, learning))}"
    )


def check_numbers(
    num_envs: int, num_actors: int, batch_size: int, ahead: int, learning: int = 1
) -> None:
    """Raises UsageError unless the numbers of a `Sebulba` fit together.

    Args:
      num_envs: of all actors together.
      num_actors: threads.
      batch_size: of the agent.
      ahead: rollouts by which an actor may be ahead.
      learning: devices that learn.
    """
    if num_envs < 1 or num_actors < 1 or ahead < 0:
        raise UsageError(
            f"sebulba: num_envs={num_envs}, num_actors={num_actors}, ahead={ahead}; give at least "
            "1, 1 and 0"
        )
    if num_envs % batch_size:
        raise UsageError(
            f"sebulba: num_envs={num_envs} environments do not divide into batches of "
            f"{batch_size}; give a multiple"
        )
    if num_envs % (num_actors * learning):
        devices = f" times {learning} learning devices" if learning > 1 else ""
        raise UsageError(
            f"sebulba: num_envs={num_envs} environments do not divide among "
            f"num_actors={num_actors}{devices}; give a multiple"
        )
    if batch_size % learning:
        raise UsageError(
            f"sebulba: batches of {batch_size} do not divide among {learning} learning devices; "
            "give a multiple"
        )


def _source(
    environment: AbstractEnvironment,
    policy: Policy,
    length: int,
    seed: int,
    device: jax.Device | None,
) -> RolloutSource:
    """Who acts in the environments of one actor."""
    if isinstance(environment, VectorSimulator):
        return VectorSimulator(
            environment.environment,
            environment.num_envs,
            seed,
            policy=policy,
            length=length,
            device=device,
        )
    return Collector(environment, policy, length, seed=seed, device=device)
