"""Workers that wait for each other at a parameter server, in virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

import lpml
from lpml.nodes import (
    Asynchronous,
    BoundedStaleness,
    Consistency,
    Synchronous,
)
from lpml.testing import VirtualClock, node
from tests.nodes.small_server import grads, server, value


class Background:
    """A call that is expected to wait, on a thread of its own."""

    def __init__(self, clock: VirtualClock, call: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(clock, call), daemon=True)
        self._thread.start()

    def _run(self, clock: VirtualClock, call: Callable[[], Any]) -> None:
        with node("worker/0", clock=clock):
            try:
                self._outcome.append(call())
            except lpml.Error as error:
                self._outcome.append(error)

    @property
    def waits(self) -> bool:
        return not self._outcome

    def result(self) -> Any:
        self._thread.join(10)
        return self._outcome[0]


def would_wait(call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    try:
        call(*args, **kwargs, timeout=0)
    except lpml.CallTimeout:
        return True
    return False


def test_a_synchronous_update_is_the_weighted_mean_at_one_version(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    first = Background(clock, lambda: ps.exchange("a", grads(1), version=0, weight=30))
    clock.until_waiting()
    assert first.waits
    assert ps.exchange("b", grads(5), version=0, weight=10).version == 1
    assert first.result().version == 1
    assert value(ps) == -2


def test_a_slow_worker_holds_up_a_synchronous_update_and_is_named(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    ps.pull("slow")
    ps.push("a", grads(1), version=0)
    with pytest.raises(lpml.CallTimeout, match="it waits for slow"):
        ps.pull("a", timeout=0)
    assert would_wait(ps.pull, "a")
    assert not would_wait(ps.pull, "slow")


def test_a_backup_worker_that_comes_too_late_starts_from_the_new_version(
    clock: VirtualClock,
) -> None:
    ps = server(Synchronous(3, backup_workers=1))
    ps.pull("slow")
    ps.push("a", grads(1), version=0)
    ps.push("b", grads(3), version=0)
    assert not ps.push("slow", grads(99), version=0).accepted
    assert ps.pull("slow", timeout=0).version == 1
    assert value(ps) == -2


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0)])
def test_a_worker_that_leaves_frees_those_who_wait(clock: VirtualClock, mode: Consistency) -> None:
    ps = server(mode)
    ps.pull("gone")
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    ps.leave("gone")
    assert waiting.result().version == 1
    assert ps.statistics().departed == ("gone",)


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0)])
def test_a_worker_that_falls_silent_is_given_up_after_its_lease(
    clock: VirtualClock, mode: Consistency
) -> None:
    ps = server(mode, lease=30.0)
    ps.pull("dead")
    clock.advance(10.0)
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    clock.advance(19.0)
    clock.until_waiting()
    assert waiting.waits
    clock.advance(1.0)
    assert waiting.result().version == 1
    statistics = ps.statistics()
    assert (statistics.members, statistics.departed) == (("a",), ("dead",))
    assert statistics.waited["a"] == 20.0


def test_a_worker_that_waits_longer_than_the_lease_stays_a_member(clock: VirtualClock) -> None:
    ps = server(Synchronous(2), lease=30.0)
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    for _ in range(4):
        clock.until_waiting()
        clock.advance(20.0)
    ps.push("b", grads(1), version=0)
    assert waiting.result().version == 1
    assert ps.statistics().members == ("a", "b")


@pytest.mark.parametrize("mode", [Synchronous(2), BoundedStaleness(0), Asynchronous()])
def test_a_worker_given_up_by_mistake_comes_back_by_its_next_call(
    clock: VirtualClock, mode: Consistency
) -> None:
    ps = server(mode, lease=30.0)
    for worker in ("a", "slow"):
        ps.push(worker, grads(1), version=0)
    version = ps.pull().version
    clock.advance(31.0)
    assert ps.exchange("a", grads(1), version=version).version == version + 1
    assert ps.statistics().departed == ("slow",)
    assert ps.push("slow", grads(1), version=version + 1).accepted
    assert ps.statistics().departed == ()


def test_a_late_joiner_gets_the_newest_version_and_takes_part(clock: VirtualClock) -> None:
    ps = server(Synchronous(1))
    for version in range(3):
        ps.exchange("a", grads(1), version=version)
    assert ps.pull("late").version == 3
    ps.push("late", grads(3), version=3)
    assert ps.exchange("a", grads(1), version=3).version == 4
    assert value(ps) == -5
    ps.push("a", grads(1), version=4)
    assert would_wait(ps.pull, "a")


def test_bounded_staleness_stops_the_fast_and_lets_the_slow_catch_up(clock: VirtualClock) -> None:
    ps = server(BoundedStaleness(1))
    ps.pull("slow")
    assert ps.exchange("fast", grads(1), version=0).version == 1
    waiting = Background(clock, lambda: ps.exchange("fast", grads(1), version=1))
    clock.until_waiting()
    clock.advance(2.5)
    clock.until_waiting()
    assert ps.exchange("slow", grads(1), version=0).version == 3
    assert waiting.result().version == 3
    assert ps.statistics().waited["fast"] == 2.5


def test_a_reader_waits_for_a_version_and_for_no_worker(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    reader = Background(clock, lambda: ps.pull(at_least=1))
    ps.push("a", grads(1), version=0)
    clock.until_waiting()
    assert reader.waits
    ps.push("b", grads(1), version=0)
    assert reader.result().version == 1
    assert ps.statistics().members == ("a", "b")


def test_a_stop_ends_every_wait(clock: VirtualClock) -> None:
    ps = server(Synchronous(2))
    waiting = Background(clock, lambda: ps.exchange("a", grads(1), version=0))
    clock.until_waiting()
    clock.stop()
    assert isinstance(waiting.result(), lpml.ProgramStopped)


def test_the_deadline_of_the_caller_ends_its_wait(clock: VirtualClock) -> None:
    def pull() -> Any:
        with lpml.deadline(5.0):
            return ps.pull(at_least=1)

    ps = server(Asynchronous())
    waiting = Background(clock, pull)
    clock.until_waiting()
    clock.advance(5.0)
    assert isinstance(waiting.result(), lpml.CallTimeout)
