"""Messages with buffers: where the bytes of a pickled value go, and how they are found again.

A message whose flag `TABLE` is set begins (after a call's name) with a table: the place of the
data, the number of `Shared` values and of buffers, and the lengths. The data are the pickle body
and the buffers: inline, behind the table, or in a segment of shared memory at multiples of
`ALIGN`. The file descriptor of a new segment, then those of the `Shared` values, travel with the
frame. Between hosts no descriptor can travel, and the contents of the `Shared` values follow the
buffers, or stay where they are until they are fetched (`references`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from lpml.errors import ProtocolError
from lpml.wire.frames import Payload

ALIGN = 64
VIEWED = 1 << 16
"""Bytes from which on a piece that came inline is not copied out of its message."""
INLINE, POOLED, PRIVATE, WHOLE, TOLD = range(5)
# WHOLE: inline, and so are the `Shared` values. TOLD: inline, and the `Shared` values stay there.
_TABLE = struct.Struct("<BBHIIQ")  # place, new, shared values, buffers, segment, its capacity
_SHARED = struct.Struct("<16sQ")  # id, size


class Table(NamedTuple):
    """The table of a message."""

    place: int
    new: bool
    """The segment's descriptor travels with this message."""
    segment: int
    capacity: int
    lengths: Sequence[int]
    """Bytes of the body and of each buffer."""
    shared: Sequence[tuple[bytes, int]] = ()
    """Id and size of each `Shared` value."""

    def pack(self) -> bytes:
        count = len(self.lengths) - 1
        head = _TABLE.pack(
            self.place, self.new, len(self.shared), count, self.segment, self.capacity
        )
        lengths = struct.pack(f"<{count + 1}Q", *self.lengths)
        return head + lengths + b"".join(_SHARED.pack(*entry) for entry in self.shared)


def read_table(payload: Payload, at: int) -> tuple[Table, int]:
    """The table that begins at `at`, and where it ends.

    Raises:
      ProtocolError: it is cut off or says what cannot be.
    """
    try:
        place, new, num_shared, count, segment, capacity = _TABLE.unpack_from(payload, at)
        at += _TABLE.size
        lengths = struct.unpack_from(f"<{count + 1}Q", payload, at)
        at += 8 * (count + 1)
        shared = [_SHARED.unpack_from(payload, at + _SHARED.size * i) for i in range(num_shared)]
        at += _SHARED.size * num_shared
    except (struct.error, MemoryError, OverflowError) as error:
        raise ProtocolError(f"the table of a message is cut off: {error}") from None
    if place in (INLINE, WHOLE, TOLD):
        inside = (*lengths, *(size for _, size in shared)) if place == WHOLE else lengths
        _, end = inline_offsets(at, inside)
        if end != len(payload):
            raise ProtocolError(f"a message says that it ends at {end} and ends at {len(payload)}")
    elif place > TOLD or end_of(lengths) > capacity:
        raise ProtocolError(
            f"a message says its data are in {capacity} bytes of a segment of kind {place} and "
            f"need {end_of(lengths)}"
        )
    return Table(place, bool(new), segment, capacity, lengths, shared), at


def offsets(lengths: Sequence[int]) -> list[int]:
    """Where each piece begins in a segment."""
    found, at = [], 0
    for length in lengths:
        found.append(at)
        at += -(-length // ALIGN) * ALIGN
    return found


def inline_offsets(at: int, lengths: Sequence[int]) -> tuple[list[int], int]:
    """Where each piece behind a table that ends at `at` begins in the payload, and the end.

    Large ones are aligned: their receiver hands out views of the payload.
    """
    found = []
    for length in lengths:
        if length >= VIEWED:
            at = -(-at // ALIGN) * ALIGN
        found.append(at)
        at += length
    return found, at


def end_of(lengths: Sequence[int]) -> int:
    """Bytes of a segment that the pieces take."""
    return sum(-(-length // ALIGN) * ALIGN for length in lengths)
