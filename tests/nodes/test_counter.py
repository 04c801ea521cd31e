"""Counter: what nodes count, together and each for itself."""

from __future__ import annotations

import pytest

import lpml
from lpml.nodes.counter import Counter, CountOf
from lpml.testing import VirtualClock, calls, fake, node


def test_counts_of_several_nodes_are_summed_by_role() -> None:
    counter = Counter()
    counter.increment("actor", steps=64, episodes=2)
    counter.increment("actor", steps=32)
    counts = counter.increment("learner", steps=4)
    assert counts["actor_steps"] == 96
    assert counts["actor_episodes"] == 2
    assert counts["learner_steps"] == 4


def test_a_report_that_is_made_twice_counts_once() -> None:
    counter = Counter()
    for _ in range(2):
        counter.report("actor/0:1", "actor", {"steps": 64})
    counter.report("actor/1:1", "actor", {"steps": 10})
    assert counter.get()["actor_steps"] == 74


def test_a_report_that_comes_late_takes_nothing_back() -> None:
    counter = Counter()
    counter.report("actor/0:1", "actor", {"steps": 64})
    counter.report("actor/0:1", "actor", {"steps": 32})
    assert counter.get()["actor_steps"] == 64


def test_a_node_that_was_restarted_counts_on() -> None:
    counter = Counter()
    for _ in range(2):  # two lives of the same node
        mine = CountOf(counter, "actor")
        mine.increment(steps=5)
        mine.flush()
    assert counter.get()["actor_steps"] == 10


def test_a_node_hands_in_at_most_once_in_a_period() -> None:
    clock = VirtualClock()
    counter = fake(Counter, report=lambda source, prefix, totals: {"actor_steps": totals["steps"]})
    with node("actor/0", clock=clock):
        mine = CountOf(counter, "actor", period=1.0)
        for _ in range(5):
            mine.increment(steps=1)
        assert mine.flush() == {"actor_steps": 5}
    assert [call.args[2]["steps"] for call in calls(counter)] == [1, 5]
    assert mine.own == {"steps": 5}


def test_without_a_counter_a_node_counts_for_itself() -> None:
    mine = CountOf(None, "actor")
    mine.increment(steps=2, episodes=1)
    assert mine.flush() == {"actor_steps": 2, "actor_episodes": 1}


def test_a_restored_counter_counts_on_and_so_does_its_time() -> None:
    clock = VirtualClock()
    with node(clock=clock):
        first = Counter()
        first.report("actor/0:1", "actor", {"steps": 64})
        first.increment("evaluator", episodes=20)
        clock.advance(3.0)
        saved = first.save()
        second = Counter()
        assert isinstance(second, lpml.Checkpointable)
        second.restore(saved)
        clock.advance(1.0)
        second.report("actor/0:1", "actor", {"steps": 70})
        counts = second.report("actor/0:2", "actor", {"steps": 1})
    assert counts["actor_steps"] == 71
    assert counts["evaluator_episodes"] == 20
    assert counts["walltime"] == pytest.approx(4.0)
