"""The digits with a journal: servers that are killed cost time, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import lpml
from lpml.launchers import Run
from lpml.programs.supervised.parameter_server import program
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills processes")


def restarts(run: Run, name: str) -> int:
    return next(node.restarts for node in run._describe({}).nodes if node.name == name)


def strike(run: Run, name: str, kill: int) -> None:
    """Kills a node once more, and waits until that is known."""
    pid = next(node.pid for node in run.status().nodes if node.name == name)
    assert pid > 0
    os.kill(pid, signal.SIGKILL)
    assert until(lambda: restarts(run, name) == kill)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_servers", [1, 2])
@pytest.mark.parametrize("every", [None, 0.5])
def test_servers_that_are_killed_have_every_update_that_was_seen(
    tmp_path: Path, num_servers: int, every: float | None
) -> None:
    digits = program(updates=1500, journal=True, num_servers=num_servers)
    options = {"directory": tmp_path, "terminal": False, "checkpoint_every": every}
    with lpml.launch(digits, **options) as run:  # type: ignore[arg-type]
        for kill in range(1, 4):
            for name in [f"server/{index}" for index in range(num_servers)]:
                server = run.client(name)
                with lpml.deadline(60.0):
                    seen = server.pull(at_least=300 * kill).version
                    strike(run, name, kill)
                    assert server.pull().version >= seen
        outcome = run.wait(120.0)
        assert outcome.state == "finished"
        assert "after 1500 updates" in outcome.reason
        accuracy = float(outcome.reason.removeprefix("test accuracy ").partition("%")[0])
        assert accuracy > 96.0
        assert restarts(run, "worker/0") == restarts(run, "worker/1") == 0
