"""Waits for sockets: epoll, or poll where there is none."""

from __future__ import annotations

import contextlib
import select
import sys
from collections.abc import Callable
from typing import final

from lpml.wire.waker import Waker


@final
class Poller:
    """Level-triggered readiness of many descriptors, and a way to wake who waits."""

    if sys.platform == "linux":
        IN, OUT = select.EPOLLIN, select.EPOLLOUT
    else:
        IN, OUT = select.POLLIN, select.POLLOUT

    def __init__(self) -> None:
        if sys.platform == "linux":
            self._poll = select.epoll()
        else:
            self._poll = select.poll()
        self._waker = Waker()
        # makes `wait` return, now or the next time
        self.wake = self._waker.wake
        self.register(self._waker.fileno())
        # `wait()` -> [(descriptor, events)] that are ready; waits for the first
        self.wait: Callable[[], list[tuple[int, int]]] = self._poll.poll

    def register(self, fd: int) -> None:
        """Watches a descriptor for input."""
        self._poll.register(fd, self.IN)

    def modify(self, fd: int, mask: int) -> None:
        """Watches it for what `mask` says."""
        self._poll.modify(fd, mask)
        if sys.platform != "linux":
            self.wake()  # poll() in another thread looks at the old list

    def unregister(self, fd: int) -> None:
        """Watches it no more."""
        with contextlib.suppress(OSError, KeyError):
            self._poll.unregister(fd)

    def woken(self, fd: int) -> bool:
        """Whether `fd` is that of `wake`, which is then read."""
        if fd != self._waker.fileno():
            return False
        self._waker.clear()
        return True

    def close(self) -> None:
        if sys.platform == "linux":
            self._poll.close()
        self._waker.close()
