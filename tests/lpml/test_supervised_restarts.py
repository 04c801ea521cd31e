"""What the supervisor decides where nodes may start again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpml.launchers.decisions import GRACE, Decision, Failure
from lpml.launchers.restarts import Budget
from lpml.launchers.supervisor import Supervisor
from lpml.resources import Restart
from tests.lpml.supervised import anything, do


def restarting(
    *nodes: str, policy: Restart, stateful: tuple[str, ...] = (), **units: str
) -> Supervisor:
    """As `running`, with one policy for all."""
    supervisor = Supervisor(
        nodes,
        start_timeout=100.0,
        stop_timeout=10.0,
        policies=dict.fromkeys(nodes, policy),
        stateful=stateful,
        units=units,
    )
    supervisor.start(0.0)
    for node in nodes:
        supervisor.ready(node, 0.0, has_run=True)
    return supervisor


def test_a_node_that_dies_starts_again_after_its_pause() -> None:
    supervisor = restarting("a", "b", policy=Restart.on_failure(3, backoff=1.0))
    assert supervisor.exited("a", 5.0, "killed by SIGKILL", clean=False) == []
    assert supervisor.node_state("a") == "restarting"
    assert supervisor.next_deadline() == pytest.approx(6.0)
    assert supervisor.tick(5.9) == []
    assert supervisor.tick(6.0) == [Decision("start", "a", 1)]
    supervisor.ready("a", 6.5, has_run=True)
    assert (supervisor.node_state("a"), supervisor.restarts("a")) == ("running", 1)
    (accident,) = supervisor.verdict.take_accidents()
    assert accident.failure.reason == "killed by SIGKILL"
    assert accident.what == "restart 1 of 3 in 1 s"
    assert supervisor.phase == "running"


def test_a_node_that_fails_is_waited_for_before_it_starts_again() -> None:
    supervisor = restarting("a", policy=Restart.on_failure(3, backoff=0.0))
    assert supervisor.failed(Failure("a", "boom", at=1.0), 1.0) == []
    assert supervisor.tick(2.0) == []
    supervisor.exited("a", 2.5, "exited with status 1", clean=False)
    assert supervisor.tick(2.5) == [Decision("start", "a", 1)]


def test_a_node_that_fails_and_does_not_end_is_ended_and_then_given_up() -> None:
    supervisor = restarting("a", policy=Restart.on_failure())
    supervisor.failed(Failure("a", "boom", at=1.0), 1.0)
    assert supervisor.tick(1.0 + GRACE) == do("end", "a")
    assert do("ask", "a")[0] in supervisor.tick(1.0 + 2 * GRACE)
    assert supervisor.verdict.failure is not None
    assert "could not be ended" in supervisor.verdict.failure.reason


def test_pauses_double_and_begin_anew_after_a_calm_while() -> None:
    budget = Budget(Restart.on_failure(None, backoff=1.0, max_backoff=5.0))
    assert [budget.spend(0.0) for _ in range(4)] == [1.0, 2.0, 4.0, 5.0]
    assert budget.spend(50.0) == 5.0
    assert budget.spend(50.1) == 1.0


def test_the_failure_that_exhausts_a_budget_is_the_one_shown() -> None:
    supervisor = restarting("a", "b", policy=Restart.on_failure(1, backoff=0.0))
    supervisor.exited("a", 1.0, "first", clean=False)
    supervisor.tick(1.0)
    supervisor.ready("a", 1.0, has_run=True)
    assert do("ask", "b")[0] in supervisor.exited("a", 2.0, "second", clean=False)
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.reason == "second; it was restarted once, and no more may be"


def test_nodes_of_one_process_end_and_start_together() -> None:
    supervisor = restarting("a", "b", "c", policy=Restart.on_failure(), a="p", b="p", c="q")
    assert supervisor.failed(Failure("a", "boom", at=1.0), 1.0) == do("end", "b")
    supervisor.exited("a", 1.1, clean=False)
    assert supervisor.tick(1.2) == []
    supervisor.exited("b", 1.5, "killed by SIGKILL", clean=False)
    assert supervisor.tick(2.0) == [Decision("start", "a", 1), Decision("start", "b", 1)]
    assert supervisor.node_state("c") == "running"


def test_a_stateful_node_sets_all_back_if_there_is_a_checkpoint() -> None:
    supervisor = restarting("a", "s", policy=Restart.on_failure(1, backoff=0.0), stateful=("s",))
    supervisor.has_cut = True
    assert supervisor.exited("s", 1.0, "gone", clean=False) == do("end", "a")
    supervisor.exited("a", 1.1, "killed by SIGKILL", clean=False)
    assert supervisor.tick(1.1) == [Decision("start", n, 1, afresh=True) for n in ("a", "s")]
    supervisor.ready("s", 1.2, has_run=True)
    supervisor.ready("a", 1.2, has_run=True)
    supervisor.exited("a", 2.0, "gone", clean=False)
    supervisor.tick(2.0)
    assert supervisor.phase == "running"  # the budget of a was not touched by the death of s


def test_a_stateful_node_without_a_checkpoint_ends_the_run() -> None:
    supervisor = restarting("a", "s", policy=Restart.on_failure(), stateful=("s",))
    supervisor.exited("s", 1.0, "gone", clean=False)
    assert supervisor.verdict.failure is not None
    assert "no checkpoint" in supervisor.verdict.failure.reason


def journaling(*nodes: str, **units: str) -> Supervisor:
    """All have state; all but the first keep a journal."""
    policy = Restart.on_failure(None, backoff=0.0)
    supervisor = Supervisor(
        nodes, policies=dict.fromkeys(nodes, policy), stateful=nodes, units=units
    )
    supervisor.start(0.0)
    for node in nodes:
        supervisor.ready(node, 0.0, has_run=True, journaled=node != nodes[0])
    return supervisor


def test_a_node_with_a_journal_starts_again_alone_without_a_checkpoint_too() -> None:
    supervisor = journaling("s", "j", "k")
    assert supervisor.exited("j", 1.0, "gone", clean=False) == []
    assert supervisor.tick(1.0) == [Decision("start", "j", 1)]
    assert supervisor.exited("j", 1.1, "gone before it was ready", clean=False) == []
    assert supervisor.tick(1.1) == [Decision("start", "j", 2)]
    (first, second) = supervisor.verdict.take_accidents()
    assert first.what == "restart 1 in 0 s, and what it has journaled is redone"
    assert second.failure.node == "j"


def test_a_node_that_has_a_journal_of_a_run_before_starts_again_alone_from_the_first() -> None:
    policies = dict.fromkeys("ab", Restart.on_failure(None, backoff=0.0))
    supervisor = Supervisor("ab", policies=policies, stateful="ab", journaled="ab")
    supervisor.has_cut = True
    supervisor.start(0.0)
    supervisor.exited("b", 1.0, "killed in its constructor", clean=False)
    assert supervisor.tick(1.0) == [Decision("start", "b", 1)]


def test_a_node_with_a_journal_is_set_back_with_the_others() -> None:
    supervisor = journaling("s", "j")
    supervisor.has_cut = True
    supervisor.exited("j", 1.0, "gone", clean=False)
    supervisor.exited("s", 1.0, "gone", clean=False)
    assert supervisor.tick(1.0) == [Decision("start", n, 1, afresh=True) for n in ("s", "j")]
    supervisor.exited("j", 1.1, "gone before it was ready", clean=False)
    assert supervisor.tick(1.1) == [Decision("start", "j", 2)]


def test_who_shares_a_process_with_a_state_without_a_journal_is_set_back() -> None:
    supervisor = journaling("s", "j", "k", s="one", j="one")
    supervisor.has_cut = True
    assert supervisor.exited("j", 1.0, "gone", clean=False) == do("end", "s", "k")
    supervisor.exited("s", 1.0, "killed", clean=False)
    supervisor.exited("k", 1.0, "killed", clean=False)
    assert supervisor.tick(1.0) == [Decision("start", n, 1, afresh=True) for n in ("s", "j", "k")]


def test_who_shares_a_process_with_a_journal_starts_again_with_it() -> None:
    supervisor = journaling("s", "j", "k", j="one", k="one")
    assert supervisor.exited("j", 1.0, "gone", clean=False) == do("end", "k")
    supervisor.exited("k", 1.0, "killed", clean=False)
    assert supervisor.tick(1.0) == [Decision("start", n, 1) for n in ("j", "k")]


def test_a_node_that_always_restarts_is_retired_when_it_returns() -> None:
    supervisor = restarting("a", "b", policy=Restart.always(backoff=1.0))
    assert supervisor.returned("a", 1.0) == do("retire", "a")
    supervisor.exited("a", 1.1)
    assert supervisor.tick(2.1) == [Decision("start", "a", 1)]
    assert supervisor.phase == "running"


def test_a_stop_between_two_attempts_frees_who_waits_for_the_next() -> None:
    supervisor = restarting("a", "b", policy=Restart.on_failure(3, backoff=60.0))
    supervisor.exited("a", 1.0, "gone", clean=False)
    assert supervisor.stop(2.0, "enough") == do("give_up", "a") + do("ask", "b")
    supervisor.returned("b", 2.1)
    supervisor.exited("b", 2.2)
    assert (supervisor.phase, supervisor.verdict.state) == ("ended", "stopped")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_a_program_with_restarts_ends_by_the_deadline(data: st.DataObject) -> None:
    nodes = ["a", "b", "c"]
    policies = [Restart.never(), Restart.on_failure(2, backoff=1.0), Restart.always(backoff=1.0)]
    supervisor = Supervisor(
        nodes,
        start_timeout=50.0,
        stop_timeout=10.0,
        policies={node: data.draw(st.sampled_from(policies)) for node in nodes},
        stateful=data.draw(st.sets(st.sampled_from(nodes))),
        units=data.draw(st.sampled_from([{}, {"a": "p", "b": "p"}])),
    )
    supervisor.has_cut = data.draw(st.booleans())
    supervisor.start(0.0)
    now = 0.0
    for _ in range(data.draw(st.integers(0, 30))):
        now += data.draw(st.floats(0, 10))
        node = data.draw(st.sampled_from(nodes))
        if supervisor.is_alive(node) and data.draw(st.integers(0, 3)) == 0:
            supervisor.exited(node, now, clean=data.draw(st.booleans()))
        elif supervisor.is_alive(node):
            anything(supervisor, data.draw, node, now)
        else:
            supervisor.tick(now)
    supervisor.stop(now, "the end")
    while (deadline := supervisor.next_deadline()) is not None:
        assert deadline > now
        now = deadline
        supervisor.tick(now)
    assert supervisor.phase == "ended"
    assert "restarting" not in [supervisor.node_state(node) for node in nodes]
