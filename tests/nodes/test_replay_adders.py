"""Adders: episodes in, transitions and sequences out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lpml
from lpml.nodes.replay import (
    Adder,
    CutSequences,
    CutTransitions,
    Prioritised,
    Replay,
    Sequences,
    Step,
    TableConfig,
    Transitions,
)
from tests.nodes.counted_episodes import STEP, everything, make, observe, play


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(1, 20),
    st.booleans(),
)
def test_n_step_transitions_are_those_of_the_definition(
    lengths: list[int], n: int, every: int, cut_off: bool
) -> None:
    replay = make(Transitions(n, 0.5))
    adder = Adder(replay, {"t": CutTransitions(n)}, steps_per_insert=every)
    episodes = play(adder, lengths, cut_off)
    adder.close()
    got = everything(replay)
    row = 0
    for episode in episodes:
        for t in range(len(episode) - 1):
            end = min(t + n, len(episode) - 1)
            rewards = episode[t + 1 : end + 1]
            ended = end == len(episode) - 1 and not cut_off
            assert got.observation["pixels"][row].tolist() == [episode[t], -episode[t]]
            assert got.next_observation["t"][row] == episode[end]
            assert got.action[row] == episode[t + 1] % 5
            assert got.reward[row] == pytest.approx(
                sum(0.5**i * reward for i, reward in enumerate(rewards))
            )
            assert got.discount[row] == (0.0 if ended else 0.5 ** (end - t))
            row += 1
    assert row == len(got.reward)
    statistics = replay.statistics()
    assert statistics.steps == sum(len(episode) for episode in episodes)  # each stored once


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(2, 5), st.integers(1, 20))
def test_overlapping_sequences_share_their_steps(
    lengths: list[int], length: int, every: int
) -> None:
    replay = make(Sequences(length))
    adder = Adder(replay, {"t": CutSequences(length)}, steps_per_insert=every)
    episodes = play(adder, lengths)
    adder.close()
    got = everything(replay)
    expected = []
    for episode in episodes:
        start = 0
        while start < len(episode) - 1:
            expected.append(episode[start : start + length])
            start += length - 1
    rows = [t[m].tolist() for t, m in zip(got.steps.observation["t"], got.mask, strict=True)]
    assert rows == expected
    assert replay.statistics().steps == sum(len(episode) for episode in episodes)


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=30), st.integers(1, 30))
def test_many_environments_are_as_many_single_ones(ends: list[list[bool]], every: int) -> None:
    together = make(Transitions(2))
    alone = make(Transitions(2))
    adder = Adder(together, {"t": CutTransitions(2)}, num_envs=3, steps_per_insert=every)
    singles = [Adder(alone, {"t": CutTransitions(2)}, steps_per_insert=every) for _ in range(3)]

    def observations(time: int) -> dict[str, Any]:
        rows = [observe(100 * env + time) for env in range(3)]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    adder.first(observations(0))
    for env, single in enumerate(singles):
        single.first(observe(100 * env))
    for time, last in enumerate(ends, 1):
        rewards = np.arange(3, dtype=np.float32) + time
        adder.add(np.arange(3), rewards, np.ones(3), observations(time), last=np.array(last))
        if any(last):
            adder.first(observations(time), envs=np.array(last))
        for env, single in enumerate(singles):
            now = observe(100 * env + time)
            single.add(env, float(rewards[env]), 1.0, now, last=last[env])
            if last[env]:
                single.first(now)
    for one in (adder, *singles):
        one.close()

    def rows(replay: Replay) -> list[Any]:
        got = everything(replay)
        columns = (got.observation["t"], got.action, got.reward, got.discount)
        return sorted(zip(*(column.tolist() for column in columns), strict=True))

    assert rows(together) == rows(alone)
    assert together.statistics().steps == alone.statistics().steps


ROW = Step(np.int32(0), np.int32(0), np.float32(0), np.float32(0), {"valid": np.bool_(False)})


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.booleans()] * 4), max_size=40),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_sequences_across_episodes_run_over_the_rows_of_one_environment(
    moves: list[tuple[bool, ...]], length: int, period: int, every: int
) -> None:
    """Two environments that step and end when `moves` says so; rows are told by observation."""
    replay = Replay(
        [
            TableConfig("across", ROW, 1000, Sequences(length)),
            TableConfig("within", ROW, 1000, Sequences(length)),
        ]
    )
    cuts = {
        "across": CutSequences(length, period, across_episodes=True),
        "within": CutSequences(length, period),
    }
    adder = Adder(replay, cuts, num_envs=2, steps_per_insert=every)
    now = np.array([0, 1000])
    adder.first(now)
    streams: list[list[tuple[int, int, bool]]] = [[], []]  # of each: observation, action, valid
    episodes = [[[0]], [[1000]]]
    for moving in moves:
        stepped, ended = np.array(moving[:2]), np.array(moving[2:])
        before = now
        now = now + stepped
        valid = {"valid": np.ones(2, np.bool_)}
        adder.add(now, np.ones(2), np.ones(2), now, valid, last=ended, envs=stepped)
        for env in np.flatnonzero(stepped).tolist():
            streams[env].append((int(before[env]), int(now[env]), True))
            episodes[env][-1].append(int(now[env]))
            if ended[env]:
                streams[env].append((int(now[env]), 0, False))
        begins = stepped & ended
        now = now + begins
        if begins.any():
            adder.first(now, envs=begins)
            for env in np.flatnonzero(begins).tolist():
                episodes[env].append([int(now[env])])
    adder.close()

    got, mask = everything(replay, "across")
    assert mask.all()  # of full length
    columns = (got.observation, got.action, got.extras["valid"])
    rows = sorted(
        list(zip(*(column[i].tolist() for column in columns), strict=True))
        for i in range(len(mask))
    )
    assert rows == sorted(
        stream[start : start + length]
        for stream in streams
        for start in range(0, len(stream) - length + 1, period)
    )
    alone = Replay([TableConfig("within", ROW, 1000, Sequences(length))])
    single = Adder(alone, {"within": cuts["within"]})
    for env in range(2):
        for episode in episodes[env]:
            single.first(episode[0])
            for t in episode[1:]:
                ends = t == episode[-1] and episode is not episodes[env][-1]
                single.add(t, 1.0, 1.0, t, {"valid": True}, last=ends)
        single.close()
        single = Adder(alone, {"within": cuts["within"]})

    def within(replay: Replay) -> list[Any]:
        got, mask = everything(replay, "within")
        return sorted(t[m].tolist() for t, m in zip(got.observation, mask, strict=True))

    assert within(replay) == within(alone)


def test_one_adder_feeds_several_tables_with_one_copy() -> None:
    replay = Replay(
        [
            TableConfig("n", STEP, 100, Transitions(3)),
            TableConfig("s", STEP, 100, Sequences(4), sampler=Prioritised()),
        ]
    )
    adder = Adder(
        replay, {"n": CutTransitions(3), "s": CutSequences(4, period=2)}, steps_per_insert=5
    )
    play(adder, [11, 3])
    adder.close()
    statistics = replay.statistics()
    assert statistics.steps == 16
    assert (statistics.tables["n"].size, statistics.tables["s"].size) == (14, 6)


def test_new_items_have_the_highest_priority_unless_told() -> None:
    replay = make(Transitions(1), sampler=Prioritised())
    adder = Adder(replay, {"t": CutTransitions()}, priority=0.25)
    play(adder, [3])
    adder.flush()
    replay.update_priorities("t", replay.sample("t", 9).info.keys, np.full(9, 7.0))
    other = Adder(replay, {"t": CutTransitions()})
    play(other, [3])
    other.close()
    priorities = set(replay.sample("t", 200).info.priorities.tolist())
    assert priorities in ({7.0}, {0.25, 7.0})


@settings(deadline=None)
@given(st.lists(st.floats(0, 9), min_size=1, max_size=30), st.integers(1, 12), st.booleans())
def test_priorities_of_items_are_made_of_those_of_their_steps(
    values: list[float], every: int, cut_off: bool
) -> None:
    replay = make(Sequences(4), sampler=Prioritised(exponent=1.0))
    adder = Adder(
        replay, {"t": CutSequences(4, period=2)}, num_envs=2, steps_per_insert=every, mix=0.25
    )
    both = {name: np.stack([value, value]) for name, value in observe(0).items()}
    adder.first(both)
    for time, value in enumerate(values, 1):
        zeros = np.zeros(2, np.float32)
        last = time == len(values) and not cut_off
        numbers = np.array([value, 2 * value])
        adder.add(zeros.astype(np.int32), zeros, zeros, both, last=last, priority=numbers)
    adder.close()
    table = replay._tables["t"].table
    expected = []
    length = len(values) + (not cut_off)
    for start in range(0, length, 2):
        steps = values[start : start + 3]
        whole = start + 4 <= length
        shorter = not cut_off and start < length - 1 and (start == 0 or start + 2 < length)
        if whole or shorter:
            item = 0.25 * max(steps) + 0.75 * sum(steps) / len(steps)
            expected += [item, 2 * item]
    slots = table._order.all()
    assert sorted(table.slots.priorities[slots]) == pytest.approx(sorted(expected))


def test_priorities_are_given_with_every_step_or_with_none() -> None:
    adder = Adder(make(Transitions(1)), {"t": CutTransitions()})
    adder.first(observe(0))
    adder.add(0, 1.0, 1.0, observe(1), priority=0.5)
    with pytest.raises(lpml.UsageError, match="every step or with none"):
        adder.add(0, 1.0, 1.0, observe(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: a.first(np.zeros(2)), "observation"),
        (lambda a: a.first({"pixels": np.zeros(3, np.float32), "t": 0}), r"observation/pixels'"),
        (lambda a: a.add(0, 1.0, 1.0, observe(1)), "call first"),
        (lambda a: (a.first(observe(0)), a.first(observe(0))), "has not ended"),
        (lambda a: (a.first(observe(0)), a.add(0.5, 1.0, 1.0, observe(1))), "'action' is float64"),
        (lambda a: a.first(observe(0), envs=np.array([0])), r"envs is int64\[1\]"),
        (lambda a: (a.first(observe(0)), a.add(0, 1.0, 1.0, observe(1), last=[True])), "last has"),
        (lambda a: (a.first(observe(0)), a.add(0, [1.0], 1.0, observe(1))), r"'reward' .*\[1\]"),
    ],
)
def test_what_does_not_fit_names_the_field(call: Any, message: str) -> None:
    adder = Adder(make(Transitions(1)), {"t": CutTransitions()})
    with pytest.raises(lpml.UsageError, match=message):
        call(adder)
