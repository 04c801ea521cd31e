"""Restarts, on every launcher: policies, attempts, what callers and people see of them."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.errors import NotFinite
from lpml.launchers import NodeStatus, Run
from tests.launching import Launch, fail
from tests.waiting import until


def program_of(*nodes: lpml.Node[..., Any], restart: lpml.Restart) -> lpml.Program:
    """Every node in a group `node`."""
    program = lpml.Program("restarts")
    with program.group("node", restart=restart):
        for node in nodes:
            program.add_node(node, label="node")
    return program


def quickly(times: int | None = 3) -> lpml.Restart:
    return lpml.Restart.on_failure(times, backoff=0.02)


def node_of(run: Run, name: str = "node/0") -> NodeStatus:
    return next(node for node in run.status().nodes if node.name == name)


def is_between_attempts(run: Run) -> bool:
    (node,) = run._describe({}).nodes  # without asking it
    return node.state == "restarting" and not run._supervisor.is_alive("node/0")


def is_between_or_begins(run: Run) -> bool:
    """The same where the next attempt waits for a gate: on a busy machine it may have begun."""
    (node,) = run._describe({}).nodes
    return is_between_attempts(run) or (node.state, node.restarts) == ("starting", 1)


def under_way(pool: ThreadPoolExecutor, call: Callable[[], int]) -> Future[int]:
    """A call that has begun. To a node of another host it is sent when the node has proved who it
    is, so `lpml.future` would wait for one that waits for us."""
    begun = threading.Event()

    def made() -> int:
        begun.set()
        return call()

    future = pool.submit(made)
    assert begun.wait(60.0)
    return future


class Stumbles:
    """Its run fails in its first attempts."""

    def __init__(self, falls: int, where: str = "run") -> None:
        self._falls = falls
        if where == "constructor" and lpml.context().attempt:
            self.run()  # what raises at the first attempt is not restarted

    def run(self) -> None:
        attempt = lpml.context().attempt
        print(f"attempt {attempt}")
        if attempt < self._falls:
            raise ValueError(f"fall {attempt}")


@pytest.mark.parametrize("where", ["constructor", "run"])
def test_a_node_that_fails_is_started_again_and_its_log_goes_on(start: Launch, where: str) -> None:
    run = start(program_of(lpml.Node(Stumbles, 2, where), restart=quickly()))
    assert run.wait(60.0).state == "finished"
    assert (node_of(run).state, node_of(run).restarts) == ("finished", 2)
    lines = run.folder.log_file("node/0").read_text().splitlines()
    assert [line for line in lines if line.startswith("attempt")][:3] == [
        f"attempt {attempt}" for attempt in range(3)
    ]
    assert any("ValueError: fall 0; restart 1 of 3 in 0.02 s" in line for line in lines)


class Misused:
    """Its constructor raises."""

    def __init__(self) -> None:
        raise ValueError("a wrong argument")


def test_a_constructor_that_raises_at_once_is_not_tried_again(start: Launch) -> None:
    run = start(program_of(lpml.Node(Misused), restart=quickly()))
    with pytest.raises(lpml.NodeError, match="a wrong argument"):
        run.wait(60.0)
    assert node_of(run).restarts == 0


class Diverges:
    """Finds that its numbers are not finite."""

    def run(self) -> None:
        raise NotFinite("scores are not finite at step 7")


def test_numbers_that_are_not_finite_end_the_run_whatever_the_policy(start: Launch) -> None:
    run = start(program_of(lpml.Node(Diverges), restart=quickly()))
    with pytest.raises(lpml.NodeError, match="not finite at step 7"):
        run.wait(60.0)
    assert node_of(run).restarts == 0


def test_a_failure_beyond_the_budget_ends_the_run_and_is_the_one_shown(start: Launch) -> None:
    run = start(program_of(lpml.Node(Stumbles, 9), restart=quickly(2)))
    with pytest.raises(lpml.NodeError, match="it was restarted 2 times") as caught:
        run.wait(60.0)
    assert "ValueError: fall 2" in caught.value.reason
    assert node_of(run).restarts == 2


class Returns:
    """Returns from its run at once, and ends the program in its third attempt."""

    def run(self) -> None:
        if lpml.context().attempt == 2:
            lpml.context().stop_program("enough")
            lpml.context().wait(60.0)


def test_a_policy_of_always_starts_a_node_again_that_has_returned(start: Launch) -> None:
    program = program_of(lpml.Node(Returns), restart=lpml.Restart.always(backoff=0.02))
    outcome = start(program).wait(60.0)
    assert (outcome.state, outcome.reason) == ("finished", "enough")


def pass_gate(gate: Path | None) -> None:
    """Waits, in a constructor that is no first attempt, until the test has made this file."""
    while gate is not None and lpml.context().attempt and not gate.exists():
        lpml.context().wait(0.01)


class Server:
    """Tells its attempt; its run fails when it is told to."""

    def __init__(self, gate: Path | None = None) -> None:
        pass_gate(gate)
        self._attempt = lpml.context().attempt
        self._changed = lpml.context().clock.condition()
        self._failing = False

    @lpml.concurrent
    def attempt(self) -> int:
        return self._attempt

    @lpml.concurrent
    def fail(self) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()

    @lpml.concurrent
    @lpml.idempotent
    def wait_for_attempt(self, number: int) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._attempt >= number)
        return self._attempt

    @lpml.concurrent
    def wait_for_ever(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: False)

    def run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failing)
        raise ValueError("told to")


def test_an_idempotent_call_rides_through_a_restart_and_another_does_not(start: Launch) -> None:
    with start(program_of(lpml.Node(Server), restart=quickly())) as run:
        server = run.client("node/0")
        assert server.attempt() == 0
        with lpml.deadline(60.0):
            riding = lpml.future(server.wait_for_attempt, 1)
            failing = lpml.future(server.wait_for_ever)
        fail(server)
        with lpml.deadline(60.0):
            assert server.wait_for_attempt(1) == 1
        assert riding.result(60.0) == 1
        assert isinstance(failing.exception(60.0), lpml.NodeUnavailable)
        assert server.attempt() == 1


def test_a_call_made_between_two_attempts_waits_for_the_next(start: Launch, tmp_path: Path) -> None:
    policy = lpml.Restart.on_failure(1, backoff=0.3)
    gate = tmp_path / "gate"
    with start(program_of(lpml.Node(Server, gate), restart=policy)) as run:
        server = run.client("node/0")
        fail(server)
        assert until(lambda: is_between_or_begins(run))
        with ThreadPoolExecutor(1) as pool:
            waiting = under_way(pool, server.attempt)
            gate.touch()
            assert waiting.result(60.0) == 1  # it is not idempotent, but nobody has seen it yet


def test_a_call_that_waits_for_a_restart_keeps_its_deadline(start: Launch) -> None:
    policy = lpml.Restart.on_failure(1, backoff=30.0)
    with start(program_of(lpml.Node(Server), restart=policy)) as run:
        server = run.client("node/0")
        fail(server)
        assert until(lambda: is_between_attempts(run))
        with pytest.raises(lpml.CallTimeout), lpml.deadline(0.2):
            server.wait_for_attempt(1)


def test_a_stop_between_two_attempts_is_a_stop_and_frees_who_waits(start: Launch) -> None:
    policy = lpml.Restart.on_failure(1, backoff=60.0)
    run = start(program_of(lpml.Node(Server), restart=policy))
    server = run.client("node/0")
    fail(server)
    assert until(lambda: is_between_attempts(run))
    waiting = lpml.future(server.attempt)
    outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")
    assert outcome.seconds < 40.0  # and not the minute until the next attempt
    assert isinstance(waiting.exception(60.0), lpml.NodeUnavailable)


class Asks:
    """Calls a server in its run until that is in its second attempt."""

    def __init__(self, server: Server) -> None:
        self._wait = server.wait_for_attempt  # a bound method is kept over the restart

    def run(self) -> None:
        assert self._wait(1) == 1


def test_other_nodes_find_a_restarted_node_where_it_was(start: Launch) -> None:
    program = lpml.Program("callers")
    server = program.add_node(lpml.Node(Mortal), label="server")
    for _ in range(3):
        program.add_node(lpml.Node(Asks, server), label="asks")
    run = start(program)
    fail(run.client("server/0"))
    run.client("server/0").wait_for_attempt(1)
    assert until(lambda: all(node_of(run, f"asks/{i}").state == "finished" for i in range(3)))
    run.stop()


class Mortal(Server):
    """As a role says it, in its class."""

    lpml_restart = lpml.Restart.on_failure(5, backoff=0.01)


class Child:
    """One of two nodes in a process."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails
        self._attempt = lpml.context().attempt

    def attempt(self) -> int:
        return self._attempt

    def run(self) -> None:
        if self._fails and self._attempt == 0:
            raise ValueError("first")
        lpml.context().wait(60.0)


def test_nodes_of_one_process_are_restarted_together(processes: Launch) -> None:
    program = lpml.Program("together")
    with program.group("pair", colocate=True, restart=quickly()):
        program.add_node(lpml.Node(Child, True), label="first")
        program.add_node(lpml.Node(Child, False), label="second")
    with processes(program) as run:
        assert until(lambda: node_of(run, "second/0").restarts == 1)
        with lpml.deadline(60.0):
            assert run.client("first/0").attempt() == run.client("second/0").attempt() == 1


class Killed:
    """A process that can be told to die."""

    @lpml.idempotent
    def attempt(self) -> int:
        return lpml.context().attempt

    def die(self, number: int) -> None:
        os.kill(os.getpid(), number)
        lpml.context().clock.wait(60.0)


@pytest.mark.skipif(sys.platform != "linux", reason="kills processes")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_killed_process_is_noticed_at_once_and_replaced(processes: Launch, number: int) -> None:
    with processes(program_of(lpml.Node(Killed), restart=quickly())) as run:
        victim = run.client("node/0")
        assert victim.attempt() == 0
        with pytest.raises(lpml.NodeUnavailable), lpml.deadline(60.0):
            victim.die(number)
        assert victim.attempt() == 1
        assert run.stop("enough").reason == "enough"


def test_a_policy_with_a_negative_number_is_a_fault() -> None:
    with pytest.raises(lpml.GraphError, match="max_restarts=-1"):
        lpml.Restart.on_failure(-1)


class OneAtATime:
    """Sees how many calls of a serial method run at once."""

    def __init__(self, gate: Path) -> None:
        pass_gate(gate)
        self._inside = self._most = 0
        self._fails = threading.Event()

    def add(self) -> int:
        self._inside += 1
        self._most = max(self._most, self._inside)
        lpml.context().wait(0.02)
        self._inside -= 1
        return self._most

    @lpml.concurrent
    def fail(self) -> None:
        self._fails.set()

    def run(self) -> None:
        while not self._fails.wait(0.01):
            if lpml.context().should_stop:
                return
        raise ValueError("told to")


def test_calls_that_waited_for_the_next_attempt_are_served_one_at_a_time(
    start: Launch, tmp_path: Path
) -> None:
    policy = lpml.Restart.on_failure(3, backoff=0.3)
    gate = tmp_path / "gate"
    with start(program_of(lpml.Node(OneAtATime, gate), restart=policy)) as run:
        client = run.client("node/0")
        assert client.add() == 1
        fail(client)
        assert until(lambda: is_between_or_begins(run))
        with ThreadPoolExecutor(6) as pool:
            waiting = [under_way(pool, client.add) for _ in range(3)]
            gate.touch()
            assert until(lambda: node_of(run).restarts == 1)
            waiting += [under_way(pool, client.add) for _ in range(3)]
            assert [future.result(60.0) for future in waiting] == [1] * 6
