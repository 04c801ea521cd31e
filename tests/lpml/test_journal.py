"""Journals: a node that keeps one is replaced alone, exactly as it was, and only until a cut."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lpml
import lpml.testing
from lpml.launchers import NodeStatus, Run, names
from lpml.record.checkpoints import Checkpoints, latest_of
from tests.launching import fail
from tests.lpml.stateful import FailsWhenTold
from tests.tables import LAUNCHERS
from tests.waiting import until

Launch = Callable[..., Run]
AGAIN = lpml.Restart.on_failure(None, backoff=0.01, max_backoff=0.05)


@pytest.fixture(params=[*LAUNCHERS, "hosts"])
def start(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Launch:
    """Launches a program on the launcher of the row; the run folder is kept for the test."""
    place = "tests.lpml.test_hosts:Launcher"  # several hosts, all of which are this machine
    monkeypatch.setattr(names, "LAUNCHERS", {**names.LAUNCHERS, "hosts": place})
    monkeypatch.setattr("lpml.launchers.base.LAUNCHERS", names.LAUNCHERS)
    options: dict[str, Any] = {"directory": tmp_path, "terminal": False, "stop_timeout": 30.0}
    return lambda program, **changes: lpml.launch(program, request.param, **{**options, **changes})


def status(run: Run, name: str) -> NodeStatus:
    """A node as the launcher knows it, without asking the node."""
    return next(node for node in run._describe({}).nodes if node.name == name)


class Ledger(FailsWhenTold):
    """Entries in the order in which they came; journals them."""

    def __init__(self, journal: bool = True) -> None:
        super().__init__()
        self._journal = journal
        if journal:
            lpml.context().keep_journal()
        self._entries: list[str] = []

    def add(self, entry: str) -> int:
        if self._journal:
            lpml.context().journal(entry.encode())
        self._entries.append(entry)
        return len(self._entries)

    @lpml.idempotent
    def entries(self) -> list[str]:
        return list(self._entries)

    @lpml.idempotent
    def pid(self) -> int:
        return os.getpid()

    def save(self) -> list[str]:
        return self._entries

    def restore(self, state: list[str]) -> None:
        self._entries = state

    def redo(self, record: bytes) -> None:
        self._entries.append(record.decode())


def ledgers(*journaled: bool, service: type[Ledger] = Ledger) -> lpml.Program:
    program = lpml.Program("ledgers")
    with program.group("ledger", restart=AGAIN):
        for journal in journaled:
            program.add_node(lpml.Node(service, journal), label="ledger")
    return program


def strike(run: Run, name: str) -> None:
    """Kills a node, or has it fail where it is a thread; waits until its next attempt runs."""
    before, pid = status(run, name).restarts, run.client(name).pid()
    if pid == os.getpid():
        fail(run.client(name))
    else:
        os.kill(pid, signal.SIGKILL)
    assert until(lambda: status(run, name).restarts > before), status(run, name)
    assert until(lambda: all_run(run)), status(run, name)


def all_run(run: Run) -> bool:
    return all(node.state == "running" for node in run._describe({}).nodes)


def needs_processes(run: Run, name: str = "ledger/0") -> int:
    """The process of a node, if it has one of its own."""
    pid: int = run.client(name).pid()
    if pid == os.getpid():
        pytest.skip("threads cannot be killed, and have no limits of their own")
    return pid


def test_a_node_with_a_journal_is_replaced_alone_and_has_lost_nothing(start: Launch) -> None:
    with start(ledgers(True, True)) as run:
        first, second = run.client("ledger/0"), run.client("ledger/1")
        assert [first.add("a"), first.add("b"), second.add("c")] == [1, 2, 1]
        strike(run, "ledger/0")
        assert first.entries() == ["a", "b"]
        assert first.add("d") == 3
        strike(run, "ledger/0")  # and goes on with the same journal
        strike(run, "ledger/0")
        assert first.entries() == ["a", "b", "d"]
        assert status(run, "ledger/1").restarts == 0
        assert second.entries() == ["c"]
    assert "what it has journaled is redone" in run.folder.log_file("ledger/0").read_text()
    assert not run.folder.journals.exists()  # nobody will redo it


def test_nothing_is_lost_and_nothing_comes_twice_while_checkpoints_are_taken(start: Launch) -> None:
    with start(ledgers(True, True), checkpoint_every=0.05) as run:
        client, told = run.client("ledger/0"), list[str]()
        for count in range(4):
            cuts = Checkpoints(run.folder)
            seen = latest_number(cuts)
            while latest_number(cuts) < seen + 2:
                told.append(f"{count} {len(told)}")
                assert client.add(told[-1]) == len(told)
            strike(run, "ledger/0")
            assert client.entries() == told
        stems = {path.name.partition(".")[0] for path in run.folder.journals.iterdir()}
        assert stems == {"ledger-0", "ledger-1"}
        kept = 2 * 3  # of two cuts, and one begun
        assert until(lambda: len(list(run.folder.journals.iterdir())) <= kept)
    assert latest_of(run.folder).load("ledger/0") == told


def latest_number(cuts: Checkpoints) -> int:
    found = cuts.latest()
    return 0 if found is None else found.manifest.number


def test_a_cut_that_was_not_finished_changes_nothing(start: Launch) -> None:
    program = ledgers(True)
    with program.group("witness", restart=AGAIN):
        program.add_node(lpml.Node(Late, False), label="witness")
    with start(program) as run:
        client = run.client("ledger/0")
        client.add("before any")
        run.checkpoint()
        client.add("after the first")
        run.client("witness/0").refuse()
        with pytest.raises(lpml.LaunchError, match="witness/0: ValueError: not now"):
            run.checkpoint()
        assert client.add("after the second") == 3
        strike(run, "ledger/0")
        assert client.entries() == ["before any", "after the first", "after the second"]
        client.add("last")
        strike(run, "ledger/0")
        assert client.entries()[3:] == ["last"]
        assert status(run, "witness/0").restarts == 0


class Restless(Ledger):
    """Changes while its first state is taken, as where a call inside wakes."""

    _saves = 0

    def save(self) -> list[str]:
        taken = list(self._entries)
        self._saves += 1
        if self._saves == 1:
            self.add("while it was saved")
        return taken


def test_a_state_that_changes_while_it_is_taken_is_taken_again(start: Launch) -> None:
    with start(ledgers(True, service=Restless)) as run:
        client = run.client("ledger/0")
        client.add("before")
        run.checkpoint()
        client.add("after")
        assert latest_of(run.folder).load("ledger/0") == ["before", "while it was saved"]
        strike(run, "ledger/0")
        assert client.entries() == ["before", "while it was saved", "after"]


class Late(Ledger):
    """Can be saved until it refuses, which it does when the journal of the ledger has turned."""

    _refuses = False

    def refuse(self) -> None:
        self._refuses = True

    def save(self) -> Any:
        if not self._refuses:
            return []
        directory = lpml.context().directory
        assert directory is not None
        assert until(lambda: (directory / "checkpoints" / "journal" / "ledger-0.2").exists())
        raise ValueError("not now")


def test_a_node_that_is_killed_while_a_cut_is_taken_is_what_it_was(start: Launch) -> None:
    program = ledgers(True)
    with program.group("witness", restart=AGAIN):
        program.add_node(lpml.Node(Patient, False), label="witness")
    with start(program) as run:
        pid = needs_processes(run)
        client = run.client("ledger/0")
        client.add("before")
        cut = threading.Thread(target=pytest.raises, args=(lpml.LaunchError, run.checkpoint))
        cut.start()
        assert until((run.folder.journals / "ledger-0.1").exists)
        os.kill(pid, signal.SIGKILL)
        cut.join()
        (run.folder.path / "go").touch()
        assert client.entries() == ["before"]
        assert client.add("after") == 2
        strike(run, "ledger/0")
        assert client.entries() == ["before", "after"]


class Patient(Ledger):
    """Its state takes until somebody says so."""

    def save(self) -> Any:
        directory = lpml.context().directory
        assert directory is not None
        assert until((directory / "go").exists)
        return []


def test_what_is_undone_by_a_set_back_is_not_redone(start: Launch) -> None:
    with start(ledgers(True, False)) as run:
        kept, other = run.client("ledger/0"), run.client("ledger/1")
        kept.add("saved")
        run.checkpoint()
        kept.add("undone")
        other.add("undone")
        strike(run, "ledger/1")  # it keeps no journal, so all go back
        assert (kept.entries(), other.entries()) == (["saved"], [])
        assert status(run, "ledger/0").restarts == 1
        assert kept.add("anew") == 2
        strike(run, "ledger/0")
        assert kept.entries() == ["saved", "anew"]
        assert status(run, "ledger/1").restarts == 1
        run.checkpoint()
        strike(run, "ledger/0")
        assert kept.entries() == ["saved", "anew"]


@pytest.mark.parametrize("other", [True, False])
def test_a_resumed_run_has_lost_nothing_if_all_who_have_state_keep_journals(
    start: Launch, other: bool
) -> None:
    with start(ledgers(True, other)) as run:
        client = run.client("ledger/0")
        client.add("saved")
        run.checkpoint()
        client.add("journaled")
    with start(ledgers(True, other), resume=run.folder.path) as again:
        client = again.client("ledger/0")
        known = ["saved", "journaled"] if other else ["saved"]
        assert client.entries() == known
        client.add("anew")
        if other:
            strike(again, "ledger/0")
        assert client.entries() == [*known, "anew"]
    with start(ledgers(True, other), resume=run.folder.path) as last:
        assert last.client("ledger/0").entries() == ([*known, "anew"] if other else ["saved"])


class Torn(Ledger):
    """Is killed in the middle of a record."""

    def tear(self, entry: str) -> None:
        def half(file: int, parts: Any) -> int:
            whole = b"".join(parts)
            os.write(file, whole[: -len(entry) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        os.writev = half
        self.add(entry)


def test_half_a_record_was_never_acknowledged(start: Launch) -> None:
    with start(ledgers(True, service=Torn)) as run:
        needs_processes(run)
        client = run.client("ledger/0")
        client.add("whole")
        with pytest.raises(lpml.NodeUnavailable):
            client.tear("half a record")
        assert client.entries() == ["whole"]
        assert client.add("more") == 2
        strike(run, "ledger/0")
        assert client.entries() == ["whole", "more"]


class Full(Ledger):
    """Its disk is full beyond so many bytes."""

    def limit(self, size: int) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of this kind")
def test_what_cannot_be_journaled_is_not_done_and_the_caller_knows(start: Launch) -> None:
    with start(ledgers(True, service=Full)) as run:
        needs_processes(run)
        client = run.client("ledger/0")
        client.add("a" * 100)
        client.limit(4000)
        with pytest.raises(lpml.LaunchError, match=r"ledger-0\.0 cannot be written: File too lar"):
            client.add("b" * 5000)  # its beginning could be
        assert client.add("c" * 100) == 2
        strike(run, "ledger/0")
        assert client.entries() == ["a" * 100, "c" * 100]


class Weak(Ledger):
    """Its second attempt does not get through its journal."""

    def redo(self, record: bytes) -> None:
        super().redo(record)
        if lpml.context().attempt == 1 and record == b"b":
            raise ValueError("too weak")


def test_a_node_that_dies_again_while_it_redoes_begins_anew(start: Launch) -> None:
    with start(ledgers(True, True, service=Weak)) as run:
        client = run.client("ledger/0")
        for entry in "abc":
            client.add(entry)
        strike(run, "ledger/0")
        assert until(lambda: status(run, "ledger/0").restarts == 2)
        assert client.entries() == ["a", "b", "c"]
        assert status(run, "ledger/1").restarts == 0
    text = run.folder.log_file("ledger/0").read_text()
    assert "redoing its journal raised ValueError: too weak" in text


def test_a_damaged_journal_ends_the_run_with_its_name(start: Launch) -> None:
    program = lpml.Program("ledgers")
    with program.group("ledger", restart=lpml.Restart.on_failure(1, backoff=0.01)):
        program.add_node(lpml.Node(Ledger), label="ledger")
    run = start(program)
    client = run.client("ledger/0")
    client.add("something")
    client.add("something else")
    path = run.folder.journals / "ledger-0.0"
    content = bytearray(path.read_bytes())
    content[17] ^= 1
    path.write_bytes(content)
    with lpml.deadline(60.0):
        if client.pid() == os.getpid():
            fail(client)
        else:
            os.kill(client.pid(), signal.SIGKILL)
    with pytest.raises(
        lpml.NodeError, match=r"the record at byte 0 has a wrong checksum; .*resume"
    ):
        run.wait(60.0)


class NoRedo:
    """Keeps a journal of which nothing can be redone."""

    def __init__(self) -> None:
        lpml.context().keep_journal()

    def save(self) -> None:
        """Nothing."""

    def restore(self, state: None) -> None:
        """Nothing."""


class TooEarly(Ledger):
    """Journals what its constructor does."""

    def __init__(self) -> None:
        super().__init__()
        self.add("too early")


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (NoRedo, r"NoRedo keeps a journal and has not all of save\(\)"),
        (TooEarly, "by a constructo"),
    ],
)
def test_what_can_be_of_no_use_is_refused(start: Launch, service: type, words: str) -> None:
    program = lpml.Program("wrong")
    program.add_node(lpml.Node(service))
    with pytest.raises(lpml.NodeError, match=words):
        start(program).wait(60.0)


def test_a_long_journal_has_a_checkpoint_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lpml.record.journal.LIMIT", 1000)
    with lpml.launch(ledgers(True), "local_mt", directory=tmp_path, terminal=False) as run:
        client, cuts = run.client("ledger/0"), Checkpoints(run.folder)
        client.add("a" * 900)
        assert cuts.latest() is None
        client.add("b" * 900)
        assert until(lambda: latest_number(cuts) == 1)
        assert until(
            lambda: {path.name for path in run.folder.journals.iterdir()} == {"ledger-0.1"}
        )
        strike(run, "ledger/0")
        assert len(client.entries()) == 2


def test_without_a_run_nothing_is_journaled_and_what_was_not_announced_is_refused() -> None:
    ledger = Ledger()
    assert ledger.add("a") == 1
    with lpml.testing.node("ledger/0"), pytest.raises(lpml.UsageError, match="keep_journal"):
        lpml.context().journal(b"a")
