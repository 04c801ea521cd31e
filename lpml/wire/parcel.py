"""Packs pickled values into messages and unpacks them, with or without shared memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, final

from lpml.errors import ProtocolError
from lpml.wire import frames, memory
from lpml.wire.carried import Carried
from lpml.wire.codec import Encoded, decode
from lpml.wire.frames import HEADER, Payload
from lpml.wire.memory import File
from lpml.wire.messages import (
    INLINE,
    PRIVATE,
    TOLD,
    VIEWED,
    WHOLE,
    Table,
    end_of,
    inline_offsets,
    offsets,
    read_table,
)
from lpml.wire.parts import Parts
from lpml.wire.references import Announced, Reference
from lpml.wire.segments import LARGE, Receiver, Sender
from lpml.wire.shared import Shared, content, received, received_whole

Head: TypeAlias = "tuple[int, int, int, int, float]"
"""kind, flags, extra, id, seconds left"""


class Packed(NamedTuple):
    """A message that is ready to be sent, and the files whose descriptors go with it."""

    data: bytes | memoryview | Parts
    files: tuple[File, ...]
    segment: int = 0


class Published(NamedTuple):
    """A value in a file of its own, to be sent to several peers; each gets a private copy."""

    table: bytes
    files: tuple[File, ...]


def pack(
    head: Head,
    name: bytes,
    value: bytes | Encoded | Published,
    sender: Sender | None,
    announced: Announced | None = None,
) -> bytes | Packed:
    """One message; just bytes where no files go with it.

    Args:
      head: kind, flags, extra, id, seconds left.
      name: of the method, before the body; else empty.
      value: is copied, so its memory may change afterwards; but a long message without shared
        memory (`Parts`) refers to its large buffers.
      sender: the segments of the connection; `None` = no descriptor can travel over it.
      announced: where none can, what the peer is told of and will fetch; `None` = it will not.
    """
    kind, flags, extra, call, seconds = head
    if type(value) is bytes:
        size = len(name) + len(value)
        if size < LARGE:
            return HEADER.pack(size, kind, flags, extra, call, seconds) + name + value
        value = Encoded(value, [], [])
    flags |= frames.TABLE
    assert not isinstance(value, bytes)
    if sender is None:
        return _whole((kind, flags, extra, call, seconds), name, value, announced)
    if isinstance(value, Published):
        payload = name + value.table
        return Packed(
            frames.header(len(payload), kind, flags, extra, call, seconds) + payload, value.files
        )
    body, buffers, shared = value
    pieces = [memoryview(body), *buffers]
    entries, shared_files = _entries(shared)
    lengths = [piece.nbytes for piece in pieces]
    if not memory.supported or sum(lengths) < LARGE:
        table = Table(INLINE, False, 0, 0, lengths, entries)
        data = _inline((kind, flags, extra, call, seconds), name, table, pieces)
        return Packed(data, shared_files) if shared_files or isinstance(data, Parts) else data
    placed, files = sender.place(pieces)
    payload = name + placed._replace(shared=entries).pack()
    return Packed(
        frames.header(len(payload), kind, flags, extra, call, seconds) + payload,
        files + shared_files,
        placed.segment,
    )


def _whole(
    head: Head, name: bytes, value: Encoded | Published, announced: Announced | None
) -> bytes | Packed:
    """A message that refers to nothing outside of it but what is announced."""
    place = WHOLE
    if isinstance(value, Published):
        table, _ = read_table(value.table, 0)
        view = memoryview(memory.map_readonly(value.files[0], table.capacity))
        where = zip(offsets(table.lengths), table.lengths, strict=True)
        pieces = [view[at : at + length] for at, length in where]
        entries = list(table.shared)
        contents = [content(f, s) for f, (_, s) in zip(value.files[1:], entries, strict=True)]
    else:
        pieces = [memoryview(value.body), *value.buffers]
        entries, files = _entries(value.shared)
        if announced is not None and entries:
            announced.keep(value.shared)
            place, files = TOLD, ()
        contents = [content(file, size) for file, (_, size) in zip(files, entries, strict=False)]
    lengths = [piece.nbytes for piece in pieces]
    table = Table(place, False, 0, 0, lengths, entries)
    lent = isinstance(value, Encoded)
    data = _inline(head, name, table, pieces, contents, lent)
    return Packed(data, ()) if isinstance(data, Parts) else data


def _inline(
    head: Head,
    name: bytes,
    table: Table,
    pieces: Sequence[memoryview],
    contents: Sequence[memoryview] = (),
    lent: bool = True,
) -> bytes | Parts:
    """A message that has its pieces behind its table, and `contents` behind them.

    Args:
      lent: whether the memory of the pieces may be changed by others.
    """
    before = name + table.pack()
    every = (*pieces, *contents)
    where, end = inline_offsets(len(before), [piece.nbytes for piece in every])
    parts: list[tuple[bytes | memoryview, bool]] = []
    small: list[bytes | memoryview] = [frames.beginning(end, head), before]
    at = len(before)
    for index, (start, piece) in enumerate(zip(where, every, strict=True)):
        small.append(bytes(start - at))
        if end <= frames.SHORT or piece.nbytes < VIEWED:
            small.append(piece)
        else:
            parts += ((b"".join(small), False), (piece, lent and 0 < index < len(pieces)))
            small.clear()
        at = start + piece.nbytes
    last = b"".join(small)
    return Parts([*parts, (last, False)]) if parts else last


def publish(value: bytes | Encoded) -> bytes | Encoded | Published:
    """Prepares a value for several peers: a large one is written once, into a file."""
    body, buffers, shared = (value, [], []) if isinstance(value, bytes) else value
    pieces = [memoryview(body), *buffers]
    lengths = [piece.nbytes for piece in pieces]
    if not memory.supported or sum(lengths) < LARGE:
        return value
    file = memory.create(end_of(lengths))
    memory.write(file, zip(offsets(lengths), pieces, strict=True))
    memory.seal(file, content=True)
    entries, shared_files = _entries(shared)
    table = Table(PRIVATE, True, 0, end_of(lengths), lengths, entries)
    return Published(table.pack(), (file, *shared_files))


def _entries(
    shared: Sequence[Carried],
) -> tuple[list[tuple[bytes, int]], tuple[File, ...]]:
    return [(each.id, each.nbytes) for each in shared], tuple(each.file for each in shared)


@final
class Content:
    """A value that arrived and is not yet unpickled; holds what its bytes are in."""

    __slots__ = ("_pieces", "_shared", "_told")

    def __init__(
        self,
        pieces: Sequence[memoryview],
        shared: Sequence[Carried],
        told: Sequence[Reference] = (),
    ) -> None:
        self._pieces = pieces
        self._shared = shared  # found by their ids while the value is unpickled
        self._told = told

    def value(self) -> Any:
        """The value. Raises whatever unpickling and fetching raise."""
        if self._told:
            self._shared = [reference.fetch() for reference in self._told]
            self._told = ()
        return decode(self._pieces[0], buffers=self._pieces[1:])


def open_message(payload: Payload, start: int, receiver: Receiver) -> Content:
    """What a payload with a table holds. To be called in the order of arrival.

    Args:
      start: where the table begins.

    Raises:
      ProtocolError: the table is wrong or its memory is not there.
    """
    table, at = read_table(payload, start)
    if table.place in (INLINE, WHOLE, TOLD):
        where, at = inline_offsets(at, table.lengths)
        pieces = _inside(memoryview(payload), where, table.lengths)
    else:
        pieces = receiver.find(table)
    if table.place == TOLD:
        return Content(pieces, (), [receiver.told(identity) for identity, _ in table.shared])
    shared: list[Shared[Any]] = []
    for identity, size in table.shared:
        if table.place == WHOLE:
            (start,), at = inline_offsets(at, (size,))
            shared.append(received_whole(identity, memoryview(payload)[start:at]))
        else:
            shared.append(received(identity, receiver.next_file(), size))
    if shared:
        receiver.last = shared[-1]
    return Content(pieces, shared)


def _inside(payload: memoryview, where: Sequence[int], lengths: Sequence[int]) -> list[memoryview]:
    """The body and the buffers of a message that has them inline."""
    found = []
    for index, (at, length) in enumerate(zip(where, lengths, strict=True)):
        piece = payload[at : at + length]
        if index and (payload.readonly or length < VIEWED):
            # A copy, so that arrays are writable and a small one does not keep a large message.
            piece = memoryview(bytearray(piece))
        found.append(piece)
    return found


def opened(flags: int, payload: Payload, start: int, receiver: Receiver) -> Payload | Content:
    """The payload of a message, with what it refers to where it has a table."""
    if flags & frames.TABLE:
        if start > len(payload):
            raise ProtocolError("a message ends before its table")
        return open_message(payload, start, receiver)
    return payload


def unpack(payload: Payload | Content, start: int = 0) -> Any:
    """The value of a payload that `opened` returned. Raises whatever unpickling raises."""
    if isinstance(payload, Content):
        return payload.value()
    return decode(memoryview(payload)[start:] if start else payload)
