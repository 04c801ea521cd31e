"""Long messages on their way out: sent part by part, so that they are not copied into one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import final

# Bytes of a copy: not less than a `TlsConnection` encrypts at once, and so few that it is memory
# which was just given back.
_STEP = 1 << 20


@final
class Parts:
    """What is left to be sent of a long message. Not thread-safe.

    Args:
      parts: each with whether it is lent: memory that its owner may change later.
    """

    __slots__ = ("_kept", "_left", "_rest", "lent")

    def __init__(self, parts: Iterable[tuple[bytes | memoryview, bool]]) -> None:
        self._kept: deque[memoryview] = deque()  # sent before the rest
        self._rest = deque([(memoryview(part), lent) for part, lent in parts])
        self._left = sum(len(part) for part, _ in self._rest)
        self.lent = sum(len(part) for part, lent in self._rest if lent)
        """Bytes left that are lent."""

    def __len__(self) -> int:
        return self._left

    def __bytes__(self) -> bytes:
        return b"".join([*self._kept, *(part for part, _ in self._rest)])

    def send(self, send: Callable[[memoryview], int]) -> None:
        """Sends all of it.

        Raises:
          BlockingIOError: as `send` does; what is left then is to be sent next.
        """
        while self._left:
            if self._kept:
                part, lent = self._kept[0], False
            else:
                part, lent = self._rest[0]
            sent = send(part)
            self._left -= sent
            self.lent -= sent * lent
            if self._kept:
                if sent < len(part):
                    self._kept[0] = part[sent:]
                else:
                    self._kept.popleft()
            elif sent < len(part):
                self._rest[0] = part[sent:], lent
            else:
                self._rest.popleft()

    def keep(self, most: int) -> None:
        """Copies about `most` bytes of what is lent, those that are sent first."""
        while most > 0 and self.lent:
            part, lent = self._rest.popleft()
            if lent:
                if len(part) > _STEP:
                    self._rest.appendleft((part[_STEP:], lent))
                part = memoryview(bytes(part[:_STEP]))
                self.lent -= len(part)
                most -= len(part)
            self._kept.append(part)
