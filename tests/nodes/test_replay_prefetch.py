"""Batches that are ready before the learner asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lpml
from lpml.context import entered
from lpml.nodes.replay import (
    Fifo,
    MinSize,
    Prefetcher,
    Queue,
    Replay,
    ReplayShards,
    ReplayTimeout,
    TableConfig,
)


def queue(size: int) -> Replay:
    config = TableConfig(
        "t", np.int64(0), size, sampler=Fifo(), limiter=Queue(size), max_times_sampled=1
    )
    return Replay([config])


def test_batches_come_in_the_order_in_which_they_were_drawn() -> None:
    replay = queue(100)
    replay.add("t", np.arange(100))
    with Prefetcher(replay, "t", 10, depth=1) as batches:
        got = [next(batches).data for _ in range(9)]
    np.testing.assert_array_equal(np.concatenate(got), np.arange(90))


def test_several_batches_of_one_call_are_handed_out_one_by_one() -> None:
    replay = queue(100)
    replay.add("t", np.arange(100))
    with Prefetcher(replay, "t", 5, depth=1, batches_per_call=4) as batches:
        got = [next(batches) for _ in range(15)]
        assert len({batch.info.keys.tobytes() for batch in got}) == 15
    np.testing.assert_array_equal(np.concatenate([batch.data for batch in got]), np.arange(75))
    assert all(batch.data.flags.c_contiguous for batch in got)
    assert got[3].info.size == 100


def test_the_next_batches_are_drawn_ahead() -> None:
    clock = lpml.context().clock
    replay = queue(100)
    replay.add("t", np.arange(60))
    with Prefetcher(replay, "t", 10, depth=3) as batches:
        next(batches)
        changed = clock.condition()
        with changed:  # three more are drawn without being asked for
            while replay.statistics().tables["t"].samples < 40:
                changed.wait_for(lambda: False, 0.01)


def test_a_wait_for_a_batch_ends_in_time() -> None:
    replay = Replay([TableConfig("t", np.int64(0), 10, limiter=MinSize(5))])
    with Prefetcher(replay, "t", 2, timeout=0.01) as batches:
        with pytest.raises(ReplayTimeout):
            next(batches)
        replay.add("t", np.arange(5))
        assert next(batches).info.size == 5


def test_a_closed_prefetcher_ends() -> None:
    replay = Replay([TableConfig("t", np.int64(0), 10)])
    replay.add("t", np.arange(5))
    batches = Prefetcher(replay, "t", 2)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_the_end_of_the_program_ends_the_iteration() -> None:
    with entered(lpml.Context()) as context:
        replay = Replay([TableConfig("t", np.int64(0), 10)])
        batches = Prefetcher(replay, "t", 2)
        context.clock.stop()
        with pytest.raises(lpml.ProgramStopped):
            next(batches)
        batches.close()


class Learner:
    """Takes batches from a replay in another node and stops the program."""

    def __init__(self, replay: Any) -> None:
        self._replay = replay

    def run(self) -> None:
        self._replay.add("t", np.arange(500))
        shards = ReplayShards([self._replay])
        with Prefetcher(shards, "t", 50, depth=1) as batches:
            total = sum(int(next(batches).data.sum()) for _ in range(8))
        lpml.context().log({"total": total})


def test_a_learner_prefetches_from_another_node() -> None:
    program = lpml.Program("prefetch")
    config = TableConfig("t", np.int64(0), 500, sampler=Fifo(), max_times_sampled=1)
    replay = program.add_node(lpml.Node(Replay, [config]))
    program.add_node(lpml.Node(Learner, replay))
    run = lpml.launch(program, "test")
    run.wait(60)
    status = {node.name: node for node in run.status().nodes}
    assert status["learner/0"].metrics["total"] == sum(range(400))


@pytest.mark.parametrize("pixels", [4, 4000])
def test_batches_of_another_process_stay_as_they_are(pixels: int) -> None:
    """Small ones and large ones; the memory of large ones is used again, when they are gone."""
    step = {"n": np.int64(0), "pixels": np.zeros(pixels, np.int32)}
    program = lpml.Program("replay")
    program.add_node(lpml.Node(Replay, [TableConfig("t", step, 400)]))
    numbers = np.arange(400)
    rows = np.broadcast_to(numbers[:, None].astype(np.int32), (400, pixels))
    with lpml.launch(program, "local_mp", terminal=False) as run:
        client = run.client("replay/0")
        client.add("t", {"n": numbers, "pixels": np.ascontiguousarray(rows)})
        with Prefetcher(client, "t", 100) as batches:
            for turn in range(8):
                kept = [next(batches).data for _ in range(1 + turn % 4)]
                for data in kept:
                    assert (data["pixels"] == data["n"][:, None]).all()
                    assert data["n"].flags.writeable
