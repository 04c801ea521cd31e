"""Inserts into a replay: done once, whole or not at all, and who makes room for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lpml
from lpml.nodes.replay import (
    Fifo,
    Items,
    Queue,
    Replay,
    ReplayTimeout,
    Sequences,
    Steps,
    TableConfig,
    UnknownWriter,
)
from lpml.testing import VirtualClock
from tests.nodes.small_replay import SIGNATURE, Background, insert, table


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
