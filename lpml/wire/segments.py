"""The pool of shared-memory segments, seen by its sender and by its receiver."""

from __future__ import annotations

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, final

from lpml.errors import ProtocolError
from lpml.wire import memory
from lpml.wire.memory import File
from lpml.wire.messages import PRIVATE, Table, end_of, offsets
from lpml.wire.shared import Shared as Shared

LARGE = 1 << 18
"""Bytes from which on a message goes through shared memory."""
_KEPT = 1 << 30  # bytes of free segments that this process keeps for reuse, in all pools
_KEPT_ALONE = 4 << 30  # size of a segment that is kept where there is no other
_MAPPED = 256  # mappings that arrays may hold at one time, per connection; others are copied


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


_booking = threading.RLock()  # `Book.kept` is of all pools; the garbage collector may close one


def _after_fork() -> None:
    global _booking
    _booking = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


@final
class Sender:
    """The segments in which one side of a connection sends. Thread-safe.

    Args:
      forget: called with the id of a segment that the receiver may unmap.
    """

    def __init__(self, forget: Callable[[int], None]) -> None:
        self._forget = forget
        self._book = Book()
        self._files: dict[int, File] = {}  # of segments that were used once
        self._maps: dict[int, mmap.mmap] = {}  # of segments that were used again

    def place(self, pieces: list[memoryview]) -> tuple[Table, tuple[File, ...]]:
        """Copies pieces into a segment: its table, and the file to be sent if it is new.

        Raises:
          LaunchError: there is no memory.
        """
        lengths = [piece.nbytes for piece in pieces]
        where = list(zip(offsets(lengths), pieces, strict=True))
        with _booking:
            segment, new = self._book.take(end_of(lengths))
            capacity = self._book.capacity[segment]
        files: tuple[File, ...] = ()
        try:
            if new:
                file = memory.create(capacity)
                memory.seal(file, content=False)
                memory.write(file, where)
                self._files[segment] = file
                files = (file,)
            else:
                mapped = self._maps.get(segment)
                if mapped is None:
                    file = self._files.pop(segment)
                    mapped = self._maps[segment] = memory.map_shared(file, capacity)
                memory.fill(mapped, where)
        except BaseException:
            self.lose(segment)
            raise
        return Table(1, new, segment, capacity, lengths), files

    def given_back(self, segment: int) -> None:
        """The receiver released a segment."""
        with _booking:
            dropped = self._book.give_back(segment)
        for old in dropped:
            self._drop(old)
            self._forget(old)

    def lose(self, segment: int) -> None:
        """The message of a segment could not be sent."""
        with _booking:
            self._book.lose(segment)
        self._drop(segment)

    def _drop(self, segment: int) -> None:
        self._files.pop(segment, None)
        self._maps.pop(segment, None)

    def close(self) -> None:
        """The connection is gone; what was lent stays with who has it."""
        with _booking:
            self._book.close()
        self._files.clear()
        self._maps.clear()


@final
class Receiver:
    """The segments in which the other side sends. Used by one thread at a time.

    Args:
      release: called with the id of a segment when no array is in it any more, by whatever
        thread or garbage collection that happens in; must not take a lock.
    """

    def __init__(self, release: Callable[[int], None]) -> None:
        self._release = release
        self._maps: dict[int, mmap.mmap] = {}
        self._live: dict[int, weakref.ref[object]] = {}  # {segment: what its arrays hold}
        self.files: deque[File] = deque()  # arrived and not yet asked for
        self.last: Shared[Any] | None = None
        """The last `Shared` that came: who asks for it again and again maps it once."""

    def next_file(self) -> File:
        """The next descriptor that came.

        Raises:
          ProtocolError: there is none.
        """
        if not self.files:
            raise ProtocolError(
                "a message came without its file descriptors; is the limit of open files "
                "(ulimit -n) reached?"
            )
        return self.files.popleft()

    def find(self, table: Table) -> list[memoryview]:
        """The pieces of a message that lies in a segment.

        Raises:
          ProtocolError: there is no such segment.
        """
        if table.place == PRIVATE:
            return self._pieces(memory.map_private(self.next_file(), table.capacity), table)
        segment = table.segment
        if table.new:
            self._maps[segment] = memory.map_shared(self.next_file(), table.capacity)
        mapped = self._maps.get(segment)
        if mapped is None or len(mapped) < table.capacity or segment in self._live:
            raise ProtocolError(f"a message in segment {segment}, which is not ours to read")
        import ctypes  # not needed by those who send little

        holder = (ctypes.c_char * table.capacity).from_buffer(mapped)
        if len(self._live) >= _MAPPED:
            pieces = [memoryview(bytearray(p)) for p in self._pieces(holder, table)]
            self._release(segment)
            return pieces

        def gone(_: object) -> None:
            if self._live.pop(segment, None) is not None:
                self._release(segment)

        self._live[segment] = weakref.ref(holder, gone)
        return self._pieces(holder, table)

    def _pieces(self, holder: Any, table: Table) -> list[memoryview]:
        view = memoryview(holder).cast("B")
        starts = offsets(table.lengths)
        return [view[at : at + size] for at, size in zip(starts, table.lengths, strict=True)]

    def forget(self, segment: int) -> None:
        """The sender will not use a segment again."""
        self._maps.pop(segment, None)

    def close(self) -> None:
        """The connection is gone; arrays keep the memory they are in."""
        self._live.clear()
        self._maps.clear()
        self.files.clear()
        self.last = None
