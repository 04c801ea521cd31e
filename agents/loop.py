"""An agent in one process: it acts and learns in turns, step after step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from lpml.agents.builder import AbstractBuilder, seeded
from lpml.errors import UsageError
from lpml.nodes.actor import Actor
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec
from lpml.nodes.evaluator import Evaluator
from lpml.nodes.learner import Learner
from lpml.nodes.replay import (
    Adder,
    Insert,
    Replay,
    ReplayTimeout,
    Sample,
    Signature,
)
from lpml.nodes.roles import Params

_EVALUATION = 104_729  # between the seed of the actor and that of the evaluator


@dataclass(frozen=True)
class Result:
    """What `train` made."""

    curve: tuple[tuple[int, float], ...]
    """(steps of the environments, mean return of the evaluation then)."""
    params: Params
    """As the policy takes them."""
    spec: EnvironmentSpec
    steps: int
    """Taken in the environments."""
    updates: int
    """Of the parameters."""
    episode_returns: tuple[float, ...]
    """Undiscounted, of the episodes that ended while it was learning, in order."""

    @property
    def final_return(self) -> float:
        """Of the last evaluation."""
        if not self.curve:
            raise UsageError("train made no evaluation; give it an eval_environment")
        return self.curve[-1][1]


def train(
    builder: AbstractBuilder,
    environment: AbstractEnvironment,
    *,
    num_steps: int,
    seed: int = 0,
    eval_environment: AbstractEnvironment | None = None,
    evaluate_every: int | None = None,
    episodes: int = 20,
    stop_return: float | None = None,
    report: Callable[[int, float], object] | None = None,
) -> Result:
    """Acts and learns in turns, as the limiters of the replay's tables tell it to.

    It learns as soon as it may. Where no limiter bounds it, it makes one step of the learner for
    each step of the environments. Everything is reproducible: the same arguments give the same
    curve.

    Args:
      builder: of the agent.
      environment: to act in.
      num_steps: of the environments, all counted.
      seed: of the environments, the policy, the replay's draws and the algorithm.
      eval_environment: to evaluate in; `None` = no evaluation.
      evaluate_every: steps from one evaluation to the next; `None` = a tenth of `num_steps`. There
        is one at the end too.
      episodes: of an evaluation.
      stop_return: a mean return that is good enough to end.
      report: called with each point of the curve.

    Raises:
      NotFinite: a score of the policy, or a metric of the algorithm, is not finite.
      UsageError: the limiters let it neither act nor learn.
    """
    spec = environment.spec
    tables = seeded(builder.tables(spec), 7919 * seed)
    replay = Replay(tables)
    batches = builder.batches
    learner = Learner(
        builder.algorithm(spec),
        _Ready(replay, batches.table, batches.batch_size * batches.updates_per_step),
        batch_size=batches.batch_size,
        updates_per_step=batches.updates_per_step,
        replay=replay,
        table=batches.table,
        seed=seed,
        synchronous=True,
    )
    turns = _Turns(replay, learner)
    adder = Adder(turns, builder.cuts(spec), num_envs=environment.num_envs)
    actor = Actor(environment, builder.policy(spec), learner, adder, seed=seed, max_age=0)
    unbounded = all(np.isinf(t.limiter.bounds.min_diff) for t in tables if t.name == batches.table)
    every = evaluate_every or max(1, num_steps // 10)
    curve: list[tuple[int, float]] = []
    evaluator = None
    if eval_environment is not None:
        policy = builder.policy(spec, evaluation=True)
        evaluator = Evaluator(
            eval_environment, policy, learner, episodes=episodes, seed=seed + _EVALUATION
        )

    def evaluate() -> bool:
        """Adds a point; whether it is good enough."""
        if evaluator is None:
            return False
        mean_return = evaluator.evaluate()
        curve.append((actor.steps, mean_return))
        if report is not None:
            report(actor.steps, mean_return)
        return stop_return is not None and mean_return >= stop_return

    next_evaluation = every
    while actor.steps < num_steps:
        actor.step()
        while turns.learn() and not unbounded:
            pass
        if actor.steps >= next_evaluation:
            next_evaluation += every
            if evaluate():
                break
    if not curve or curve[-1][0] != actor.steps:
        evaluate()
    return Result(
        tuple(curve),
        learner.pull().params,
        spec,
        actor.steps,
        learner.statistics().updates,
        tuple(actor.returns),
    )


@final
class _Ready:
    """Batches that the table gives without waiting; else it raises ReplayTimeout."""

    def __init__(self, replay: Replay, table: str, count: int) -> None:
        self._replay = replay
        self._table = table
        self._count = count

    def __next__(self) -> Sample:
        return self._replay.sample(self._table, self._count, 0.0)

    def close(self) -> None:
        """Nothing was begun."""


@final
class _Turns:
    """The replay as the adder sees it: an insert that would have to wait learns instead."""

    def __init__(self, replay: Replay, learner: Learner) -> None:
        self._replay = replay
        self._learner = learner
        self.sample = replay.sample
        self.update_priorities = replay.update_priorities
        self.close_writer = replay.close_writer

    def signature(self, table: str) -> Signature:
        return self._replay.signature(table)

    def insert(self, insert: Insert, timeout: float | None = None, caller: str = "") -> None:
        del timeout
        while True:
            try:
                return self._replay.insert(insert, 0.0, caller)
            except ReplayTimeout as error:
                if not self.learn():
                    raise UsageError(
                        f"train can neither act nor learn: {error}; let the limiter run further "
                        "ahead, or take smaller batches"
                    ) from error

    def learn(self) -> bool:
        """One step of the learner, if the table lets it; says whether it did."""
        try:
            self._learner.step()
        except ReplayTimeout:
            return False
        return True
