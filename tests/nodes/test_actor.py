"""The actor as a plain object: what it hands over, counts, logs and survives."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.context import entered
from lpml.errors import NotFinite, UsageError
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.actor import Actor
from lpml.nodes.counter import Counter
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep
from lpml.nodes.replay import (
    Adder,
    CutTransitions,
    Fifo,
    Queue,
    Replay,
    Step,
    TableConfig,
    Transitions,
)
from lpml.nodes.roles import Snapshot
from lpml.testing import VirtualClock, node
from tests.waiting import until

F32 = np.dtype(np.float32)


class Counting(AbstractEnvironment):
    """Two environments that count to 2 and 3, and begin again in a step of its own.

    An observation is `[episode, step]`; the first ends for good, the second by time.
    """

    def __init__(self) -> None:
        self.seeds: list[int | None] = []
        self.closed = False
        self.ends = np.array([2, 3])

    @property
    def spec(self) -> EnvironmentSpec:
        observation = jax.ShapeDtypeStruct((2,), F32)
        return EnvironmentSpec(observation, jax.ShapeDtypeStruct((), np.dtype(np.int32)), 9)

    @property
    def num_envs(self) -> int:
        return 2

    def reset(self, seed: int | None = None) -> Any:
        self.seeds.append(seed)
        self.time = np.zeros(2, np.int64)
        self.episode = np.zeros(2, np.int64)
        return self.observe()

    def step(self, action: Any) -> Timestep:
        begins = self.time == self.ends
        self.episode += begins
        self.time = np.where(begins, 0, self.time + 1)
        last = self.time == self.ends
        reward = np.where(begins, 0, action).astype(np.float32)
        discount = np.where(last & np.array([True, False]), 0, 1).astype(np.float32)
        seen = self.observe()
        return Timestep(seen, reward, discount, last, seen, begins, ~begins)

    def close(self) -> None:
        self.closed = True

    def observe(self) -> Any:
        return np.stack([self.episode, self.time], axis=1).astype(np.float32)


def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
    """The action is the parameter plus the step."""
    scores = params["bias"] + observation[:, 1]
    return PolicyOutput(scores.astype(jnp.int32), state, {"twice": scores * 2}, scores)


EXTRAS = {"twice": jax.ShapeDtypeStruct((), F32)}
POLICY = Policy(lambda num_envs: (), act, EXTRAS)


class Source:
    """Its version is the bias."""

    def __init__(self, bias: float = 1.0, final: bool = False) -> None:
        self.bias = bias
        self.final = final

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        shared = lpml.Shared({"bias": np.float32(self.bias)})
        return Snapshot(0 if np.isnan(self.bias) else int(self.bias), shared, self.final)


def replay(limit: int | None = None) -> Replay:
    spec, zero = Counting().spec, np.float32(0)
    table = TableConfig(
        "t",
        Step(spec.observation, spec.action, zero, zero, EXTRAS),
        max_size=limit or 1000,
        view=Transitions(1, 1.0),
        sampler=Fifo(),
        max_times_sampled=1,
        limiter=Queue(limit or 1000),
    )
    return Replay([table])


def adder(to: Replay, **options: Any) -> Adder:
    return Adder(to, {"t": CutTransitions(1)}, num_envs=2, **options)


def size(of: Replay) -> int:
    return of.statistics().tables["t"].size


def test_every_step_reaches_the_replay_once_with_its_extras() -> None:
    table = replay()
    actor = Actor(Counting(), POLICY, Source(), adder(table), max_steps=17)
    actor.run()
    assert actor.steps == 17  # of 22: in five of them an episode began, and nothing was done
    data = table.sample("t", 17).data
    columns = (data.action, data.reward, data.discount, data.extras["twice"])
    observed = np.concatenate([data.observation, data.next_observation], axis=1)
    rows = np.concatenate([observed, np.stack(columns, axis=1)], axis=1).tolist()
    first = [(e, t, e, t + 1, 1 + t, 1 + t, 1 - t, 2 + 2 * t) for e in range(4) for t in range(2)]
    second = [(e, t, e, t + 1, 1 + t, 1 + t, 1, 2 + 2 * t) for e in range(3) for t in range(3)]
    assert sorted(map(tuple, rows)) == sorted(first + second)


def test_steps_that_were_ignored_are_not_counted() -> None:
    counter = Counter()
    actor = Actor(Counting(), POLICY, Source(), None, counter=counter, max_steps=17)
    actor.run()
    counts = counter.get()
    assert (counts["actor_steps"], counts["actor_episodes"]) == (17, 7)
    assert actor.returns == [3, 6, 3, 6, 3, 3, 6]
    statistics = actor.statistics()
    assert (statistics.steps, statistics.episodes, statistics.version) == (17, 7, 1)
    assert statistics.policy_seconds > 0


def test_the_end_hands_in_what_is_left_and_closes_the_environment() -> None:
    table, environment = replay(), Counting()
    Actor(environment, POLICY, Source(), adder(table), max_steps=5).run()
    assert size(table) == 5  # far less than an adder collects
    assert environment.closed


def test_newer_parameters_are_used_from_the_next_step_on() -> None:
    source = Source(1)
    actor = Actor(Counting(), POLICY, source, max_age=0)
    assert actor.step().reward.tolist() == [1, 1]
    source.bias = 5
    assert actor.step().reward.tolist() == [6, 6]


def test_it_leaves_when_no_more_updates_will_be_made() -> None:
    actor = Actor(Counting(), POLICY, Source(final=True))
    actor.run()
    assert actor.steps == 0


def run_in_thread(context: lpml.Context, function: Callable[[], Any]) -> threading.Thread:
    def run() -> None:
        with entered(context):
            function()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_stop_ends_an_actor_that_the_limiter_holds() -> None:
    with node("actor/0", clock=VirtualClock()) as context:
        table = replay(4)
        actor = Actor(Counting(), POLICY, Source(), adder(table, steps_per_insert=2))
        thread = run_in_thread(context, actor.run)
        assert isinstance(context.clock, VirtualClock)
        context.clock.until_waiting(1)
        context.clock.stop()
        thread.join(10)
        assert not thread.is_alive()
    assert size(table) == 4


def test_an_adder_that_loses_patience_with_the_limiter_is_no_error() -> None:
    with node("actor/0") as context:
        table = replay(4)
        slow = adder(table, steps_per_insert=2, timeout=0.001)
        actor = Actor(Counting(), POLICY, Source(), slow, max_steps=17)
        thread = run_in_thread(context, actor.run)
        assert until(lambda: table.statistics().tables["t"].insert_seconds_blocked > 0.01)
        for _ in range(17):
            table.sample("t", 1, 10.0)
        thread.join(10)
        assert not thread.is_alive()
    assert actor.steps == 17


def test_a_policy_that_returns_nan_ends_the_run_and_names_node_and_step() -> None:
    with node("actor/3"):
        actor = Actor(Counting(), POLICY, Source(np.nan))
        with pytest.raises(NotFinite, match=r"actor/3: .*step 1 in environments \[0, 1\]"):
            actor.run()


def test_an_environment_that_returns_nan_ends_the_run_and_reaches_no_replay() -> None:
    class Broken(Counting):
        def observe(self) -> Any:
            seen = super().observe()
            seen[(seen == [1, 0]).all(axis=1)] = np.nan
            return seen

    table = replay()
    with node("actor/3"):
        actor = Actor(Broken(), POLICY, Source(), adder(table), seed=8)
        fault = r"actor/3: Broken gave an observation .*step 3 of the node .*\[0\] of 2.* seed 8"
        with pytest.raises(NotFinite, match=fault):
            actor.run()
    assert np.isfinite(table.sample("t", size(table)).data.next_observation).all()


def test_after_a_restart_other_numbers_are_drawn() -> None:
    def seeds(attempt: int) -> list[int | None]:
        environment = Counting()
        with entered(lpml.Context("actor/0", attempt=attempt)):
            Actor(environment, POLICY, Source(), seed=5)
        return environment.seeds

    assert seeds(0) == [5]
    assert seeds(1) == seeds(1) != seeds(2)
    assert seeds(1) != [5]


def test_returns_are_logged_at_most_once_a_second(tmp_path: Path) -> None:
    class Slow(Counting):
        def step(self, action: Any) -> Timestep:
            assert isinstance(context.clock, VirtualClock)
            context.clock.advance(0.25)
            return super().step(action)

    with node("actor/0", clock=VirtualClock(), directory=tmp_path) as context:
        Actor(Slow(), POLICY, Source(), max_steps=23).run()
        context.close()
    lines = (tmp_path / "metrics" / "actor-0.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    assert [line["step"] for line in logged] == [6, 12, 17, 23]  # every fourth quarter
    assert [line["steps_per_second"] for line in logged] == [6, 6, 5, 6]
    assert logged[1]["episode_return"] == (3 + 6 + 3 + 6 + 3) / 5
    assert logged[1]["episode_length"] == (2 + 3 + 2 + 3 + 2) / 5


def test_it_compiles_with_an_example_before_the_learner_answers() -> None:
    happened: list[str] = []

    def watched(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        happened.append("compiled")
        return act(params, key, observation, state)

    class Watched(Source):
        def pull(self, *args: Any, **options: Any) -> Snapshot:
            happened.append("pulled")
            return super().pull(*args, **options)

    policy = Policy(lambda num_envs: (), watched, EXTRAS)
    actor = Actor(Counting(), policy, Watched(), example={"bias": np.float32(0)})
    actor.step()
    assert happened == ["compiled", "pulled"]


def test_a_policy_without_parameters_is_refused() -> None:
    with pytest.raises(UsageError, match="source of parameters"):
        Actor(Counting(), POLICY)
