"""What strangers send to a run on processes, and who is let in."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lpml
from lpml.launchers.rendezvous import runs
from tests.launching import Launch
from tests.lpml.vault import Account, socket_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def start(processes: Launch) -> Launch:
    """Launches a program on processes."""
    return processes


def test_rubbish_harms_nobody_but_its_sender(start: Launch) -> None:
    program = lpml.Program("rubbish")
    program.add_node(lpml.Node(Account), label="account")
    dice = random.Random(4)
    with start(program) as run:
        client = run.client("account/0")
        assert client.add_for("me", 1) == 1
        control = next(each.control for each in runs() if each.run == run.folder.name)
        for path in [str(socket_of(run)), control.removeprefix("unix:")]:
            for size in (0, 1, 7, 24, 1000, 100_000):
                with socket.socket(socket.AF_UNIX) as peer:
                    peer.connect(path)
                    peer.settimeout(60)
                    try:
                        peer.sendall(dice.randbytes(size))
                        peer.shutdown(socket.SHUT_WR)
                        while peer.recv(65536):
                            pass
                    except ConnectionError:  # it has hung up on us
                        pass
        assert client.add_for("me", 1) == 2
        assert run.stop("enough").reason == "enough"


FOREIGNER = """
import os, socket, sys
os.setgroups([]), os.setgid(65534), os.setuid(65534)
with socket.socket(socket.AF_UNIX) as peer:
    try:
        peer.connect(sys.argv[1])
        peer.settimeout(10)
        print("closed" if peer.recv(1) == b"" else "answered")
    except PermissionError:
        print("denied")
    except ConnectionError:
        print("closed")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_by_the_folder_and_by_the_node(start: Launch) -> None:
    program = lpml.Program("foreign")
    program.add_node(lpml.Node(Account), label="account")

    def ask(path: Path) -> str:
        command = [sys.executable, "-S", "-c", FOREIGNER, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()

    with start(program) as run:
        assert run.client("account/0").add_for("me", 1) == 1
        path = socket_of(run)
        assert ask(path) == "denied"
        opened = [path, path.parent, path.parent.parent, path.parent.parent.parent]
        for place in opened[1:]:  # even if somebody opens the folder
            place.chmod(0o755)
        path.chmod(0o666)
        assert ask(path) == "closed"
        assert run.client("account/0").add_for("me", 1) == 2
        assert "refused a connection" in run.folder.log_file("account/0").read_text()
