"""The evaluator as a plain object: which episodes count, whom it tells, when it evaluates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.errors import NotFinite, UsageError
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.counter import Counter
from lpml.nodes.environment import AbstractEnvironment, EnvironmentSpec, Timestep
from lpml.nodes.evaluator import Evaluator
from lpml.nodes.roles import Snapshot
from lpml.nodes.stopper import Stopper
from lpml.testing import VirtualClock, node

F32 = np.dtype(np.float32)


class Lengths(AbstractEnvironment):
    """Environment i has episodes of `lengths[i]` steps; the action is the reward."""

    def __init__(self, *lengths: int, pause: bool = False) -> None:
        self.lengths = np.array(lengths)
        self.pause = pause  # an episode begins in a step of its own
        self.closed = False

    @property
    def spec(self) -> EnvironmentSpec:
        action = jax.ShapeDtypeStruct((), F32)
        return EnvironmentSpec(jax.ShapeDtypeStruct((), F32), action)

    @property
    def num_envs(self) -> int:
        return len(self.lengths)

    def reset(self, seed: int | None = None) -> Any:
        self.time = np.zeros(self.num_envs, np.int64)
        return self.time.astype(np.float32)

    def step(self, action: Any) -> Timestep:
        begins = self.pause & (self.time == self.lengths)
        self.time = np.where(begins, 0, self.time + 1)
        last = self.time == self.lengths
        reward, discount = np.where(begins, 0, action).astype(np.float32), (~last).astype(F32)
        arrival = self.time.astype(np.float32)
        if self.pause:
            return Timestep(arrival, reward, discount, last, arrival, begins, ~begins)
        self.time = np.where(last, 0, self.time)
        valid = np.ones(self.num_envs, bool)
        return Timestep(self.time.astype(F32), reward, discount, last, arrival, last, valid)

    def close(self) -> None:
        self.closed = True


def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
    reward = jnp.broadcast_to(params, observation.shape)
    return PolicyOutput(reward, state, (), reward)


POLICY = Policy(lambda num_envs: (), act)


class Source:
    """Version n has the parameter n."""

    def __init__(self, *versions: int) -> None:
        self.versions = list(versions)
        self.asked: list[int] = []

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        self.asked.append(at_least)
        version = self.versions.pop(0) if len(self.versions) > 1 else self.versions[0]
        shared = lpml.Shared(np.float32(version))
        return Snapshot(version, shared, final=len(self.versions) == 1)


@pytest.mark.parametrize("pause", [False, True])
def test_short_episodes_count_no_more_than_long_ones(pause: bool) -> None:
    counter = Counter()
    environment = Lengths(1, 7, pause=pause)
    evaluator = Evaluator(environment, POLICY, Source(1), episodes=4, counter=counter)
    assert evaluator.evaluate() == (1 + 1 + 7 + 7) / 4
    assert evaluator.evaluate() == 4
    assert evaluator.evaluate() == 4
    counts = counter.get()
    assert counts["evaluator_episodes"] in (0, 4, 8, 12)  # handed in once a second


def test_what_is_left_over_goes_to_the_first_environments() -> None:
    assert (
        Evaluator(Lengths(2, 4, 6), POLICY, Source(1), episodes=5).evaluate()
        == (2 + 2 + 4 + 4 + 6) / 5
    )
    assert Evaluator(Lengths(2, 4, 6), POLICY, Source(1), episodes=2).evaluate() == 3


def test_it_logs_over_the_steps_of_the_actors_and_tells_the_stopper(tmp_path: Path) -> None:
    counter = Counter()
    counter.increment("actor", steps=640)
    stopped: list[str] = []

    def stop(reason: str) -> None:
        stopped.append(reason)
        it.clock.stop()

    with node("evaluator/0", clock=VirtualClock(), directory=tmp_path, on_stop=stop) as it:
        stopper = Stopper(target_return=8.0, min_episodes=2)
        evaluator = Evaluator(
            Lengths(1, 3), POLICY, Source(4), episodes=2, counter=counter, stopper=stopper
        )
        evaluator.run()
        it.close()
    assert stopped == ["mean return 8 over 2 episodes reached 8"]
    (line,) = (tmp_path / "metrics" / "evaluator-0.jsonl").read_text().splitlines()
    logged = json.loads(line)
    assert logged["step"] == 640
    names = ("evaluator_return", "return_std", "return_min", "return_max", "version")
    assert [logged[name] for name in names] == [8, 4, 4, 12, 4]
    assert logged["episode_length"] == 2


def test_what_was_measured_is_kept_before_anybody_ends_the_program() -> None:
    kept: list[tuple[Any, float]] = []
    seen: list[int] = []

    class Content:
        def report(self, mean_return: float, episodes: int) -> str:
            del mean_return, episodes
            seen.append(len(kept))
            return ""

    evaluator = Evaluator(
        Lengths(1, 3),
        POLICY,
        Source(4),
        episodes=2,
        stopper=Content(),
        keep=lambda params, mean_return: kept.append((params, mean_return)),
    )
    with node("evaluator/0", clock=VirtualClock()):
        evaluator.run()
    assert seen == [1]
    assert [mean_return for _, mean_return in kept] == [8]


def test_each_version_is_evaluated_once_and_the_last_one_is_the_end() -> None:
    environment, source = Lengths(1), Source(1, 2, 5)
    told: list[float] = []

    class Told:
        def report(self, mean_return: float, episodes: int) -> str:
            told.append(mean_return)
            return ""

    with node(clock=VirtualClock(jump_when_waiting=1)):
        Evaluator(environment, POLICY, source, episodes=1, stopper=Told()).run()
    assert told == [1, 2, 5]
    assert source.asked == [0, 2, 3, 6]
    assert environment.closed


def test_a_pause_lies_between_the_beginnings_of_evaluations() -> None:
    times: list[float] = []

    class Told:
        def report(self, mean_return: float, episodes: int) -> str:
            times.append(lpml.context().clock.time())
            return ""

    with node(clock=VirtualClock(jump_when_waiting=1)):
        source = Source(1, 2, 3)
        Evaluator(Lengths(1), POLICY, source, episodes=1, stopper=Told(), period=7.0).run()
    assert times == [0, 7, 14]


def test_a_stop_ends_an_evaluation() -> None:
    with node(clock=VirtualClock()) as context:
        evaluator = Evaluator(Lengths(1), POLICY, Source(1), episodes=1)
        context.clock.stop()
        with pytest.raises(lpml.ProgramStopped):
            evaluator.evaluate()
        evaluator.run()  # returns


def test_no_episodes_are_refused() -> None:
    with pytest.raises(UsageError, match="episodes=0"):
        Evaluator(Lengths(1), POLICY, Source(1), episodes=0)


def test_an_environment_that_gives_no_finite_reward_ends_it() -> None:
    class Broken(Lengths):
        def step(self, action: Any) -> Timestep:
            step = super().step(action)
            return step._replace(reward=np.where(self.time == 2, np.inf, step.reward))

    with node("evaluator/0"):
        evaluator = Evaluator(Broken(3, 4), POLICY, Source(1), episodes=2, seed=6)
        fault = r"evaluator/0: Broken gave a reward .*\(inf\) at step 2 .*\[0, 1\] of 2.* seed 6"
        with pytest.raises(NotFinite, match=fault):
            evaluator.evaluate()
