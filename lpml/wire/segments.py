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
from lpml.wire.book import Book
from lpml.wire.memory import File
from lpml.wire.messages import PRIVATE, Table, end_of, offsets
from lpml.wire.references import Reference
from lpml.wire.shared import Shared as Shared

LARGE = 1 << 18
"""Bytes from which on a message goes through shared memory."""
_HEAD = 4096
"""Bytes of a segment before what was reserved: room for the body of the message."""
_MAPPED = 256  # mappings that arrays may hold at one time, per connection; others are copied


_booking = threading.RLock()  # `Book.kept` is of all pools; the garbage collector may close one


def _after_fork() -> None:
    global _booking
    _booking = threading.RLock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


@final
class _Reservation:
    """A segment of which a part was handed out, to be filled and then sent."""

    __slots__ = ("address", "done", "file", "holder", "returned", "segment")

    def __init__(self, segment: int, address: int, file: File | None) -> None:
        self.segment = segment
        self.address = address
        self.file = file  # if the receiver does not have it yet
        self.holder: Callable[[], object] = lambda: None  # what our arrays in it hold
        self.returned = False  # by the receiver
        self.done = False  # given back to the book


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
        self._reserved: dict[int, _Reservation] = {}  # {address: not sent yet}
        self._kept: dict[int, _Reservation] = {}  # {segment: sent}
        self._gone: deque[_Reservation] = deque()  # those in which no array of ours is any more

    def place(self, pieces: list[memoryview]) -> tuple[Table, tuple[File, ...]]:
        """Copies pieces into a segment: its table, and the file to be sent if it is new.

        Raises:
          LaunchError: there is no memory.
        """
        lengths = [piece.nbytes for piece in pieces]
        if self._reserved and len(pieces) == 2 and lengths[0] <= _HEAD:
            placed = self._find_reserved(*pieces)
            if placed is not None:
                return placed
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

    def reserve(self, size: int) -> memoryview:
        """Memory in a segment, to be filled and then placed as the only buffer of a message.

        If it never is, the segment is used again when nothing refers to the memory any more.

        Raises:
          LaunchError: there is no memory.
        """
        self._collect()
        with _booking:
            segment, new = self._book.take(_HEAD + size)
            capacity = self._book.capacity[segment]
        try:
            file: File | None = None
            if segment not in self._maps:
                file = memory.create(capacity) if new else self._files.pop(segment)
                if new:
                    memory.seal(file, content=False)
                self._maps[segment] = memory.map_shared(file, capacity)
            import ctypes  # not needed by those who send little

            holder = (ctypes.c_char * capacity).from_buffer(self._maps[segment])
        except BaseException:
            self.lose(segment)
            raise
        address = ctypes.addressof(holder) + _HEAD
        reservation = _Reservation(segment, address, file if new else None)
        gone = self._gone
        reservation.holder = weakref.ref(holder, lambda _: gone.append(reservation))
        self._reserved[address] = reservation
        return memoryview(holder).cast("B")[_HEAD : _HEAD + size]

    def _find_reserved(
        self, body: memoryview, buffer: memoryview
    ) -> tuple[Table, tuple[File, ...]] | None:
        """The table of a message whose only buffer lies where it was reserved."""
        if buffer.readonly or not buffer.nbytes:
            return None
        import ctypes

        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        reservation = self._reserved.pop(address, None)
        if reservation is None:
            return None
        segment, file, reservation.file = reservation.segment, reservation.file, None
        self._kept[segment] = reservation
        self._maps[segment][: body.nbytes] = body  # what follows it there is not looked at
        lengths = [_HEAD, buffer.nbytes]
        table = Table(1, file is not None, segment, self._book.capacity[segment], lengths)
        return table, () if file is None else (file,)

    def _collect(self) -> None:
        """Takes back reserved segments in which no array of ours is any more."""
        while self._gone:
            reservation = self._gone.popleft()
            if self._reserved.get(reservation.address) is reservation:
                del self._reserved[reservation.address]
                if reservation.file is None:
                    self._free(reservation.segment)
                else:
                    self.lose(reservation.segment)  # the receiver has never heard of it
                continue
            with _booking:
                ours = reservation.returned and not reservation.done
                reservation.done = reservation.done or ours
            if ours:
                self._free(reservation.segment)

    def given_back(self, segment: int) -> None:
        """The receiver released a segment."""
        reservation = self._kept.pop(segment, None)
        if reservation is not None:
            with _booking:
                reservation.returned = True
                if reservation.holder() is not None or reservation.done:
                    return  # whoever made the result keeps it: see `_collect`
                reservation.done = True
        self._free(segment)

    def _free(self, segment: int) -> None:
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
        self._reserved.clear()
        self._kept.clear()


@final
class Receiver:
    """The segments in which the other side sends. Used by one thread at a time.

    Args:
      release: called with the id of a segment when no array is in it any more, by whatever
        thread or garbage collection that happens in; must not take a lock.
      told: what becomes of the id of a `Shared` value that is not sent; `None` = an error.
    """

    def __init__(
        self,
        release: Callable[[int], None],
        told: Callable[[bytes], Reference] | None = None,
    ) -> None:
        self._release = release
        self._told = told
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

    def told(self, identity: bytes) -> Reference:
        """A `Shared` value that was not sent.

        Raises:
          ProtocolError: we have not said that we would fetch any.
        """
        if self._told is None:
            raise ProtocolError("a message refers to a value that this process cannot fetch")
        return self._told(identity)

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
