"""Stopper: ends the program at steps, seconds or a return."""

from __future__ import annotations

import pytest

import lpml
from lpml.nodes.counter import Counter
from lpml.nodes.stopper import Stopper
from lpml.testing import VirtualClock, node


def test_a_return_that_reaches_the_target_stops_the_program() -> None:
    reasons: list[str] = []
    with node("stopper/0", on_stop=reasons.append):
        stopper = Stopper(target_return=475.0, min_episodes=20)
        assert stopper.report(474.9, 20) == ""
        assert stopper.report(500.0, 19) == "", "too few episodes"
        assert stopper.report(481.2, 20) != ""
        stopper.report(500.0, 20)
    assert reasons == ["mean return 481.2 over 20 episodes reached 475"]


def test_steps_stop_the_program() -> None:
    reasons: list[str] = []
    counter = Counter()
    with node("stopper/0", on_stop=reasons.append) as context:
        stopper = Stopper(counter, max_steps=1000)
        counter.increment("actor", steps=999)
        assert stopper.check() == ""
        assert context.latest_progress == (999, 1000)
        counter.increment("actor", steps=65)
        stopper.check()
    assert reasons == ["1064 actor_steps reached 1000"]


def test_seconds_stop_the_program() -> None:
    clock = VirtualClock(jump_when_waiting=1)
    reasons: list[str] = []

    def stop(reason: str) -> None:
        reasons.append(reason)
        clock.stop()

    with node("stopper/0", clock=clock, on_stop=stop):
        Stopper(max_seconds=10.0, period=0.5).run()
    assert reasons == ["10.0 s passed, 10 s were allowed"]


def test_without_limits_it_waits_until_the_program_stops() -> None:
    clock = VirtualClock()
    with node("stopper/0", clock=clock):
        stopper = Stopper()
        assert stopper.check() == ""
        clock.stop()
        stopper.run()


def test_steps_need_a_counter() -> None:
    with pytest.raises(lpml.UsageError, match="give a counter"):
        Stopper(max_steps=10)
