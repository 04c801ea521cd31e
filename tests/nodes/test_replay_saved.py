"""A replay that is saved and restored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml.nodes.replay import (
    Fifo,
    LowestPriority,
    Prioritised,
    Queue,
    Replay,
    ReplayTimeout,
    SamplesPerInsert,
    Sequences,
    TableConfig,
)
from lpml.testing import VirtualClock
from tests.nodes.small_replay import SIGNATURE, insert, table


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
