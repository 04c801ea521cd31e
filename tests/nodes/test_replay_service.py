"""Replay as a service: who waits for what, timeouts, shards."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import lpml
from lpml.nodes.replay import (
    Fifo,
    MinSize,
    Prioritised,
    Queue,
    Replay,
    ReplayShards,
    ReplayTimeout,
    SamplesPerInsert,
    Sequences,
    TableConfig,
)
from lpml.testing import VirtualClock
from tests.nodes.small_replay import Background, insert, steps, table


def test_a_batch_is_columns_of_contiguous_arrays(clock: VirtualClock) -> None:
    replay = Replay([table()])
    replay.add("t", steps(0, 50))
    sample = replay.sample("t", 8)
    assert sample.data["x"].shape == (8, 2)
    assert sample.data["x"].flags.c_contiguous
    np.testing.assert_array_equal(sample.data["x"][:, 0], sample.data["n"])
    assert (sample.info.keys.shape, sample.info.size) == ((8,), 50)


def test_a_sample_waits_for_the_minimum_size(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=MinSize(10))])
    replay.add("t", steps(0, 9))
    waiting = Background(lambda: replay.sample("t", 4, caller="learner/0"))
    clock.until_waiting()
    clock.advance(3)
    (blocked,) = replay.statistics().tables["t"].blocked
    assert (blocked.caller, blocked.what, blocked.seconds) == ("learner/0", "sample", 3)
    assert blocked.why.startswith("9 of the 10 items")
    replay.add("t", steps(9, 1))
    assert waiting.result().info.size == 10
    statistics = replay.statistics().tables["t"]
    assert statistics.blocked == ()
    assert statistics.sample_seconds_blocked == 3


def test_a_timeout_says_why(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=MinSize(10))])
    waiting = Background(lambda: replay.sample("t", 4, timeout=5.0))
    clock.until_waiting()
    clock.advance(5)
    with pytest.raises(ReplayTimeout, match=r"sample on table 't' waited 5 s: 0 of the 10 items"):
        waiting.result()
    with pytest.raises(TimeoutError):
        replay.sample("t", 4, timeout=0)


def test_the_deadline_of_a_call_ends_a_wait(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=MinSize(10))])

    def sample() -> None:
        with lpml.deadline(2.0):
            replay.sample("t", 4)

    waiting = Background(sample)
    clock.until_waiting()
    clock.advance(2)
    with pytest.raises(lpml.CallTimeout):
        waiting.result()
    assert replay.statistics().tables["t"].blocked == ()


def test_the_end_of_the_program_ends_a_wait(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=Queue(2), sampler=Fifo(), max_times_sampled=1)])
    waiting = Background(lambda: replay.add("t", steps(0, 5)))
    clock.until_waiting()
    clock.stop()
    with pytest.raises(lpml.ProgramStopped):
        waiting.result()


def test_a_queue_hands_on_every_item_once_and_in_order(clock: VirtualClock) -> None:
    replay = Replay([table(3, limiter=Queue(3), sampler=Fifo(), max_times_sampled=1)])
    writing = Background(lambda: replay.add("t", steps(0, 20)))
    got = [replay.sample("t", 2).data["n"].tolist() for _ in range(10)]
    writing.result()
    assert [number for batch in got for number in batch] == list(range(20))
    assert replay.statistics().tables["t"].size == 0
    assert replay.statistics().steps == 0


def test_those_who_wait_are_served_in_order(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=Queue(8), sampler=Fifo(), max_times_sampled=1)])
    large = Background(lambda: replay.sample("t", 4))
    clock.until_waiting(1)
    small = Background(lambda: replay.sample("t", 1))
    clock.until_waiting(2)
    replay.add("t", steps(0, 3))  # enough for the small one only, which came later
    clock.until_waiting(2)
    replay.add("t", steps(3, 2))
    assert large.result().data["n"].tolist() == [0, 1, 2, 3]
    assert small.result().data["n"].tolist() == [4]


def test_samples_and_inserts_keep_in_proportion(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=SamplesPerInsert(4, 10, tolerance=8))])
    replay.add("t", steps(0, 10))
    with pytest.raises(ReplayTimeout, match="inserts are 48 samples ahead, 48 allowed"):
        replay.add("t", steps(10, 3), timeout=0)
    assert replay.statistics().tables["t"].inserts == 12
    for _ in range(4):
        replay.sample("t", 4, timeout=0)
    with pytest.raises(ReplayTimeout, match="it waits for inserts"):
        replay.sample("t", 1, timeout=0)


def test_a_batch_that_can_never_be_drawn_is_refused(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=SamplesPerInsert(4, 10, tolerance=8))])
    with pytest.raises(lpml.UsageError, match="a batch of 14 can never be sampled, at most 13"):
        replay.sample("t", 14)


def test_a_limiter_changes_for_those_who_wait(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=MinSize(50))])
    replay.add("t", steps(0, 20))
    waiting = Background(lambda: replay.sample("t", 4))
    clock.until_waiting()
    replay.set_limiter("t", SamplesPerInsert(1, 10, tolerance=4))
    assert waiting.result().info.size == 20
    with pytest.raises(ReplayTimeout):
        replay.sample("t", 1, timeout=0)  # the proportion counts from the change
    with pytest.raises(lpml.UsageError, match="could never be sampled"):
        replay.set_limiter("t", MinSize(101))


def test_a_table_of_zero_priorities_waits(clock: VirtualClock) -> None:
    replay = Replay([table(sampler=Prioritised())])
    replay.add("t", steps(0, 3), priorities=np.zeros(3))
    with pytest.raises(ReplayTimeout, match="each has priority 0"):
        replay.sample("t", 1, timeout=0)
    replay.add("t", steps(3, 1))  # no priority: the highest seen, 1 at first
    assert replay.sample("t", 5).data["n"].tolist() == [3] * 5


def test_windows_reach_over_inserts_and_steps_are_stored_once(clock: VirtualClock) -> None:
    replay = Replay([table(view=Sequences(4))])
    replay.insert(insert(0, 0, 6, keep=3, size=4))
    replay.insert(insert(1, 6, 2, held=3, keep=3, size=4))
    replay.insert(insert(2, 8, 5, held=3, size=4))
    statistics = replay.statistics()
    assert (statistics.tables["t"].size, statistics.steps) == (10, 13)
    data = replay.sample("t", 200).data
    assert (np.diff(data.steps["n"], axis=1) == 1).all()
    assert set(data.steps["n"][:, 0].tolist()) == set(range(10))


def test_large_batches_are_read_while_others_insert(clock: VirtualClock) -> None:
    signature = np.zeros(4096, np.float32)
    replay = Replay([TableConfig("t", signature, 64, max_steps=80)])
    full = np.arange(64, dtype=np.float32)[:, None] * np.ones((1, 4096), np.float32)
    replay.add("t", full)
    stop = threading.Event()

    def overwrite() -> None:
        while not stop.is_set():
            replay.add("t", full[:16])

    writing = Background(overwrite)
    for _ in range(20):
        data = replay.sample("t", 64).data
        assert (data == data[:, :1]).all()  # no row is half old, half new
    stop.set()
    writing.result()
    statistics = replay.statistics()
    assert statistics.steps == statistics.tables["t"].size  # nothing is held for ever


def test_memory_that_is_not_there_is_refused(clock: VirtualClock) -> None:
    with pytest.raises(lpml.LaunchError, match="lower max_size or max_steps, or give a folder"):
        Replay([TableConfig("t", np.zeros((1 << 20, 64)), 1 << 24)])


def test_shards_look_like_one(clock: VirtualClock) -> None:
    shards = [Replay([table(limiter=MinSize(3))]) for _ in range(2)]
    replay = ReplayShards(shards)
    replay.insert(insert(0, 0, 5)._replace(writer=0))
    assert {replay.sample("t", 2).info.keys[0] % 2 for _ in range(4)} == {0}  # the other is empty
    replay.insert(insert(0, 100, 5)._replace(writer=1))
    samples = [replay.sample("t", 3) for _ in range(4)]
    assert {int(sample.data["n"][0] >= 100) for sample in samples} == {0, 1}
    keys = np.concatenate([sample.info.keys for sample in samples])
    assert replay.update_priorities("t", keys, np.ones(len(keys))) == len(keys)
    assert replay.remove("t", keys) == len(set(keys.tolist()))


def test_state_is_logged_for_people(clock: VirtualClock) -> None:
    replay = Replay([table()])
    replay.add("t", steps(0, 5))
    clock.advance(5)
    replay.sample("t", 2)
    metrics = lpml.context().latest_metrics
    assert (metrics["t/size"], metrics["t/samples"]) == (5, 2)
