"""How a run ends on every launcher: finished, stopped or interrupted."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from typing import Protocol

import pytest

import lpml
from tests.launching import Launch
from tests.lpml.simple import Counter, Waiter, program_of
from tests.waiting import until


class Adder:
    """Calls another node a few times and is done."""

    def __init__(self, counter: Counter, times: int = 3, done: Path | None = None) -> None:
        self._add = counter.add  # a bound method is fetched before the other node is up
        self._times = times
        self._done = done

    def run(self) -> None:
        last = 0
        for _ in range(self._times):
            last = self._add()
        if self._done is not None:
            self._done.write_text(str(last))


def test_a_program_finishes_when_every_run_method_has_returned(
    start: Launch, tmp_path: Path
) -> None:
    program = lpml.Program("sums")
    counter = program.add_node(lpml.Node(Counter), label="counter")
    for i in range(3):
        program.add_node(lpml.Node(Adder, counter, 4, tmp_path / f"done-{i}"), label="adder")
    run = start(program)
    assert run.wait(60.0).state == "finished"
    assert max(int((tmp_path / f"done-{i}").read_text()) for i in range(3)) == 12
    states = {node.name: node.state for node in run.status().nodes}
    assert states == {"counter/0": "stopped"} | {f"adder/{i}": "finished" for i in range(3)}


class Stopper:
    """Ends the program from inside."""

    def run(self) -> None:
        lpml.context().stop_program("target reached")
        lpml.context().wait(60.0)


def test_a_node_may_end_the_program(start: Launch) -> None:
    outcome = start(program_of(lpml.Node(Stopper), lpml.Node(Waiter))).wait(60.0)
    assert (outcome.state, outcome.reason) == ("finished", "target reached")


def test_waiting_for_a_run_that_goes_on_times_out_and_stops_nothing(start: Launch) -> None:
    with start(program_of(lpml.Node(Waiter))) as run:
        with pytest.raises(TimeoutError, match="still runs"):
            run.wait(0.01)
        assert run.client("node/0").answer() == "here"


class Blocker(Protocol):
    def block(self) -> None: ...


class Blocks:
    """Its method waits for what never comes."""

    def __init__(self) -> None:
        self._condition = lpml.context().clock.condition()

    def block(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: False)


class Blocked:
    """Waits in a call to another node."""

    def __init__(self, other: Blocker) -> None:
        self._other = other

    def run(self) -> None:
        self._other.block()


def test_a_stop_reaches_nodes_that_are_blocked_in_calls(start: Launch) -> None:
    program = lpml.Program("blocked")
    blocks = program.add_node(lpml.Node(Blocks))
    program.add_node(lpml.Node(Blocked, blocks))
    with start(program) as run:
        assert until(lambda: run.status().nodes[1].state == "running")
        outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")  # nobody had to be killed


class Deaf:
    """Never asks whether to stop."""

    def run(self) -> None:
        while True:
            pass


def test_a_loop_that_never_asks_is_interrupted_before_the_deadline(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpml.launchers.stopping.TERMINATE_AT", 0.05)
    run = start(program_of(lpml.Node(Deaf), lpml.Node(Waiter)))
    assert until(lambda: all(node.state == "running" for node in run.status().nodes))
    outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")


class Leaver:
    """Ends its run in ways that are no failure."""

    def __init__(self, how: str) -> None:
        self._how = how

    def run(self) -> None:
        if self._how == "exit":
            sys.exit(0)
        raise lpml.ProgramStopped("I have seen enough")


@pytest.mark.parametrize("how", ["exit", "stopped"])
def test_leaving_run_by_exit_or_program_stopped_is_no_failure(start: Launch, how: str) -> None:
    assert start(program_of(lpml.Node(Leaver, how))).wait(60.0).state == "finished"


def test_a_second_stop_kills_at_once(start: Launch) -> None:
    program = program_of(lpml.Node(Deaf))
    run = start(program, stop_timeout=60.0)
    assert until(lambda: run.status().nodes[0].state == "running")
    first = threading.Thread(target=functools.partial(run.stop, "enough"))
    first.start()
    assert until(lambda: run.status().state == "stopping")
    outcome = run.stop("now", timeout=0.5)
    first.join()
    assert outcome.state == "stopped"
    assert outcome.seconds < 30.0  # it would be interrupted after 36
