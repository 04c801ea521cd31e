"""A node that somebody has stopped by a signal: what it costs the others."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

import lpml
from tests.launching import Launch
from tests.lpml.vault import Account, Mover, Saver, all_run, nodes_of, pid_of
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(processes: Launch) -> Launch:
    """Launches a program on processes."""
    return processes


@pytest.mark.parametrize("victim", ["account/0", "saver/0", "mover/1"])
def test_a_stopped_node_delays_the_run_and_its_stop_and_no_more(start: Launch, victim: str) -> None:
    program = lpml.Program("stopped")
    giver, taker = (program.add_node(lpml.Node(Account), label="account") for _ in range(2))
    program.add_node(lpml.Node(Saver, giver), label="saver")
    for _ in range(2):
        program.add_node(lpml.Node(Mover, giver, taker), label="mover")
    with start(program, stop_timeout=5.0) as run:
        assert until(lambda: all_run(run))
        os.kill(pid_of(run, victim), signal.SIGSTOP)
        if victim == "account/0":
            with pytest.raises(lpml.CallTimeout), lpml.deadline(0.2):
                run.client(victim).parts()
        begin = time.monotonic()
        assert run.stop("enough").state == "stopped"
        assert time.monotonic() - begin < 20.0


def test_a_stopped_node_costs_its_callers_their_deadline_and_goes_on_when_it_may(
    start: Launch,
) -> None:
    program = lpml.Program("stopped")
    _, other = (program.add_node(lpml.Node(Account), label="account") for _ in range(2))
    program.add_node(lpml.Node(Saver, other), label="saver")
    with start(program) as run:
        assert until(lambda: all_run(run))
        stopped, going_on = run.client("account/0"), run.client("account/1")
        assert stopped.add_for("me", 1) == 1
        pid = pid_of(run, "account/0")
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(lpml.CallTimeout, match="account/0"), lpml.deadline(0.2):
            stopped.parts()
        counted = going_on.parts()["saver/0"]
        assert until(lambda: going_on.parts()["saver/0"] > counted + 10), "others do not wait"
        assert nodes_of(run)["account/0"].restarts == 0, "only a death is answered"
        os.kill(pid, signal.SIGCONT)
        assert stopped.add_for("me", 1) == 2
        assert pid_of(run, "account/0") == pid


def test_a_stopped_node_is_named_where_no_checkpoint_can_be_taken(
    start: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lpml.launchers import cuts

    program = lpml.Program("stopped")
    program.add_node(lpml.Node(Account), label="account")
    with start(program) as run:
        assert until(lambda: all_run(run))
        pid = pid_of(run, "account/0")
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as patch:
            patch.setattr(cuts, "PATIENCE", {**cuts.PATIENCE, "shut": 0.3})
            patch.setattr(cuts, "_SLACK", 0.2)
            with pytest.raises(lpml.LaunchError, match="account/0 did not answer"):
                run.checkpoint()
        os.kill(pid, signal.SIGCONT)
        assert run.client("account/0").add_for("me", 1) == 1  # its door is open again
        run.checkpoint()
