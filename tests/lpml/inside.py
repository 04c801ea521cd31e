"""Services that look at their own process, or hang in it, for tests of processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import psutil

import lpml
from lpml.launchers import Run
from tests.waiting import until


def program_of(*nodes: lpml.Node[..., Any], **resources: Any) -> lpml.Program:
    program = lpml.Program("tested")
    with program.group("node", resources=lpml.Resources(**resources)):
        for node in nodes:
            program.add_node(node, label="node")
    return program


class Inside:
    """Looks at its own process."""

    def pid(self) -> int:
        return os.getpid()

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def descriptors(self) -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:  # the one that listed the folder
                continue
        return found

    def place(self) -> tuple[str, list[str], list[str]]:
        return os.getcwd(), sys.path, sys.argv

    def random(self) -> float:
        import numpy as np

        return float(np.random.rand())

    def threads_of_blas(self) -> int:
        import numpy as np
        import threadpoolctl

        np.dot(np.ones((4, 4)), np.ones((4, 4)))
        pools = threadpoolctl.threadpool_info()
        return max((pool["num_threads"] for pool in pools), default=0)

    def platform_of_jax(self) -> tuple[str, str]:
        import jax

        return jax.devices()[0].platform, str(jax.config.values["jax_numpy_dtype_promotion"])

    def spawn(self) -> tuple[int, int]:
        """A child, and one that has left this session and this parent."""
        child = subprocess.Popen(["sleep", "100"], stdout=subprocess.DEVNULL)
        orphan = subprocess.check_output(["sh", "-c", "setsid sleep 101 >&- 2>&- & echo $!"])
        return child.pid, int(orphan)

    def fill(self, size: int) -> int:
        """Takes so many bytes of memory, which the kernel needs time to take back."""
        self.memory = b"x" * size
        return os.getpid()

    def die(self, number: int) -> None:
        os.kill(os.getpid(), number)
        lpml.context().clock.wait(60.0)  # another thread may be the one that takes the signal


class Hangs:
    """Hangs where Python cannot be reached, from when its log says so."""

    def __init__(self, how: str) -> None:
        self._how = how

    def run(self) -> None:
        if self._how == "masked":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        print("hangs")
        if self._how == "foreign":
            lock = ctypes.create_string_buffer(64)
            for _ in range(2):  # the second waits for the first, and keeps the interpreter's lock
                ctypes.PyDLL(None).pthread_mutex_lock(lock)
        if self._how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait(1000.0)


def wait_for_state(run: Run, state: str) -> int:
    """The pid of the first node, once it hangs and its process is in this state."""
    words = {"T": psutil.STATUS_STOPPED, "S": psutil.STATUS_SLEEPING}
    assert until(lambda: "hangs" in run.folder.log_file("node/0").read_text())
    assert until(lambda: run._describe({}).nodes[0].state == "running")
    pid = run._describe({}).nodes[0].pid
    assert until(lambda: psutil.Process(pid).status() == words[state])
    return pid
