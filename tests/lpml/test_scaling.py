"""Groups that grow and shrink while their program runs, on every launcher."""

from __future__ import annotations

import pytest

import lpml
from lpml import wire
from lpml.launchers import rendezvous
from lpml.launchers.control import connect
from tests.launching import Launch
from tests.waiting import until


class Register:
    """Knows who is there."""

    def __init__(self) -> None:
        self._there: set[tuple[int, int]] = set()

    def come(self, index: int, attempt: int) -> None:
        self._there.add((index, attempt))

    def go(self, index: int, attempt: int) -> None:
        self._there.discard((index, attempt))

    def there(self) -> set[tuple[int, int]]:
        return self._there


class Worker:
    """Comes, stays until it is told to stop, and says goodbye."""

    def __init__(self, register: Register) -> None:
        self._register = register

    def run(self) -> None:
        context = lpml.context()
        self._register.come(context.index, context.attempt)
        context.wait(60.0)
        self._register.go(context.index, context.attempt)


class Saved:
    """Has state."""

    def save(self) -> int:
        return 1

    def restore(self, state: int) -> None:
        del state


class Reader:
    """Holds a handle of a worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker


def program_of(workers: int) -> lpml.Program:
    program = lpml.Program("scaled")
    register = program.add_node(lpml.Node(Register), label="register")
    for _ in range(workers):
        program.add_node(lpml.Node(Worker, register), label="worker")
    return program


def test_a_group_grows_and_shrinks_while_the_program_runs(start: Launch) -> None:
    with start(program_of(1)) as run:
        register = run.client("register/0")
        assert run.scale("worker", 3) == ("worker/0", "worker/1", "worker/2")
        assert until(lambda: register.there() == {(0, 0), (1, 0), (2, 0)})
        assert run.scale("worker", 1) == ("worker/0",)
        assert until(lambda: register.there() == {(0, 0)})  # they were asked, and said goodbye
        assert [node.name for node in run.status().nodes] == ["register/0", "worker/0"]
        assert until(lambda: not run._supervisor.leaving)
        assert run.scale("worker", 2) == ("worker/0", "worker/1")
        assert until(lambda: register.there() == {(0, 0), (1, 1)})  # the same name, a new attempt
        run.stop("enough")
    assert run.wait().reason == "enough"


def test_a_group_may_be_emptied_and_filled_again(start: Launch) -> None:
    with start(program_of(2)) as run:
        register = run.client("register/0")
        assert until(lambda: len(register.there()) == 2)
        assert run.scale("worker", 0) == ()
        assert until(lambda: register.there() == set() and not run._supervisor.leaving)
        assert run.status().state == "running"
        assert run.scale("worker", 1) == ("worker/0",)
        assert until(lambda: register.there() == {(0, 1)})


def test_what_cannot_be_scaled_is_refused_and_changes_nothing(start: Launch) -> None:
    program = program_of(1)
    program.add_node(lpml.Node(Saved), label="saved")
    worker = program.add_node(lpml.Node(Worker, Register()), label="held")
    program.add_node(lpml.Node(Reader, worker), label="reader")
    with start(program) as run:
        for group, count, words in [
            ("register", 2, "worker/0 hold handles"),
            ("saved", 2, "Saved has state"),
            ("held", 0, "reader/0 hold handles"),
            ("workers", 2, "did you mean 'worker'"),
            ("worker", -1, "at least 0"),
        ]:
            with pytest.raises(lpml.UsageError, match=words):
                run.scale(group, count)
        assert [node.name for node in run.plan.nodes] == [
            "register/0",
            "worker/0",
            "saved/0",
            "held/0",
            "reader/0",
        ]


def test_another_process_may_scale_a_run(start: Launch) -> None:
    with start(program_of(1)) as run:
        (info,) = [info for info in rendezvous.runs() if info.run == run.name]
        control = connect(info.control)
        assert control.scale("worker", 2) == ["worker/0", "worker/1"]
        with pytest.raises(lpml.UsageError, match="no such group"):
            control.scale("nobody", 2)
        wire.close(control)
        assert run.folder.nodes == ("register/0", "worker/0", "worker/1")


def test_a_run_that_has_ended_cannot_be_scaled(start: Launch) -> None:
    run = start(program_of(1))
    run.stop()
    with pytest.raises(lpml.LaunchError, match="has ended"):
        run.scale("worker", 2)
