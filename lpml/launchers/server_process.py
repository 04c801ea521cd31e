"""The launcher's end of a forkserver: started early, handed on to the next run."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, final

from lpml.errors import LaunchError
from lpml.launchers import pipes, system
from lpml.launchers.forkserver import preloads

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_PATH = "LPML_FORKSERVER_PATH"
_BOOT = (
    f"import json, os, sys; sys.path[:] = json.loads(os.environ.pop('{_PATH}')); "
    "from lpml.launchers import forkserver; "
    "forkserver.main(int(sys.argv[1]), int(sys.argv[2]))"
)


@final
class ServerProcess:
    """One forkserver. `send` may be called from any thread."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        ours, theirs = socket.socketpair()
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), _PATH: json.dumps(_path())}
        try:
            self.process = subprocess.Popen(
                [sys.executable, *_flags(), "-c", _BOOT, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C on the terminal is for the launcher
            )
        except OSError as error:
            ours.close()
            self._errors.close()
            raise LaunchError(
                f"no process can be started ({error.strerror}); "
                "end something, or raise the limits of `ulimit -u` and `ulimit -n`"
            ) from error
        finally:
            theirs.close()
        self.socket = ours
        self._sending = threading.Lock()
        self.inbox = pipes.Inbox(ours)
        self.preload(modules)

    def preload(self, modules: Sequence[str]) -> None:
        """Imports these, as far as they survive a fork, before the next node is forked."""
        self.send({"what": "preload", "path": _path(), "modules": preloads(list(modules))})

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Sends a message; one that cannot arrive is lost, and `inbox.ended` will say so."""
        with self._sending, contextlib.suppress(OSError):
            pipes.send(self.socket, message, fds)

    def rouse(self) -> None:
        """One that was stopped by a signal can be told again."""
        system.kill(self.process.pid, signal.SIGCONT)

    @property
    def last_words(self) -> str:
        """The end of what it printed, for an error message."""
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, self._errors.tell() - 2000))
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def close(self, timeout: float = 5.0) -> bool:
        """Ends it and everything below it.

        Returns:
          Whether it could see to that itself; if not, something may be left.
        """
        with contextlib.suppress(OSError):  # closing is not enough where a fork has a copy
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()
        return self.process.returncode == 0

    def discard(self) -> None:
        """Ends one that has forked nothing, without waiting for its imports."""
        self.process.kill()
        self.close()


def _path() -> list[str]:
    """The launcher's `sys.path`, with lpml on it and without relative entries."""
    root = str(Path(__file__).absolute().parents[2])
    entries = [str(Path(entry).absolute()) for entry in sys.path]
    return entries if root in entries else [*entries, root]


def _flags() -> list[str]:
    """The interpreter's own options, such as -X and -W, so that nodes behave as it does."""
    return list(subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]


_lock = threading.Lock()
_warm: list[ServerProcess] = []  # at most one, for the next run


def warm(hints: Iterable[str] = ()) -> None:
    """Starts a forkserver for the next run on processes, which imports `hints` meanwhile.

    Returns at once. Useful before slow imports of one's own.

    Args:
      hints: modules that the program will need, such as `jax`; those that may not be imported
        before a fork are skipped.

    Raises:
      LaunchError: no process can be started.
    """
    with _lock:
        if not _warm:
            _warm.append(ServerProcess(list(hints)))
        else:
            _warm[0].preload(list(hints))


def take(modules: Sequence[str]) -> ServerProcess:
    """A forkserver for a run that needs `modules`: the warm one, or a new one."""
    with _lock:
        server = _warm.pop() if _warm else None
    if server is not None and server.process.poll() is None:
        server.preload(modules)
        return server
    if server is not None:
        server.close()
    return ServerProcess(modules)


@atexit.register
def cool() -> None:
    """Ends a forkserver that `warm` started and no run took."""
    with _lock:
        servers, _warm[:] = list(_warm), []
    for server in servers:
        server.discard()
