"""What every launcher promises: one suite, run on each row of `tests/tables.py`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import lpml
from lpml.launchers import Run
from tests.launching import Launch
from tests.lpml.simple import Counter, NeedsOtherToBuild, Printer, program_of


def test_a_service_answers_until_the_run_is_stopped(start: Launch) -> None:
    with start(program_of(lpml.Node(Counter, 5))) as run:
        assert run.client("node/0").add(2) == 7
        assert run.client("node/0").add() == 8
        outcome = run.stop("enough")
    assert (outcome.state, outcome.reason) == ("stopped", "enough")
    assert outcome.seconds > 0
    with pytest.raises(lpml.NodeUnavailable):
        run.client("node/0").add()


class Ping:
    """Half of a cycle."""

    def __init__(self, other: Pong) -> None:
        self._other = other

    @lpml.concurrent
    def ping(self) -> str:
        return "ping"

    def both(self) -> str:
        return self._other.pong()


class Pong:
    """The other half, which calls back."""

    def __init__(self, other: Ping) -> None:
        self._other = other

    def pong(self) -> str:
        return self._other.ping() + "-pong"


def test_nodes_call_each_other_in_a_cycle(start: Launch) -> None:
    program = lpml.Program("cycle")
    ping = lpml.Node.declare(Ping)
    pong = program.add_node(lpml.Node(Pong, ping.handle()))
    ping.configure(pong)
    program.add_node(ping)
    with start(program) as run:
        assert run.client("ping/0").both() == "ping-pong"


class SlowCounter:
    """Takes a moment to build."""

    def __init__(self) -> None:
        lpml.context().wait(0.1)
        self._count = 0

    def add(self, amount: int = 1) -> int:
        self._count += amount
        return self._count


def test_a_call_to_a_node_that_is_not_up_yet_waits_for_it(start: Launch) -> None:
    program = lpml.Program("early")
    slow = lpml.Node.declare(SlowCounter)
    program.add_node(lpml.Node(NeedsOtherToBuild, slow.handle()), label="early")
    slow.configure()
    program.add_node(slow, label="late")
    with start(program) as run:
        assert run.client("early/0").count() == 10


def test_several_runs_at_once_do_not_mix(start: Launch) -> None:
    with (
        start(program_of(lpml.Node(Counter, 10))) as one,
        start(program_of(lpml.Node(Counter, 20))) as two,
    ):
        assert one.name != two.name
        assert one.client("node/0").add() == 11
        assert two.client("node/0").add() == 21
        assert one.stop().state == "stopped"
        assert two.client("node/0").add() == 22


def test_a_run_may_be_launched_and_stopped_in_any_thread(start: Launch) -> None:
    answers: list[object] = []

    def elsewhere() -> None:
        runs.append(start(program_of(lpml.Node(Counter))))
        answers.append(runs[0].client("node/0").add())

    runs: list[Run] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert answers == [1]
    assert runs[0].client("node/0").add() == 2  # the thread that launched it has ended
    assert runs[0].stop().state == "stopped"


class Mutator:
    """Changes what it was given."""

    def __init__(self, values: list[int]) -> None:
        values.append(1)
        self._values = values

    def values(self) -> list[int]:
        return self._values


def test_each_node_has_its_own_copy_of_its_arguments(start: Launch) -> None:
    values = [0]
    with start(program_of(lpml.Node(Mutator, values), lpml.Node(Mutator, values))) as run:
        assert run.client("node/0").values() == [0, 1]
        assert run.client("node/1").values() == [0, 1]
    assert values == [0]


class Asynchronous:
    """Its loop is a coroutine."""

    def __init__(self, counter: Counter, done: Path) -> None:
        self._counter = counter
        self._done = done

    async def run(self) -> None:
        self._done.write_text(str(await lpml.acall(self._counter.add, 5)))


def test_run_may_be_a_coroutine(start: Launch, tmp_path: Path) -> None:
    program = lpml.Program("coroutine")
    counter = program.add_node(lpml.Node(Counter))
    program.add_node(lpml.Node(Asynchronous, counter, tmp_path / "done"))
    assert start(program).wait(60.0).state == "finished"
    assert (tmp_path / "done").read_text() == "5"


def test_nodes_of_one_process_call_each_other_and_keep_their_logs_apart(start: Launch) -> None:
    program = lpml.Program("together")
    with program.group("shared", colocate=True):
        counter = program.add_node(lpml.Node(Counter), label="counter")
        program.add_node(lpml.Node(NeedsOtherToBuild, counter), label="user")
        program.add_node(lpml.Node(Printer), label="printer")
    with start(program) as run:
        names = [node.name for node in run.plan.nodes]
        assert run.client(names[1]).count() == 10
        run.client(names[2]).shout("hello")
        assert len({node.pid for node in run.status().nodes}) == 1
    assert "hello" in run.folder.log_file(names[2]).read_text()
    assert run.folder.log_file(names[0]).read_text() == ""


def test_the_test_launcher_removes_its_folder() -> None:
    with lpml.launch(program_of(lpml.Node(Counter)), "test", terminal=False) as run:
        assert run.folder.path.is_dir()
    assert not run.folder.path.exists()
