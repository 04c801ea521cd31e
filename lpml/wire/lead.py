"""Who reads: of all that wait on one connection one leads, and the lead is handed on."""

from __future__ import annotations

import threading
from typing import final

from lpml.wire.futures import release


@final
class Lead:
    """The right to read a connection. One holds it; others follow, each with a latch.

    A follower joins before it tries to take the lead, and the leader wakes a follower after it
    gave the lead up; so whichever comes first, somebody who waits reads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[threading.Lock, None] = {}  # the longest waiting first
        self.take = self._lock.acquire
        """`take(False)`: takes the lead if it is free; says whether."""

    def give(self) -> None:
        """Gives the lead up, to a follower if there is one."""
        self._lock.release()
        if self._followers:
            self._wake_one()

    def take_or_join(self, latch: threading.Lock) -> bool:
        """Takes the lead if it is free; else follows: `latch` is released when it may be.

        Returns:
          Whether the lead was taken.
        """
        self._followers[latch] = None  # first: whoever gives the lead up now will see it
        if not self.take(False):
            return False
        self._followers.pop(latch, None)
        return True

    def leave(self, latch: threading.Lock) -> None:
        """Follows no more. If the lead was meant for this follower, it goes to another."""
        self._followers.pop(latch, None)
        if self._followers and not self._lock.locked():
            self._wake_one()

    def _wake_one(self) -> None:
        for latch in list(self._followers):
            self._followers.pop(latch, None)
            release(latch)
            return


def closed_latch() -> threading.Lock:
    """A lock that is held, to be waited for until somebody releases it."""
    latch = threading.Lock()
    latch.acquire()
    return latch
