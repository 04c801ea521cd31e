"""Warm processes: one server per run that has imported much, started nothing, and forks nodes.

The server is a fresh interpreter in a session of its own, so a Ctrl-C on the terminal does not
reach it. It imports what is known to survive a fork and stays single-threaded. It adopts the
orphans of its nodes, and when its socket to the launcher closes, however the launcher ended, it
kills everything below it, removes the socket folder and ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from typing import Any, final

from lpml.launchers import pipes, system

FORK_SAFE = frozenset(
    {
        *("cloudpickle", "numpy", "scipy", "sklearn", "pandas", "jax", "jaxlib", "haiku", "optax"),
        *("chex", "flax", "rlax", "distrax", "jmp", "ml_dtypes", "opt_einsum", "absl", "tree"),
        *("dm_env", "gymnasium", "lpml"),
    }
)
"""Packages that can be imported before a fork: they start no thread and open no device."""

_OURS = ("nodes", "programs", "agents", "compat")  # the parts of lpml that nodes are made of
_ALWAYS = ("lpml.launchers.worker",)
_LATE = {"jax": ["jaxlib.mlir.dialects.mhlo"]}  # what a package imports when it is first used


def preloads(modules: list[str]) -> list[str]:
    """The public ones of `modules` that may be imported before a fork."""
    return [name for name in modules if _may_be_imported(name.split("."))]


def _may_be_imported(parts: list[str]) -> bool:
    if parts[0] not in FORK_SAFE or any(part.startswith("_") for part in parts):
        return False
    return parts[0] != "lpml" or parts[1:2] == [] or parts[1] in _OURS


def main(fd: int, launcher: int) -> None:
    """Runs the server on the socket `fd` until the process `launcher` closes its end or dies."""
    system.adopt_orphans()
    _raise_limit()
    server = ForkServer(socket.socket(fileno=fd), launcher)
    try:
        child = server.serve()
    finally:
        if os.getpid() == server.pid:
            server.end()
    # Only a forked node gets here, with the server's frames gone from its stack.
    child()


@final
class _Closed(Exception):
    """The launcher is gone or has closed its end."""


@final
class ForkServer:
    """Forks on request and reports every death.

    Messages in: `preload` (modules, path), `sockets` (folder to remove), `fork` (key; descriptors:
    control, spec, listeners), `signal` (key, numbers). Out: `forked`, `refused`, `exited`.
    """

    def __init__(self, control: socket.socket, launcher: int) -> None:
        self.pid = os.getpid()
        self._control = control
        self._nodes: dict[int, str] = {}  # {pid: key}
        self._sockets = ""
        self._wake, self._wake_in = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_in.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        self._launcher_fd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._launcher_fd = os.pidfd_open(launcher)
        self._launcher = launcher

    def serve(self) -> Any:
        """Serves until the end. In a forked node, returns what the node has to run."""
        _preload(list(_ALWAYS))
        watched: list[Any] = [self._control, self._wake]
        if self._launcher_fd >= 0:
            watched.append(self._launcher_fd)
        limit = None if self._launcher_fd >= 0 else 1.0
        with contextlib.suppress(_Closed):
            while True:
                ready, _, _ = select.select(watched, [], [], limit)
                if self._launcher_fd in ready or os.getppid() != self._launcher:
                    break
                if self._wake in ready:
                    self._reap()
                if self._control in ready:
                    child = self._handle()
                    if child is not None:
                        return child
        return None

    def end(self) -> None:
        """Kills everything below, removes the socket folder, ends the process."""
        signal.set_wakeup_fd(-1)
        with contextlib.suppress(OSError):
            self._kill_all()
        if self._sockets:
            shutil.rmtree(self._sockets, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.rmdir(os.path.dirname(self._sockets))
        os._exit(0)

    def _kill_all(self) -> None:
        while True:
            for pid in list(self._nodes):
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            for pid in system.children():
                system.kill(pid, signal.SIGKILL)
            try:  # the children of whoever died are ours now, so this ends when none is left
                pid, _ = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            self._nodes.pop(pid, None)

    def _handle(self) -> Any:
        received = pipes.receive(self._control)
        if received is None:
            raise _Closed
        message, fds = received
        if message["what"] == "preload":
            sys.path[:] = message["path"]
            _preload(message["modules"])
        elif message["what"] == "sockets":
            self._sockets = message["folder"]
        elif message["what"] == "signal":
            self._signal(message["key"], message["numbers"])
        elif message["what"] == "fork":
            return self._fork(message["key"], fds)
        return None

    def _signal(self, key: str, numbers: list[int]) -> None:
        # By its key: who signals may not have heard of the pid yet. The next attempt, which has
        # the same, is forked when the launcher has heard of the end of this one.
        for pid in [pid for pid, known in self._nodes.items() if known == key]:
            for number in numbers:
                if number == signal.SIGKILL:
                    with contextlib.suppress(OSError):
                        os.killpg(pid, number)
                system.kill(pid, number)

    def _fork(self, key: str, fds: list[int]) -> Any:
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as error:
            for fd in fds:
                os.close(fd)
            why = f"it could not be forked ({error}); see `ulimit -u`"
            self._send({"what": "refused", "key": key, "why": why})
            return None
        if pid == 0:
            return self._become_node(fds)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        for fd in fds:
            os.close(fd)
        self._nodes[pid] = key
        self._send({"what": "forked", "key": key, "pid": pid})
        return None

    def _become_node(self, fds: list[int]) -> Any:
        system.die_with_parent()
        if os.getppid() != self.pid:  # it died in between
            os._exit(1)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        self._wake.close()
        self._wake_in.close()
        if self._launcher_fd >= 0:
            os.close(self._launcher_fd)

        from lpml.launchers import worker

        control, spec, *listeners = fds
        return lambda: worker.run_process(control, spec, listeners)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                pass
        while (found := self._dead()) is not None:
            pid, status, usage = found
            key = self._nodes.pop(pid, None)
            if key is not None:
                scale = 1 if sys.platform == "darwin" else 1024
                self._send(
                    {
                        "what": "exited",
                        "key": key,
                        "pid": pid,
                        "code": os.waitstatus_to_exitcode(status),
                        "at": time.monotonic(),
                        "peak": usage.ru_maxrss * scale,
                    }
                )

    def _dead(self) -> tuple[int, int, Any] | None:
        try:
            if sys.platform == "darwin":
                found = os.wait4(-1, os.WNOHANG)
                return found if found[0] else None
            dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead is None:
                return None
            # The group goes first: while its leader is not reaped its number is nobody else's.
            if dead.si_pid in self._nodes:
                with contextlib.suppress(OSError):
                    os.killpg(dead.si_pid, signal.SIGKILL)
            return os.wait4(dead.si_pid, 0)
        except ChildProcessError:
            return None

    def _send(self, message: dict[str, Any]) -> None:
        try:
            pipes.send(self._control, message)
        except OSError:
            raise _Closed from None


def _preload(modules: list[str]) -> None:
    for name in [each for module in modules for each in (module, *_LATE.get(module, ()))]:
        try:
            importlib.import_module(name)
        except Exception:  # the node that needs it will say what is wrong with it
            if name in _ALWAYS:
                traceback.print_exc()
                raise


def _raise_limit() -> None:
    """A node may have a connection to each of thousands of others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1 << 16 if hard == resource.RLIM_INFINITY else min(hard, 1 << 16)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
