"""Journals: a node that keeps one is replaced alone, exactly as it was, and only until a cut."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpml
from lpml.launchers import NodeStatus, Run
from tests.tables import LAUNCHERS

Launch = Callable[..., Run]
AGAIN = lpml.Restart.on_failure(None, backoff=0.01, max_backoff=0.05)


@pytest.fixture(params=LAUNCHERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Launch:
    """Launches a program on the launcher of the row; the run folder is kept for the test."""
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 5.0}
    return lambda program, **changes: lpml.launch(program, request.param, **{**options, **changes})


@pytest.fixture
def start_processes(tmp_path: Path) -> Launch:
    """Launches a program on processes, which can be killed."""
    if sys.platform != "linux":
        pytest.skip("kills processes by what Linux says of them")
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 5.0}
    return lambda program, **changes: lpml.launch(program, "local_mp", **{**options, **changes})


def until(predicate: Callable[[], bool]) -> bool:
    """Whether it comes true within a while."""
    pause = threading.Event()
    return any(predicate() or pause.wait(0.01) for _ in range(2000))


def status(run: Run, name: str) -> NodeStatus:
    """A node as the launcher knows it, without asking the node."""
    return next(node for node in run._describe({}).nodes if node.name == name)


class Ledger:
    """Counts for each who adds, in the order in which they did; journals that."""

    def __init__(self, journal: bool = True) -> None:
        self._journal = journal
        if journal:
            lpml.context().keep_journal()
        self._entries: list[str] = []
        self._changed = lpml.context().clock.condition()
        self._failing = False

    def add(self, entry: str) -> int:
        if self._journal:
            lpml.context().journal(entry.encode())
        self._entries.append(entry)
        return len(self._entries)

    @lpml.idempotent
    def entries(self) -> list[str]:
        return list(self._entries)

    @lpml.concurrent
    def fail(self) -> None:
        with self._changed:
            self._failing = True
            self._changed.notify_all()

    def run(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failing)
        raise ValueError("told to")

    def save(self) -> list[str]:
        return self._entries

    def restore(self, state: list[str]) -> None:
        self._entries = state

    def redo(self, record: bytes) -> None:
        self._entries.append(record.decode())


def ledgers(*journaled: bool) -> lpml.Program:
    program = lpml.Program("ledgers")
    with program.group("ledger", restart=AGAIN):
        for journal in journaled:
            program.add_node(lpml.Node(Ledger, journal))
    return program


def fail(run: Run, name: str) -> None:
    """Has a node fail, and waits until its next attempt runs."""
    before = status(run, name).restarts
    run.client(name).fail()
    assert until(lambda: status(run, name).restarts > before), status(run, name)
    assert until(lambda: status(run, name).state == "running"), status(run, name)


def kill(run: Run, name: str) -> None:
    """Kills the process of a node, and waits until the next runs."""
    before = status(run, name)
    assert before.pid > 0
    os.kill(before.pid, signal.SIGKILL)
    assert until(lambda: status(run, name).restarts > before.restarts), status(run, name)
    assert until(lambda: status(run, name).state == "running"), status(run, name)


def test_a_node_with_a_journal_is_replaced_alone_and_has_lost_nothing(start: Launch) -> None:
    with start(ledgers(True, True)) as run:
        first, second = run.client("ledger/0"), run.client("ledger/1")
        assert [first.add("a"), first.add("b"), second.add("c")] == [1, 2, 1]
        fail(run, "ledger/0")
        assert first.entries() == ["a", "b"]
        assert first.add("d") == 3
        fail(run, "ledger/0")  # and goes on with the same journal
        assert first.entries() == ["a", "b", "d"]
        assert status(run, "ledger/1").restarts == 0
        assert second.entries() == ["c"]
    assert "what it has journaled is redone" in run.folder.log_file("ledger/0").read_text()


def test_what_is_killed_has_lost_nothing(start_processes: Launch) -> None:
    with start_processes(ledgers(True), checkpoint_every=0.05) as run:
        client, told = run.client("ledger/0"), []
        for count in range(5):
            for part in range(20):
                told.append(f"{count} {part}")
                assert client.add(told[-1]) == len(told)
            kill(run, "ledger/0")
            assert client.entries() == told
