"""What fails, and what is refused, on every launcher."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path
from typing import TextIO

import pytest

import lpml
from lpml.launchers import rendezvous
from lpml.launchers.names import uses_processes
from tests.launching import Launch
from tests.lpml.simple import Counter, Raiser, Waiter, program_of
from tests.waiting import until


@pytest.mark.parametrize("where", ["constructor", "run"])
def test_a_failure_names_node_cause_and_log_and_stops_the_program(
    start: Launch, where: str
) -> None:
    run = start(program_of(lpml.Node(Waiter), lpml.Node(Raiser, where)))
    with pytest.raises(lpml.NodeError) as caught:
        run.wait(60.0)
    error = caught.value
    assert error.node == "node/1"
    assert "ValueError: boom" in error.reason
    assert f"raise ValueError({'message' if where == 'constructor' else 'self._message'})" in (
        error.traceback
    )
    assert "worker.py" not in error.traceback
    assert error.log == str(run.folder.log_file("node/1"))
    assert "ValueError: boom" in Path(error.log).read_text()
    assert run.failure is not None
    assert {node.name: node.state for node in run.status().nodes} == {
        "node/0": "stopped",
        "node/1": "failed",
    }
    assert run.stop().state == "failed"


def test_leaving_the_block_raises_the_failure_of_the_run(start: Launch) -> None:
    with pytest.raises(lpml.NodeError, match="boom"), start(program_of(lpml.Node(Raiser, "run"))):
        assert until(lambda: bool(rendezvous.runs()) is False)


def test_leaving_the_block_never_hides_its_own_exception(start: Launch) -> None:
    run = start(program_of(lpml.Node(Raiser, "run")))
    with pytest.raises(KeyError), run:
        raise KeyError("mine")


class Refuser:
    """A method that raises, and a caller of it."""

    def refuse(self) -> None:
        raise LookupError("nothing here")


class Victim:
    """Fails because a method of another node raised."""

    def __init__(self, other: Refuser) -> None:
        self._other = other

    def run(self) -> None:
        self._other.refuse()


def test_an_exception_of_a_method_fails_its_caller_and_not_its_node(start: Launch) -> None:
    program = lpml.Program("blame")
    refuser = program.add_node(lpml.Node(Refuser))
    program.add_node(lpml.Node(Victim, refuser))
    run = start(program)
    with pytest.raises(lpml.NodeError) as caught:
        run.wait(60.0)
    assert caught.value.node == "victim/0"
    assert "nothing here" in caught.value.reason
    assert "in refuse" in caught.value.traceback


def test_an_unknown_node_is_refused_with_the_closest_name(start: Launch) -> None:
    with start(program_of(lpml.Node(Counter))) as run:
        with pytest.raises(lpml.UsageError, match="did you mean 'node/0'"):
            run.client("nod/0")
        with pytest.raises(lpml.UsageError, match="did you mean 'node/0'"):
            run.stack("nodes/0")


class NeverBuilt:
    """Its constructor does not return while somebody else has locked a file."""

    def __init__(self, file: Path) -> None:
        with file.open("w") as opened:
            self._hang(opened)

    def _hang(self, file: TextIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def test_a_node_that_never_starts_fails_and_says_where_it_hangs(
    start: Launch, tmp_path: Path
) -> None:
    program = program_of(lpml.Node(NeverBuilt, tmp_path / "file"))
    with (tmp_path / "file").open("w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        run = start(program, start_timeout=2.0, stop_timeout=0.5)
        stack = run.stack("node/0") if until(lambda: "_hang" in run.stack("node/0")) else ""
        assert "_hang" in stack
        with pytest.raises(lpml.NodeError, match=r"did not return within 2 s") as caught:
            run.wait(60.0)
        assert "_hang" in caught.value.traceback
        if not uses_processes(run.launch):  # a thread that waits in foreign code is given up
            assert "cannot be killed" in run.stop().reason
    assert until(lambda: not any(t.name == "node/0" for t in threading.enumerate()))


def test_a_run_folder_that_cannot_be_had_is_a_launch_error(start: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(lpml.LaunchError, match="file"):
        start(program_of(lpml.Node(Counter)), directory=tmp_path / "file")


def test_a_socket_folder_that_cannot_be_had_is_a_launch_error(
    start: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LPML_SOCKETS", str(tmp_path / "file"))
    with pytest.raises(lpml.LaunchError, match="LPML_SOCKETS"):
        start(program_of(lpml.Node(Counter)))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_time_limit_fails_the_run_and_names_who_was_not_done(start: Launch) -> None:
    run = start(program_of(lpml.Node(Counter), lpml.Node(Waiter)), time_limit=0.5)
    with pytest.raises(lpml.NodeError, match=r"did not end within 0.5 s"):
        run.wait(60.0)


def test_the_faults_of_a_program_are_reported_before_anything_starts(
    start: Launch, tmp_path: Path
) -> None:
    program = program_of(lpml.Node(Counter))
    with program.group("big", resources=lpml.Resources(cpu=10_000, custom={"tpu": 1})):
        program.add_node(lpml.Node(Counter))
    with pytest.raises(lpml.GraphError) as caught:
        start(program)
    faults = "\n".join(caught.value.faults)
    assert "big/0" in faults
    assert "10000" in faults
    assert "tpu" in faults
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_launcher_is_a_usage_error() -> None:
    with pytest.raises(lpml.UsageError, match="did you mean 'local_mp'"):
        lpml.launch(program_of(lpml.Node(Counter)), "local_mpp")
