"""Wakes a thread that waits for sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import final


@final
class Waker:
    """Readable once it was woken, until it is cleared; to be watched like a socket."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)
        self._lock = threading.Lock()
        self._closed = False

    def fileno(self) -> int:
        """What to watch for input."""
        return self._out.fileno()

    def wake(self) -> None:
        """From any thread; does nothing once it is closed."""
        with self._lock, contextlib.suppress(OSError):  # full: it is awake
            if not self._closed:
                self._in.send(b"w")

    def clear(self) -> None:
        """Sleeps again, until the next `wake`."""
        with contextlib.suppress(BlockingIOError):
            self._out.recv(4096)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._in.close()
        self._out.close()
