"""Packs pickled values into frames and unpacks them, with or without shared memory."""

from __future__ import annotations

from typing import Any, NamedTuple

from lpml.wire import frames
from lpml.wire.codec import Encoded, decode
from lpml.wire.frames import CHUNK, Payload
from lpml.wire.messages import INLINE, Table, read_table


class Packed(NamedTuple):
    """Bytes that are ready to be sent, and the files that go with them."""

    data: bytes | memoryview
    files: tuple[Any, ...] = ()


def pack(
    head: tuple[int, int, int, int, float], name: bytes, encoded: Encoded, memory: Any = None
) -> Packed:
    """One message.

    Args:
      head: kind, flags, extra, id, seconds left.
      name: of the method, before the body; else empty.
      encoded: the value; copied, so its memory may change afterwards.
    """
    body, buffers, _ = encoded
    if not buffers and len(body) + len(name) <= CHUNK:
        kind, flags, extra, call, seconds = head
        size = len(name) + len(body)
        return Packed(frames.HEADER.pack(size, kind, flags, extra, call, seconds) + name + body)
    kind, flags, extra, call, seconds = head
    lengths = [len(body), *(buffer.nbytes for buffer in buffers)]
    table = Table(INLINE, False, 0, 0, lengths).pack()
    pieces = [memoryview(name), memoryview(table), memoryview(body), *buffers]
    return Packed(
        b"".join(frames.chunked((kind, flags | frames.TABLE, extra, call, seconds), pieces))  # type: ignore[arg-type]
    )


def unpack(flags: int, payload: Payload, start: int, memory: Any = None) -> Any:
    """The value in a payload, from `start` on.

    Raises:
      ProtocolError: the table is wrong.
      Exception: whatever unpickling raises.
    """
    if not flags & frames.TABLE:
        return decode(memoryview(payload)[start:] if start else payload)
    table, at = read_table(payload, start)
    view = memoryview(payload)
    pieces = []
    for length in table.lengths:
        pieces.append(view[at : at + length])
        at += length
    return decode(pieces[0], buffers=[bytearray(piece) for piece in pieces[1:]])
