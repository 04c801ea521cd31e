"""Adders while the replay is full, restarted, or in another process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lpml
from lpml import wire
from lpml.nodes.replay import (
    Adder,
    CutSequences,
    CutTransitions,
    Fifo,
    Queue,
    Replay,
    ReplayTimeout,
    Sequences,
    Transitions,
)
from lpml.service import interface_of
from tests.nodes.counted_episodes import everything, make, observe


@pytest.mark.parametrize("cut", [CutTransitions(3), CutSequences(4, period=2)])
def test_an_adder_goes_on_when_the_replay_was_restarted(cut: Any) -> None:
    view = Transitions(3) if isinstance(cut, CutTransitions) else Sequences(4)
    replay = make(view)
    adder = Adder(replay, {"t": cut}, steps_per_insert=5)
    adder.first(observe(0))
    for time in range(1, 24):
        if time == 12:
            replay.restore(make(view).save())  # all is forgotten
        adder.add(0, 1.0, 1.0, observe(time), last=time == 23)
    adder.close()
    got = everything(replay)
    if isinstance(cut, CutTransitions):
        assert (got.next_observation["t"][:-3] - got.observation["t"][:-3] == 3).all()
        assert got.observation["t"].tolist() == list(range(10, 23))
    else:
        firsts = got.steps.observation["t"][:, 0]
        assert firsts[0] >= 10
        assert (np.diff(firsts) == 2).all()


def test_a_full_queue_holds_an_adder_back_and_loses_nothing() -> None:
    replay = make(Transitions(1), 4, limiter=Queue(4), sampler=Fifo(), max_times_sampled=1)
    adder = Adder(replay, {"t": CutTransitions()}, steps_per_insert=6, timeout=0.0)
    adder.first(observe(0))
    for time in range(1, 6):
        adder.add(0, 1.0, 1.0, observe(time))
    with pytest.raises(ReplayTimeout, match="inserts are 4 samples ahead, 4 allowed"):
        adder.add(0, 1.0, 1.0, observe(6))
    got = replay.sample("t", 4).data.observation["t"].tolist()
    for time in range(7, 10):
        adder.add(0, 1.0, 1.0, observe(time), last=time == 9)
    with pytest.raises(ReplayTimeout):
        adder.flush()
    got += replay.sample("t", 4).data.observation["t"].tolist()
    adder.close()
    got += replay.sample("t", 1).data.observation["t"].tolist()
    assert got == list(range(9))


@contextmanager
def served(replay: Replay) -> Iterator[Any]:
    """A client of a replay that is served over a socket, as to another process."""
    interface = interface_of(Replay)
    with tempfile.TemporaryDirectory(prefix="lr") as folder:
        dispatcher = wire.Dispatcher(replay, interface, lpml.Context("replay/0"), "replay/0")
        server = wire.Server(dispatcher, wire.listen(Path(folder) / "s"))
        server.start()
        client = wire.connect(f"unix:{folder}/s", interface, node="replay/0", caller="actor/0")
        try:
            yield client
        finally:
            wire.close(client)
            server.close()


def test_an_insert_travels_while_the_actor_goes_on() -> None:
    """The limiter lets four items in, and the next insert has six: only the third one waits."""
    replay = make(Transitions(1), 100, limiter=Queue(4), sampler=Fifo(), max_times_sampled=1)
    with served(replay) as client:
        adder = Adder(client, {"t": CutTransitions()}, steps_per_insert=6, timeout=0.01)
        adder.first(observe(0))
        for time in range(1, 12):
            adder.add(0, 1.0, 1.0, observe(time))
        with pytest.raises(ReplayTimeout, match="not let in"):
            adder.add(0, 1.0, 1.0, observe(12))
        with pytest.raises(ReplayTimeout, match="not let in"):
            adder.add(0, 1.0, 1.0, observe(13))  # taken, too: the log grows
        got = []
        for time in range(14, 100):
            got += replay.sample("t", 1, timeout=10).data.observation["t"].tolist()
            try:
                adder.add(0, 1.0, 1.0, observe(time), last=time == 99)
            except ReplayTimeout:
                continue
        while len(got) < 99:
            got += replay.sample("t", 1, timeout=10).data.observation["t"].tolist()
            if len(got) < 99:
                with contextlib.suppress(ReplayTimeout):
                    adder.flush(0.0)
        adder.close()
    assert got == list(range(99))


def test_what_went_wrong_on_the_way_is_raised_by_the_next_insert() -> None:
    replay = make(Transitions(1))
    with served(replay) as client:
        adder = Adder(client, {"t": CutTransitions()}, steps_per_insert=2, priority=-1.0)
        adder.first(observe(0))
        adder.add(0, 1.0, 1.0, observe(1))
        adder.add(0, 1.0, 1.0, observe(2))
        adder.add(0, 1.0, 1.0, observe(3))
        with pytest.raises(lpml.RemoteError, match=r"priorities of 1 items have -1\.0"):
            adder.add(0, 1.0, 1.0, observe(4))


def test_an_adder_of_a_remote_replay_goes_on_when_that_was_restarted() -> None:
    replay = make(Transitions(3))
    with served(replay) as client:
        adder = Adder(client, {"t": CutTransitions(3)}, steps_per_insert=5)
        adder.first(observe(0))
        for time in range(1, 24):
            if time == 12:
                adder.flush()
                replay.restore(make(Transitions(3)).save())  # all is forgotten
            adder.add(0, 1.0, 1.0, observe(time), last=time == 23)
        adder.close()
    got = everything(replay)
    assert got.observation["t"].tolist() == list(range(11, 23))
    assert (got.next_observation["t"][:-3] - got.observation["t"][:-3] == 3).all()
