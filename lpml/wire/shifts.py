"""Which of two threads is the loop of a server: the other takes over when a call lasts."""

from __future__ import annotations

import contextlib
import threading
from typing import final


@final
class Shifts:
    """The loop of a server, and the spare that watches it while it runs calls itself.

    A loop that waits for sockets need not be watched. One that runs calls comes round soon; if it
    has not within a tick, the spare becomes the loop, and who was it learns so when it asks.

    Args:
      tick: seconds.
    """

    def __init__(self, tick: float) -> None:
        self.closed = False
        self._tick = tick
        self._lock = threading.Lock()
        self._owner = 0  # the thread that is the loop
        self._rounds = 0
        self._executing = False  # the loop runs calls
        self._watched = False
        self._kick = threading.Lock()  # what the spare waits for
        self._kick.acquire()

    # For the loop.

    def begin(self) -> None:
        """This thread is the loop, if none was before."""
        with self._lock:
            if self._owner == 0:
                self._owner = threading.get_ident()

    def is_mine(self) -> bool:
        """Whether this thread is the loop."""
        return self._owner == threading.get_ident()

    def rest(self) -> bool:
        """From here on this thread runs no calls but reads sockets, if it still is the loop."""
        with self._lock:
            if self._owner != threading.get_ident():
                return False
            self._executing = False
            return True

    def come_round(self) -> None:
        """The loop has something else to do."""
        self._rounds += 1

    def work(self) -> None:
        """This thread runs calls from now on; wakes the spare."""
        self._executing = True
        if not self._watched:
            self._watched = True
            with contextlib.suppress(RuntimeError):
                self._kick.release()

    # For the spare.

    def watch(self) -> None:
        """Returns when the loop has been busy with one thing for a tick; then it is this thread."""
        while not self.closed:
            self._kick.acquire()  # nothing to watch until the loop says so
            while not self.closed:
                rounds = self._rounds
                self._kick.acquire(timeout=self._tick)
                if self._rounds != rounds:
                    continue
                with self._lock:
                    if self._executing and self._rounds == rounds:
                        self._owner = threading.get_ident()
                        self._watched = False  # who was the loop must be told to watch us
                        return
                self._watched = False
                if not self._executing:
                    break
                self._watched = True

    def close(self) -> bool:
        """Both are to end; says whether they were not before."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
        with contextlib.suppress(RuntimeError):
            self._kick.release()
        return True
