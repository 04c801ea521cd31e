"""The forkserver of a run: what its death means, and what it has not said yet."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import psutil
import pytest

import lpml
from lpml.launchers import Run, processes, rendezvous
from lpml.launchers.server_process import cool, take
from tests.launching import Launch
from tests.lpml.inside import Hangs, Inside, program_of, wait_for_state
from tests.waiting import gone, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(processes: Launch) -> Launch:
    """Launches a program on processes."""
    return processes


def forkserver_of(run: Run) -> psutil.Process:
    parent = psutil.Process(run.status().nodes[0].pid).parent()
    assert parent is not None
    return parent


def test_the_death_of_the_forkserver_ends_the_run_and_leaves_nothing(start: Launch) -> None:
    run = start(program_of(lpml.Node(Inside)))
    pids = [*run.client("node/0").spawn(), run.client("node/0").pid()]
    forkserver_of(run).kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(60.0)
    assert all(gone(pid) for pid in pids)
    assert rendezvous.runs() == []


def test_no_restart_policy_outlives_the_forkserver(start: Launch) -> None:
    program = lpml.Program("p")
    with program.group("node", restart=lpml.Restart.on_failure(3, backoff=0.01)):
        program.add_node(lpml.Node(Inside))
    run = start(program)
    pid = run.client("node/0").fill(1 << 29)
    forkserver_of(run).kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(60.0)
    assert gone(pid)


def test_a_stopped_forkserver_does_not_keep_a_run_from_ending(start: Launch) -> None:
    run = start(program_of(lpml.Node(Hangs, "masked")), stop_timeout=0.5)
    pid = wait_for_state(run, "S")
    forkserver_of(run).suspend()
    assert run.stop("enough").state == "stopped"
    assert gone(pid)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # jax, if another test imported it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fork_of_the_launcher_does_not_keep_its_run_alive(start: Launch) -> None:
    run = start(program_of(lpml.Node(Inside)))
    pids = [run.client("node/0").pid(), forkserver_of(run).pid]
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        assert run.stop().reason == "it was stopped"  # nobody had to be killed
        assert all(gone(pid) for pid in pids)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def warm_forkserver() -> psutil.Process:
    """The child that is one; it has no command line yet while the system executes it."""

    def found() -> list[psutil.Process]:
        return [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]

    assert until(lambda: bool(found()))
    (server,) = found()
    return server


def test_a_forkserver_that_dies_before_it_forks_fails_the_run(start: Launch) -> None:
    processes.warm()
    server = warm_forkserver()
    server.suspend()
    run = start(program_of(lpml.Node(Inside)))
    server.kill()
    with pytest.raises(lpml.NodeError, match="forkserver"):
        run.wait(60.0)


def test_the_pid_of_a_node_that_answers_is_known_even_if_its_parent_has_not_said_it_yet(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, unsaid = take([]), list[dict[str, Any]]()
    read = server.inbox.read

    def late() -> list[dict[str, Any]]:
        unsaid.extend(read())
        if all(message["what"] == "forked" for message in unsaid):
            return []
        said, unsaid[:] = list(unsaid), []
        return said

    monkeypatch.setattr(server.inbox, "read", late)
    monkeypatch.setattr("lpml.launchers.processes.take", lambda modules: server)
    with start(program_of(lpml.Node(Inside))) as run:
        assert run.client("node/0").pid() == run.status().nodes[0].pid


def test_a_node_that_is_killed_before_its_pid_is_known_is_killed_alone(start: Launch) -> None:
    processes.warm()
    server = warm_forkserver()
    server.suspend()
    with start(program_of(lpml.Node(Inside), lpml.Node(Inside)), stop_timeout=0.2) as run:
        run.scale("node", 1)
        assert until(lambda: not run._supervisor.leaving)  # the kill resumes the forkserver
        assert run.client("node/0").pid() == run.status().nodes[0].pid


def test_a_warm_forkserver_that_is_not_used_is_ended() -> None:
    processes.warm(["json"])
    processes.warm()
    child = warm_forkserver()
    cool()
    assert gone(child.pid)
