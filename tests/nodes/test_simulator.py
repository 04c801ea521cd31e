"""Many environments in one jitted program: the rows that learners get, seeds, faults."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.errors import NotFinite
from lpml.nodes import AbstractSimulation, VectorSimulator, replay_keys
from lpml.nodes.acting import Policy, PolicyOutput
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.replay import (
    Adder,
    CutSequences,
    Fifo,
    MinSize,
    Replay,
    Sequences,
    Step,
    TableConfig,
)
from lpml.nodes.simulation import begin
from lpml.nodes.simulator import check_memory

F32, I32 = jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)


@dataclass(frozen=True)
class Line(AbstractSimulation):
    """Begins at a random place of 0 to 2, goes up by one; ends for good at 4, or by time."""

    limit: int = 3
    breaks_at: float = 1e9

    @property
    def spec(self) -> EnvironmentSpec:
        observation = jax.ShapeDtypeStruct((1,), F32)
        return EnvironmentSpec(observation, jax.ShapeDtypeStruct((), I32), 2, name="Line")

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        place = jax.random.randint(key, (), 0, 3).astype(F32)
        return (place, jnp.zeros((), I32)), place[None]

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, ...]:
        del key, action
        place, steps = state[0] + 1, state[1] + 1
        place = jnp.where(place >= self.breaks_at, jnp.nan, place)
        return (place, steps), place[None], place, place >= 4, steps >= self.limit


def act(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
    """Counts the steps of an episode in its state; acts by a draw."""
    del params
    action = jax.random.randint(key, observation.shape[:1], 0, 2)
    extras = {"valid": jnp.ones(action.shape, bool), "age": state}
    return PolicyOutput(action, state + 1, extras, observation)


COUNTING = Policy(lambda num_envs: jnp.zeros((num_envs,), I32), act)


def make(num_envs: int = 4, **options: Any) -> VectorSimulator:
    return VectorSimulator(Line(), num_envs, seed=5, policy=COUNTING, **options)


def test_an_ended_episode_takes_a_row_for_its_last_observation_alone() -> None:
    steps = make(64, length=12).rollout(()).steps
    ended_for_good = (steps.discount == 0) & steps.extras["valid"]
    rows, columns = np.nonzero(~steps.extras["valid"][:, 1:])
    rests = rows, columns + 1
    assert len(rows) > 64
    assert not steps.action[rests].any()
    assert not steps.reward[rests].any()
    assert (steps.extras["age"][:, :-1][steps.extras["valid"][:, :-1]] < 3).all()
    for lane, time in zip(*rests, strict=True):
        before = steps.observation[lane, time - 1, 0]
        assert steps.observation[lane, time, 0] == before + 1  # where the last action led
        assert ended_for_good[lane, time - 1] == (before + 1 >= 4)  # else cut off: discount 1
        if time < 12:
            assert (steps.extras["valid"][lane, time + 1], steps.extras["age"][lane, time + 1]) in (
                (True, 0),
            ) or time == 11


def test_rollouts_are_the_windows_that_an_adder_cuts_from_the_same_steps() -> None:
    signature = Step(
        jax.ShapeDtypeStruct((1,), F32),
        jax.ShapeDtypeStruct((), I32),
        np.float32(0),
        np.float32(0),
        {"valid": np.bool_(0), "age": np.int32(0)},
    )
    table = TableConfig(
        "rows", signature, max_size=99, view=Sequences(6), sampler=Fifo(), limiter=MinSize(1),
        max_times_sampled=1,
    )  # fmt: skip
    replay = Replay([table])
    adder = Adder(replay, {"rows": CutSequences(6, across_episodes=True)}, num_envs=1)
    simulator, host = make(1, length=5), make(1)
    windows = [simulator.rollout(()).steps for _ in range(4)]
    age, begins, observation = 0, np.ones(1, bool), host.reset(5)
    for action in np.concatenate([window.action[0, :-1] for window in windows]):
        step = host.step(np.array([action]))
        if begins[0]:
            adder.first(observation, begins)
            age = 0
        extras = {"valid": np.ones(1, bool), "age": np.array([age], np.int32)}
        adder.add(
            np.array([action]), step.reward, step.discount, step.arrival, extras,
            last=step.last, envs=step.valid,
        )  # fmt: skip
        age, observation, begins = age + 1, step.observation, step.begins
    adder.flush()
    cut = replay.sample("rows", 3, 0.0).data.steps
    for number in range(3):
        mine = jax.tree.map(lambda x: x[0, :-1], windows[number])
        theirs = jax.tree.map(lambda x: x[number, :-1], cut)  # noqa: B023
        np.testing.assert_array_equal(windows[number].observation[0], cut.observation[number])
        valid = mine.extras["valid"]
        np.testing.assert_array_equal(valid, theirs.extras["valid"])
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_array_equal(a[valid], b[valid])


def test_the_last_row_of_a_rollout_is_the_first_of_the_next() -> None:
    simulator = make(length=5)
    first, second = simulator.rollout(()).steps, simulator.rollout(()).steps
    np.testing.assert_array_equal(first.observation[:, -1], second.observation[:, 0])
    np.testing.assert_array_equal(first.extras["valid"][:, -1], second.extras["valid"][:, 0])


def test_an_environment_draws_the_same_numbers_beside_others() -> None:
    few, many = make(2), make(7)
    np.testing.assert_array_equal(few.reset(9), many.reset(9)[:2])
    for _ in range(12):
        a, b = few.step(np.zeros(2, np.int32)), many.step(np.zeros(7, np.int32))
        np.testing.assert_array_equal(a.observation, b.observation[:2])
    assert len(np.unique(make(64).reset(1))) == 3
    assert not np.array_equal(make(64).reset(1), make(64).reset(2))


@dataclass(frozen=True)
class Traced(AbstractSimulation):
    """A line that notes when its `reset` is traced, as physics is for long."""

    traced: list[str] = field(default_factory=list, hash=False, compare=False)

    @property
    def spec(self) -> EnvironmentSpec:
        return Line().spec

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        self.traced.append("reset")
        return Line().reset(key)

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, ...]:
        return Line().step(state, action, key)


def test_no_environment_draws_what_the_policy_or_a_learner_of_the_same_seed_draws() -> None:
    """Splitting a key and folding numbers into it give the same keys."""

    def drawn(keys: jax.Array) -> set[int]:
        return {int(jax.random.bits(key, dtype=jnp.uint32)) for key in keys}

    def shown(params: Any, key: jax.Array, observation: Any, state: Any) -> PolicyOutput:
        bits = jnp.full(observation.shape[:1], jax.random.bits(key, dtype=jnp.uint32))
        output = act(params, key, observation, state)
        return output._replace(extras={**output.extras, "bits": bits})

    simulator = VectorSimulator(Line(), 8, seed=5, policy=Policy(COUNTING.init, shown), length=8)
    roots = set(begin(Line(), 8, 5).root.tolist())
    actions = set(simulator.rollout(()).steps.extras["bits"][:, :-1].flat) - {0}  # 0: no step
    learner = drawn(jax.random.split(jax.random.key(5), 16))
    assert len(roots) == len(actions) == 8
    assert not roots & actions
    assert not learner & (roots | actions)


def test_a_seed_may_be_any_integer() -> None:
    for seed in (-1, 2**40 + 5):
        simulator = VectorSimulator(Line(), 2, seed=seed, policy=COUNTING, length=2)
        assert simulator.rollout(()).mask.all()


def test_what_begins_the_first_episodes_is_compiled_for_the_next_ones_too() -> None:
    environment = Traced()
    simulator = VectorSimulator(environment, 3, seed=5)
    before = len(environment.traced)
    first, next_one = simulator.reset(5), simulator.reset()
    assert len(environment.traced) == before
    np.testing.assert_array_equal(first, make(3).reset(5))
    other = make(3)
    other.reset(5)
    np.testing.assert_array_equal(next_one, other.reset())


def test_the_host_sees_the_end_of_an_episode_then_the_begin_of_the_next() -> None:
    environment = make(1)
    environment.reset(2)
    steps = [environment.step(np.zeros(1, np.int32)) for _ in range(5)]
    ends = [bool(step.last[0]) for step in steps].index(True)
    begin = steps[ends + 1]
    assert (begin.begins[0], begin.valid[0], begin.last[0]) == (True, False, False)
    assert (begin.reward[0], steps[ends].begins[0]) == (0, False)


def test_statistics_are_of_the_episodes_that_ended() -> None:
    simulator = make(8, length=40)
    steps = simulator.rollout(()).steps
    valid, found = steps.extras["valid"][:, :-1], simulator.statistics()
    assert found.steps == valid.sum()
    ended = int((~valid).sum()) + int((~steps.extras["valid"][:, -1]).sum())
    assert found.episodes == ended
    assert 2 <= found.mean_length <= 3


def test_a_state_that_is_not_finite_names_the_environment_and_a_seed_that_replays_it() -> None:
    simulator = VectorSimulator(Line(breaks_at=4), 6, seed=0)
    starts = simulator.reset(0)[:, 0]
    with pytest.raises(NotFinite, match=r"environment \d of 6 \(Line, seed 0\)") as caught:
        [simulator.step(np.zeros(6, np.int32)) for _ in range(6)]
    message = str(caught.value)
    index = int(message.split("environment ")[1].split()[0])
    seed = int(message.split("replay_keys(")[1].split(",")[0])
    step = int(message.split("after step ")[1].split()[0])
    state, observation = Line(breaks_at=4).reset(replay_keys(seed, 0))
    assert observation[0] == starts[index]
    for number in range(1, step + 1):
        state, observation, *_ = Line(breaks_at=4).step(
            state, jnp.int32(0), replay_keys(seed, number)
        )
    assert np.isnan(observation[0])


def test_after_a_state_that_is_not_finite_a_reset_begins_anew() -> None:
    simulator = VectorSimulator(Line(limit=1, breaks_at=3), 1, seed=0)
    broke = []
    for _ in range(20):
        if simulator.reset()[0, 0] == 2:  # the next place is one at which it breaks
            with pytest.raises(NotFinite, match="after step 1"):
                simulator.step(np.zeros(1, np.int32))
            broke.append(True)
        else:
            assert np.isfinite(simulator.step(np.zeros(1, np.int32)).observation).all()
            broke.append(False)
    assert (True, False) in set(itertools.pairwise(broke))


def test_more_environments_than_memory_holds_are_refused_with_an_estimate() -> None:
    with pytest.raises(lpml.UsageError, match=r"num_envs=1000000 take 0.\d GiB.*would leave half"):
        check_memory(Line(), 1_000_000, memory=1 << 20)
    with pytest.raises(lpml.UsageError, match="num_envs=0"):
        VectorSimulator(Line(), 0)
    with pytest.raises(lpml.UsageError, match="give a policy"):
        VectorSimulator(Line(), 1).rollout(())
