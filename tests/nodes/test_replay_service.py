"""Replay as a service: waiting, timeouts, exactly-once inserts, saving, shards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml.context import entered
from lpml.nodes.replay import (
    Fifo,
    Insert,
    Items,
    LowestPriority,
    MinSize,
    Prioritised,
    Queue,
    Replay,
    ReplayShards,
    ReplayTimeout,
    SamplesPerInsert,
    Sequences,
    Steps,
    TableConfig,
    UnknownWriter,
)
from lpml.testing import VirtualClock

SIGNATURE = {"x": np.zeros(2, np.float32), "n": np.int64(0)}


def steps(first: int, count: int) -> dict[str, Any]:
    numbers = np.arange(first, first + count)
    return {"x": np.stack([numbers, -numbers], 1).astype(np.float32), "n": numbers}


def insert(
    number: int, first: int, count: int, *, held: int = 0, keep: int = 0, size: int = 1
) -> Insert:
    """All windows of `size` steps that end in the new ones."""
    starts = np.arange(held + count - size + 1)
    starts = starts[starts + size > held]
    return Insert(
        writer=7,
        number=number,
        steps=steps(first, count),
        lanes=np.array([0]),
        counts=np.array([count]),
        held=np.array([held]),
        keep=np.array([keep]),
        items={"t": Items(starts, np.full(len(starts), size), None)},
    )


def table(max_size: int = 100, **changes: Any) -> TableConfig:
    return TableConfig("t", SIGNATURE, max_size, **changes)


@pytest.fixture
def clock() -> Iterator[VirtualClock]:
    clock = VirtualClock()
    with entered(lpml.Context(name="replay/0", clock=clock)):
        yield clock


class Background:
    """Runs a function on a thread, in the same context."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        scope = lpml.context()

        def run() -> None:
            with entered(scope):
                try:
                    self.value = function()
                except BaseException as error:
                    self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def result(self) -> Any:
        self._thread.join(10)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


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


def test_an_insert_that_is_sent_twice_is_done_once(clock: VirtualClock) -> None:
    replay = Replay([table()])
    for number in (0, 0, 1, 0, 1):
        replay.insert(insert(number, 10 * number, 5))
    assert replay.statistics().tables["t"].inserts == 10


def test_an_insert_goes_on_where_it_stopped(clock: VirtualClock) -> None:
    replay = Replay([table(limiter=Queue(3), sampler=Fifo(), max_times_sampled=1)])
    with pytest.raises(ReplayTimeout):
        replay.insert(insert(0, 0, 5), timeout=0)
    assert replay.sample("t", 3).data["n"].tolist() == [0, 1, 2]
    replay.insert(insert(0, 0, 5), timeout=0)
    assert replay.sample("t", 2).data["n"].tolist() == [3, 4]
    assert replay.statistics().steps == 0


def test_inserts_of_one_writer_wait_for_their_turn(clock: VirtualClock) -> None:
    replay = Replay([table()])
    replay.insert(insert(0, 0, 5, keep=1))
    second = Background(lambda: replay.insert(insert(2, 10, 5)))
    clock.until_waiting()
    replay.insert(insert(1, 5, 5, held=1))
    second.result()
    assert replay.statistics().tables["t"].inserts == 15


def test_an_unknown_writer_is_told(clock: VirtualClock) -> None:
    replay = Replay([table()])
    with pytest.raises(UnknownWriter):
        replay.insert(insert(3, 0, 5))
    with pytest.raises(UnknownWriter):
        replay.insert(insert(0, 0, 5, held=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": {"x": np.zeros((5, 3), np.float32), "n": np.arange(5)}}, "'x'"),
        ({"counts": np.array([4])}, "give lanes that add up"),
        ({"items": {"t": Items(np.array([5]), np.array([1]), None)}}, "outside of its steps"),
        ({"items": {"t": Items(np.array([0]), np.array([2]), None)}}, "1 to 1"),
        ({"items": {"t": Items(np.array([0]), np.array([1]), np.array([-1.0]))}}, "-1.0"),
        ({"items": {}}, "name at least one"),
        ({"items": {"tt": Items(np.array([0]), np.array([1]), None)}}, "did you mean 't'"),
        (
            {
                "lanes": np.array([0, 1]),
                "counts": np.array([3, 2]),
                "held": np.array([0, 0]),
                "keep": np.array([0, 0]),
                "items": {"s": Items(np.array([2]), np.array([2]), None)},
            },
            "spans two lanes",
        ),
    ],
)
def test_a_wrong_insert_changes_nothing(
    clock: VirtualClock, change: dict[str, Any], message: str
) -> None:
    replay = Replay([table(), TableConfig("s", SIGNATURE, 10, Sequences(2))])
    with pytest.raises(lpml.UsageError, match=message):
        replay.insert(insert(0, 0, 5)._replace(**change))
    assert replay.statistics().steps == 0
    replay.insert(insert(0, 0, 5))


def test_items_make_room_when_steps_run_out(clock: VirtualClock) -> None:
    replay = Replay([table(view=Sequences(4), max_steps=20)])
    for number in range(10):
        replay.insert(insert(number, 10 * number, 10, size=4))
    statistics = replay.statistics()
    assert statistics.steps <= 20
    assert 7 <= statistics.tables["t"].size <= 17
    assert (np.diff(replay.sample("t", 50).data.steps["n"], axis=1) == 1).all()


def test_silent_writers_make_room(clock: VirtualClock) -> None:
    replay = Replay([table(view=Sequences(4), max_steps=8)])
    replay.insert(insert(0, 0, 3, keep=3, size=4))
    replay.insert(insert(0, 0, 6, size=4)._replace(writer=8))
    with pytest.raises(UnknownWriter):
        replay.insert(insert(1, 3, 3, held=3, size=4))
    with pytest.raises(lpml.UsageError, match="9 steps do not fit"):
        replay.insert(insert(0, 0, 9, size=4)._replace(writer=9))


def test_a_closed_writer_leaves_nothing(clock: VirtualClock) -> None:
    replay = Replay([table(view=Sequences(4))])
    replay.insert(insert(0, 0, 3, keep=3, size=4))
    assert replay.statistics().steps == 3
    replay.close_writer(7)
    assert replay.statistics().steps == 0


def test_tables_of_one_signature_share_their_steps(clock: VirtualClock) -> None:
    replay = Replay([table(view=Sequences(4)), TableConfig("s", SIGNATURE, 10, Steps())])
    both = insert(0, 0, 6, size=4)
    both.items["s"] = Items(np.array([1, 5]), np.array([1, 1]), None)
    replay.insert(both)
    assert replay.statistics().steps == 6
    assert set(replay.sample("s", 50).data["n"].tolist()) == {1, 5}


@pytest.mark.parametrize("folder", [False, True])
def test_a_restored_replay_goes_on_the_same(
    clock: VirtualClock, folder: bool, tmp_path: Path
) -> None:
    where = str(tmp_path / "steps") if folder else None
    tables = [
        TableConfig(
            "t", SIGNATURE, 30, Sequences(4), sampler=Prioritised(), remover=LowestPriority(),
            limiter=SamplesPerInsert(2, 5, tolerance=100), folder=where, seed=5,
        )
    ]  # fmt: skip
    one, other = Replay(tables), Replay(tables)
    one.insert(insert(0, 0, 20, keep=3, size=4))
    one.sample("t", 8)
    one.set_limiter("t", SamplesPerInsert(3, 5, tolerance=500))
    other.restore(one.save())
    for number in range(1, 6):
        first, second = one.sample("t", 4), other.sample("t", 4)
        np.testing.assert_array_equal(first.data.steps["x"], second.data.steps["x"])
        np.testing.assert_array_equal(first.info.keys, second.info.keys)
        for replay in (one, other):
            replay.insert(insert(number, 10 * number + 10, 10, held=3, keep=3, size=4))
            replay.update_priorities("t", first.info.keys, np.arange(4.0))
    assert one.statistics() == other.statistics()
    assert list(tmp_path.rglob("*.*")) == []


def test_a_saved_replay_is_arrays_and_scalars(clock: VirtualClock) -> None:
    def leaves(tree: Any) -> list[Any]:
        if isinstance(tree, dict):
            return [leaf for child in tree.values() for leaf in leaves(child)]
        if isinstance(tree, list):
            return [leaf for child in tree for leaf in leaves(child)]
        return [tree]

    replay = Replay([table(limiter=Queue(3), sampler=Fifo(), max_times_sampled=1)])
    with pytest.raises(ReplayTimeout):
        replay.insert(insert(0, 0, 5), timeout=0)
    state = replay.save()
    assert all(isinstance(leaf, (int, float, np.ndarray)) for leaf in leaves(state))
    other = Replay([table(limiter=Queue(3), sampler=Fifo(), max_times_sampled=1)])
    other.restore(state)
    assert other.sample("t", 3).data["n"].tolist() == [0, 1, 2]
    other.insert(insert(0, 0, 5))  # goes on where it stopped before the save
    assert other.sample("t", 2).data["n"].tolist() == [3, 4]


def test_a_state_of_other_tables_is_refused(clock: VirtualClock) -> None:
    state = Replay([table(30)]).save()
    with pytest.raises(lpml.UsageError, match="make it with the same tables"):
        Replay([table(31)]).restore(state)


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
