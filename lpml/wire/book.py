"""Who has which segment of a pool, and which are kept for reuse: decides, and does no I/O."""

from __future__ import annotations

from typing import final

from lpml.errors import ProtocolError

_KEPT = 1 << 30  # bytes of free segments that this process keeps for reuse, in all pools
_KEPT_ALONE = 4 << 30  # size of a segment that is kept where there is no other


@final
class Book:
    """Which segment of a pool is whose. Does no I/O; not thread-safe.

    A segment is free, or lent: the receiver has it until its arrays are gone.
    """

    kept = 0  # bytes of free segments in all books of this process

    def __init__(self) -> None:
        self.capacity: dict[int, int] = {}  # {id: bytes}
        self._free: dict[int, None] = {}  # the longest free first
        self._last = 0

    def take(self, size: int) -> tuple[int, bool]:
        """Lends a segment of at least `size` bytes: its id, and whether it is new."""
        fitting = [
            (self.capacity[segment], segment)
            for segment in self._free
            if size <= self.capacity[segment] <= 2 * size
        ]
        if fitting:
            capacity, segment = min(fitting)
            del self._free[segment]
            Book.kept -= capacity
            return segment, False
        self._last += 1
        self.capacity[self._last] = rounded(size)
        return self._last, True

    def give_back(self, segment: int) -> list[int]:
        """The receiver is done with a segment; the segments to be dropped for want of room.

        Raises:
          ProtocolError: it was not lent.
        """
        if segment not in self.capacity or segment in self._free:
            raise ProtocolError(f"segment {segment} was given back and had not been lent")
        self._free[segment] = None
        Book.kept += self.capacity[segment]
        dropped = []
        for old in list(self._free):
            alone = Book.kept == self.capacity[old] <= _KEPT_ALONE
            if Book.kept <= _KEPT or alone:
                break
            dropped.append(old)
            del self._free[old]
            Book.kept -= self.capacity.pop(old)
        return dropped

    def lose(self, segment: int) -> None:
        """A lent segment will never be given back."""
        self.capacity.pop(segment, None)

    def close(self) -> None:
        """The connection is gone."""
        for segment in self._free:
            Book.kept -= self.capacity[segment]
        self._free.clear()
        self.capacity.clear()


def rounded(size: int) -> int:
    """`size` up to a multiple of an eighth of a power of two, so that sizes recur."""
    step = max(4096, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step
