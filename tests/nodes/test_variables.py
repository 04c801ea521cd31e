"""The variable client: new parameters without waiting, and waiting where they are too old."""

from __future__ import annotations

import threading

import pytest

import lpml
from lpml.errors import UsageError
from lpml.nodes.roles import Snapshot
from lpml.nodes.variables import VariableClient
from lpml.testing import VirtualClock, failing, node
from tests.waiting import until


class Source:
    """Gives version after version; where `gate` is closed, a pull waits."""

    def __init__(self) -> None:
        self.version = 0
        self.pulls = 0
        self.gate = threading.Event()
        self.gate.set()

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        assert self.gate.wait(10)
        self.pulls += 1
        return Snapshot(self.version, lpml.Shared({"version": self.version}))


def test_polling_never_waits_for_an_answer() -> None:
    source = Source()
    client = VariableClient(source, period=1, interval=0)
    source.gate.clear()
    source.version = 3
    assert [client.poll() for _ in range(10)] == [False] * 10
    assert (client.version, client.params) == (0, {"version": 0})
    source.gate.set()
    assert until(client.poll)
    assert (client.version, client.params) == (3, {"version": 3})


def test_only_one_request_is_under_way_and_answers_come_in_order() -> None:
    source = Source()
    client = VariableClient(source, period=1, interval=0)
    seen = [client.version]
    for _ in range(50):
        source.version += 1
        assert until(client.poll)
        seen.append(client.version)
    assert seen == sorted(seen)
    assert until(lambda: (client.poll(), client.version == source.version)[1])


def test_it_asks_every_so_many_polls_and_not_more_often_than_the_interval() -> None:
    source = Source()
    with node(clock=VirtualClock()) as context:
        client = VariableClient(source, period=5, interval=10.0)
        for _ in range(20):
            client.poll()
        assert source.pulls == 1
        assert isinstance(context.clock, VirtualClock)
        context.clock.advance(10.0)
        client.poll()
        assert until(lambda: source.pulls == 2)
        context.clock.advance(10.0)
        for _ in range(4):
            client.poll()
        assert source.pulls == 2
        assert until(lambda: (client.poll(), source.pulls == 3)[1])


def test_parameters_that_are_too_old_are_waited_for() -> None:
    source = Source()
    with node(clock=VirtualClock()) as context:
        client = VariableClient(source, period=1000, max_age=5.0)
        assert isinstance(context.clock, VirtualClock)
        context.clock.advance(5.0)
        source.version = 1
        assert not client.poll()  # not older than allowed
        context.clock.advance(0.1)
        assert client.poll()
        assert client.version == 1
        context.clock.advance(5.1)
        assert not client.poll()  # it asked, and there is no newer version
        assert source.pulls == 3


def test_parameters_that_were_used_too_often_are_waited_for() -> None:
    source = Source()
    client = VariableClient(source, period=1000, max_uses=2)
    versions = []
    for version in range(1, 8):
        source.version = version
        client.poll()
        versions.append(client.version)
    assert versions == [0, 0, 3, 3, 3, 6, 6]


def test_at_age_zero_every_poll_has_the_newest() -> None:
    source = Source()
    client = VariableClient(source, max_age=0)
    for version, is_new in ((1, True), (1, False), (2, True)):
        source.version = version
        assert client.poll() == is_new
        assert client.version == version
    assert source.pulls == 4


def test_a_source_that_is_gone_is_asked_again_and_meanwhile_the_old_are_used() -> None:
    source = Source()
    gone = failing(source, "pull", lpml.NodeUnavailable("it restarts"), times=2, after=1)
    client = VariableClient(gone, period=1, interval=0)
    source.version = 1
    assert until(client.poll)
    assert client.version == 1


def test_a_source_that_is_gone_is_waited_for_where_the_old_are_too_old() -> None:
    source = Source()
    gone = failing(source, "pull", lpml.NodeUnavailable("it restarts"), times=2, after=1)
    with node(clock=VirtualClock(jump_when_waiting=1)) as context:
        client = VariableClient(gone, max_age=1.0)
        source.version = 1
        assert isinstance(context.clock, VirtualClock)
        context.clock.advance(1.1)
        assert client.poll()


def test_a_stop_ends_the_wait_for_newer_parameters() -> None:
    gone = failing(Source(), "pull", lpml.NodeUnavailable("it restarts"), times=99, after=1)
    with node(clock=VirtualClock()) as context:
        client = VariableClient(gone, max_age=0)
        context.clock.stop()
        with pytest.raises(lpml.ProgramStopped):
            client.poll()


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="period=0"):
        VariableClient(Source(), period=0)
    with pytest.raises(UsageError, match="max_age=-1"):
        VariableClient(Source(), max_age=-1)
