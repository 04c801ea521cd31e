"""The supervisor, without processes, threads or time: events in, decisions out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpml.launchers.decisions import GRACE, Decision, Failure
from lpml.launchers.starting import PATIENCE
from lpml.launchers.supervisor import Supervisor
from lpml.resources import Restart
from tests.lpml.supervised import anything, do, running


def test_every_node_is_started() -> None:
    supervisor = Supervisor(["a", "b"])
    assert supervisor.start(0.0) == do("start", "a", "b")
    assert supervisor.node_state("a") == "starting"


def test_a_program_finishes_when_every_run_has_returned() -> None:
    supervisor = running("a", "b", without_run=("server",))
    assert supervisor.returned("a", 1.0) == []
    assert supervisor.node_state("a") == "finished"
    decisions = supervisor.returned("b", 2.0)
    assert decisions == do("ask", "a", "b", "server") + do("close", "a", "b", "server")
    for node in ("a", "b", "server"):
        assert supervisor.phase == "closing"
        supervisor.exited(node, 3.0)
    assert (supervisor.phase, supervisor.verdict.state) == ("ended", "finished")
    assert supervisor.node_state("b") == "finished"
    assert supervisor.node_state("server") == "stopped"


def test_a_program_does_not_finish_while_a_node_is_still_being_built() -> None:
    supervisor = Supervisor(["fast", "slow"])
    supervisor.start(0.0)
    supervisor.ready("fast", 1.0, has_run=True)
    assert supervisor.returned("fast", 2.0) == []
    assert supervisor.ready("slow", 3.0, has_run=False)[0] == Decision("ask", "fast")


def test_a_program_of_services_alone_runs_until_it_is_stopped() -> None:
    supervisor = running(without_run=("a",))
    assert supervisor.tick(1e6) == []
    assert supervisor.next_deadline() is None
    assert supervisor.stop(1e6, "enough") == do("ask", "a") + do("close", "a")
    supervisor.exited("a", 1e6)
    assert (supervisor.verdict.state, supervisor.verdict.reason) == ("stopped", "enough")


def test_calls_are_served_until_every_run_has_returned() -> None:
    supervisor = running("a", "b", without_run=("server",))
    assert supervisor.stop(0.0, "enough") == do("ask", "a", "b", "server")
    assert supervisor.returned("a", 1.0) == []
    assert supervisor.returned("b", 2.0) == do("close", "a", "b", "server")
    assert supervisor.node_state("a") == "stopped"


def test_the_first_failure_stops_the_program_and_is_the_one_shown() -> None:
    supervisor = running("a", "b")
    assert supervisor.failed(Failure("a", "boom", at=1.0), 1.0) == do("ask", "a", "b")
    supervisor.failed(Failure("b", "later", at=2.0), 2.0)
    supervisor.exited("a", 3.0, "exited with status 1", clean=False)
    supervisor.exited("b", 3.0, "exited with status 1", clean=False)
    assert supervisor.verdict.state == "failed"
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.reason == "boom"
    assert supervisor.verdict.reason == "a: boom"


def test_a_failure_heard_of_late_is_still_the_first() -> None:
    supervisor = running("a", "b")
    supervisor.failed(Failure("b", "later", at=2.0), 2.1)
    supervisor.failed(Failure("a", "earlier", at=1.9), 2.2)
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.node == "a"


def test_a_death_is_shown_before_the_failures_of_those_who_called_the_dead() -> None:
    supervisor = running("caller", "dead")
    supervisor.failed(Failure("caller", "NodeUnavailable", at=1.0, consequence=True), 1.0)
    supervisor.exited("dead", 1.1, "killed by SIGSEGV", clean=False, at=1.05)
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.node == "dead"


def test_a_death_heard_of_last_is_still_what_the_others_failed_of() -> None:
    supervisor = running("caller", without_run=("dead",))
    supervisor.failed(Failure("caller", "NodeUnavailable", at=1.0, consequence=True), 1.0)
    supervisor.exited("caller", 1.1, clean=False)
    assert supervisor.phase == "closing"
    supervisor.exited("dead", 1.2, "killed by SIGKILL", clean=False, at=0.9)
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.node == "dead"


@pytest.mark.parametrize("clean", [True, False])
def test_an_exit_that_nobody_asked_for_is_a_failure(clean: bool) -> None:
    supervisor = running("a", "b")
    assert supervisor.exited("a", 1.0, "gone", clean=clean) == do("ask", "b")
    assert supervisor.node_state("a") == "failed"
    assert supervisor.detail("a") == "gone"


def test_a_stop_has_one_deadline_ask_interrupt_let_go_kill() -> None:
    supervisor = running("stuck", "good", without_run=("server",))
    supervisor.stop(0.0, "enough")
    supervisor.returned("good", 0.1)
    assert supervisor.next_deadline() == pytest.approx(6.0)
    assert supervisor.tick(5.9) == []
    assert supervisor.tick(6.0) == do("terminate", "stuck")
    assert supervisor.next_deadline() == pytest.approx(8.0)
    assert supervisor.tick(8.0) == do("close", "stuck", "good", "server")
    supervisor.exited("good", 8.1)
    supervisor.exited("server", 8.1)
    assert supervisor.tick(9.9) == []
    assert supervisor.tick(10.0) == do("kill", "stuck")
    supervisor.exited("stuck", 10.1, "killed by SIGKILL", clean=False)
    assert supervisor.phase == "ended"
    assert supervisor.verdict.state == "stopped"
    assert supervisor.verdict.reason == "enough; stuck had to be killed"


def test_a_node_that_yields_to_the_interrupt_is_not_reported() -> None:
    supervisor = running("slow")
    supervisor.stop(0.0, "enough")
    supervisor.tick(6.0)
    assert supervisor.returned("slow", 6.5) == do("close", "slow")
    supervisor.exited("slow", 6.6)
    assert supervisor.verdict.reason == "enough"


def test_a_node_that_does_not_end_is_interrupted_and_then_killed() -> None:
    supervisor = running("slow", without_run=("server",))
    supervisor.stop(0.0, "enough")
    supervisor.tick(6.0)
    supervisor.returned("slow", 7.0)  # both are told to close now
    supervisor.exited("slow", 7.1)
    assert supervisor.tick(8.9) == []
    assert supervisor.next_deadline() == pytest.approx(9.0)
    assert supervisor.tick(9.0) == do("terminate", "server")
    assert supervisor.tick(10.0) == do("kill", "server")


def test_a_second_stop_can_only_shorten_the_first() -> None:
    supervisor = running("stuck")
    supervisor.stop(0.0, "enough")
    assert supervisor.stop(1.0, "again", timeout=100.0) == []
    assert supervisor.next_deadline() == pytest.approx(6.0)
    assert supervisor.stop(2.0, "now", timeout=0.0) == do("kill", "stuck")
    supervisor.exited("stuck", 2.1, "killed by SIGKILL", clean=False)
    assert supervisor.verdict.reason == "enough; stuck had to be killed"


def test_what_cannot_be_killed_is_given_up() -> None:
    supervisor = running("dead-locked")
    supervisor.stop(0.0, "enough", timeout=0.0)
    assert supervisor.next_deadline() == pytest.approx(GRACE)
    supervisor.tick(GRACE)
    assert supervisor.phase == "ended"
    assert "dead-locked could not be killed" in supervisor.verdict.reason


def test_a_node_that_does_not_start_is_inspected_and_then_fails() -> None:
    supervisor = Supervisor(["slow"], start_timeout=5.0)
    supervisor.start(0.0)
    supervisor.begun("slow", 0.0)
    assert supervisor.next_deadline() == pytest.approx(5.0)
    assert supervisor.tick(5.0) == do("inspect", "slow")
    assert supervisor.overdue("slow", 5.1, "File x, line 1") == do("ask", "slow") + do(
        "close", "slow"
    )
    assert supervisor.verdict.failure is not None
    assert supervisor.verdict.failure.traceback == "File x, line 1"
    assert "within 5 s" in supervisor.verdict.failure.reason


def test_the_time_for_a_constructor_counts_from_when_it_could_begin() -> None:
    supervisor = Supervisor(["early", "late", "never"], start_timeout=5.0)
    supervisor.start(0.0)
    supervisor.begun("early", 1.0)
    supervisor.begun("late", 4.0)
    assert supervisor.tick(5.9) == []
    assert supervisor.tick(6.0) == do("inspect", "early")
    supervisor.ready("early", 6.1, has_run=False)
    assert supervisor.next_deadline() == pytest.approx(9.0)
    supervisor.ready("late", 8.0, has_run=False)
    assert supervisor.next_deadline() == pytest.approx(PATIENCE)


def test_a_node_that_does_not_even_say_where_it_hangs_fails_too() -> None:
    supervisor = Supervisor(["slow"], start_timeout=5.0)
    supervisor.start(0.0)
    supervisor.begun("slow", 0.0)
    supervisor.tick(5.0)
    deadline = supervisor.next_deadline()
    assert deadline is not None
    supervisor.tick(deadline)
    assert supervisor.verdict.state == "failed"


def test_a_node_that_becomes_ready_in_time_after_all_does_not_fail() -> None:
    supervisor = Supervisor(["slow"], start_timeout=5.0)
    supervisor.start(0.0)
    supervisor.begun("slow", 0.0)
    supervisor.tick(5.0)
    supervisor.ready("slow", 5.1, has_run=True)
    assert supervisor.overdue("slow", 5.2) == []
    assert supervisor.verdict.state == "finished"


def test_a_node_stopped_while_it_is_being_built_ends_cleanly() -> None:
    supervisor = Supervisor(["a"])
    supervisor.start(0.0)
    assert supervisor.stop(1.0, "enough") == do("ask", "a")
    assert supervisor.returned("a", 1.1) == do("close", "a")
    supervisor.exited("a", 1.2)
    assert (supervisor.verdict.state, supervisor.node_state("a")) == ("stopped", "stopped")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_whatever_happens_the_program_ends_by_the_deadline(data: st.DataObject) -> None:
    nodes = ["a", "b", "c"]
    supervisor = Supervisor(nodes, start_timeout=50.0, stop_timeout=10.0)
    decisions = supervisor.start(0.0)
    now = 0.0
    for _ in range(data.draw(st.integers(0, 20))):
        now += data.draw(st.floats(0, 30))
        node = data.draw(st.sampled_from(nodes))
        if data.draw(st.integers(0, 9)) == 0:
            decisions += supervisor.exited(node, now, clean=False)
        elif Decision("kill", node) not in decisions:
            decisions += anything(supervisor, data.draw, node, now)
    decisions += supervisor.stop(now, "the end")
    while (deadline := supervisor.next_deadline()) is not None:
        assert deadline > now
        now = deadline
        decisions += supervisor.tick(now)
    assert supervisor.phase == "ended"
    assert len(set(decisions)) == len(decisions), "told twice"


def test_a_stop_may_wait_for_a_last_checkpoint() -> None:
    supervisor = running("a", without_run=("server",))
    supervisor.saves_at_the_end = True
    supervisor.stop(0.0, "enough")
    assert supervisor.returned("a", 1.0) == []
    assert supervisor.phase == "saving"
    assert supervisor.saved(2.0) == do("close", "a", "server")


def test_a_last_checkpoint_is_not_waited_for_beyond_the_deadline() -> None:
    supervisor = running("a")
    supervisor.saves_at_the_end = True
    supervisor.stop(0.0, "enough")
    supervisor.returned("a", 1.0)
    assert supervisor.tick(7.9) == []
    assert supervisor.tick(8.0) == do("close", "a")


def test_a_node_may_join_and_leave_while_the_program_goes_on() -> None:
    supervisor = running("a")
    assert supervisor.join("b", Restart.never(), None, 1.0) == [Decision("start", "b", 0)]
    supervisor.ready("b", 1.1, has_run=True)
    assert supervisor.leave("b", 2.0) == do("ask", "b")
    assert supervisor.leaving == ("b",)
    assert supervisor.returned("b", 2.5) == do("close", "b")
    supervisor.exited("b", 2.6)
    assert not supervisor.leaving
    assert supervisor.phase == "running"
    assert supervisor.join("b", Restart.never(), None, 3.0) == [Decision("start", "b", 1)]


def test_a_node_that_does_not_leave_is_interrupted_and_killed() -> None:
    supervisor = running("a", "b")
    supervisor.leave("b", 0.0)
    assert supervisor.next_deadline() == pytest.approx(6.0)
    assert supervisor.tick(6.0) == do("terminate", "b")
    assert supervisor.tick(10.0) == do("kill", "b")
    supervisor.exited("b", 10.1, "killed by SIGKILL", clean=False)
    assert supervisor.phase == "running"
