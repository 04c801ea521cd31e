"""Bytes to frames: the format on the wire, and a decoder without I/O.

A frame is a header of 16 bytes and a payload. The header says, little-endian: size of the payload
(u32), kind (u8), flags (u8), extra (u16, by kind), id of the call (u32), seconds left (f32).

A payload of more than `SHORT` bytes has its size behind the header (u64), which says 0 and `LONG`.
Memory for it is reserved once, and its pages are taken as its bytes arrive; so a message has no
limit but the memory of the machine, and yet a peer can make us use no more than it sends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import TypeAlias, final

from lpml.errors import ProtocolError

VERSION = 2
MAGIC = b"lpml"
SHORT = 1 << 20
"""Bytes up to which the size of a payload is in the header."""
_BIG = 1 << 15  # a payload from this size on is received in place
_HUGE = 1 << 22  # from this size on pages are huge: it takes fewer of them, and fewer faults

HELLO, CALL, REPLY, ERROR, CANCEL, CREDIT, ITEM, END, RELEASE, FORGET, REFUSED = range(1, 12)
FETCHED = _LAST_KIND = 12

LONG = 1  # the size of the payload is behind the header
TABLE = 2  # the payload begins with a table of buffers
KEYWORDS = 4  # the body of a call is (args, kwargs), else args
FETCHES = 8  # of a hello: `Shared` values of other hosts may be told of rather than sent

WINDOW = 16  # items of a stream that may be under way

FOREVER = -1.0  # in place of seconds left: no deadline

HEADER = struct.Struct("<IBBHIf")
HEADER_SIZE = HEADER.size
_unpack = HEADER.unpack_from
_SIZE = struct.Struct("<Q")

Payload: TypeAlias = "bytes | memoryview"
"""A view is writable, and of memory that nobody else has."""
Frame: TypeAlias = "tuple[int, int, int, int, float, Payload]"
"""kind, flags, extra, id, seconds left, payload"""


def header(
    size: int, kind: int, flags: int = 0, extra: int = 0, call: int = 0, seconds: float = FOREVER
) -> bytes:
    """The header of one frame."""
    return HEADER.pack(size, kind, flags, extra, call, seconds)


def hello(name: str, flags: int = 0) -> bytes:
    """The first frame of a connection: who speaks, and which protocol."""
    payload = MAGIC + name.encode()[:1024]
    return header(len(payload), HELLO, flags, extra=VERSION) + payload


def read_hello(frame: Frame) -> str:
    """The name of the peer.

    Raises:
      ProtocolError: it is no hello, or of another version.
    """
    kind, _, version, _, _, payload = frame
    if kind != HELLO or payload[:4] != MAGIC:
        raise ProtocolError("the peer did not begin with a hello; it is no client of lpml")
    if version != VERSION:
        raise ProtocolError(
            f"the peer speaks version {version} of the protocol and this process version "
            f"{VERSION}; use one release of lpml in all nodes"
        )
    return bytes(payload[4:]).decode(errors="replace")


def beginning(size: int, head: tuple[int, int, int, int, float]) -> bytes:
    """What comes before a payload of any size.

    Args:
      head: kind, flags, extra, id, seconds left.
    """
    kind, flags, extra, call, seconds = head
    if size <= SHORT:
        return HEADER.pack(size, kind, flags, extra, call, seconds)
    return HEADER.pack(0, kind, flags | LONG, extra, call, seconds) + _SIZE.pack(size)


@final
class Decoder:
    """Turns what arrives on one connection into frames. Does no I/O.

    Where `target()` is a buffer, receive into it and call `filled`; else receive anywhere and
    call `feed`. After an error it must not be used again.
    """

    __slots__ = ("_big_at", "_big_head", "_rest", "big")

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a frame
        self.big: memoryview | None = None  # a payload that is being received in place
        self._big_at = 0
        self._big_head: tuple[int, int, int, int, float] = (0, 0, 0, 0, 0.0)

    def target(self) -> memoryview | None:
        """Where the next bytes belong, or `None`: anywhere."""
        return None if self.big is None else self.big[self._big_at :]

    def single(self, data: memoryview, count: int) -> tuple[int, int, int, int, int, float] | None:
        """The header of the one whole frame without flags that the next `count` bytes are.

        `None` if they are anything else; then `feed` them. A shorter way for the common case.
        """
        if count < HEADER_SIZE or self._rest or self.big is not None:
            return None
        head: tuple[int, int, int, int, int, float] = _unpack(data)
        return head if head[0] == count - HEADER_SIZE and not head[2] else None

    def filled(self, count: int) -> list[Frame]:
        """`count` bytes were received into `target()`."""
        assert self.big is not None
        self._big_at += count
        if self._big_at < len(self.big):
            return []
        payload, self.big = self.big, None
        return [(*self._big_head, payload)]

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """The frames that `data` completes.

        Raises:
          ProtocolError: the bytes are no frames of this protocol.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        frames: list[Frame] = []
        at, end = 0, len(data)
        while end - at >= HEADER_SIZE:
            size, kind, flags, extra, call, seconds = _unpack(data, at)
            if size > SHORT or not 0 < kind <= _LAST_KIND:
                raise ProtocolError(
                    f"a frame of kind {kind} and {size} bytes; kinds are 1 to {_LAST_KIND} and "
                    f"sizes in a header at most {SHORT}"
                )
            start = at + HEADER_SIZE
            if flags & LONG:
                if end - start < _SIZE.size:
                    break
                (long,) = _SIZE.unpack_from(data, start)
                if size or long <= SHORT:
                    raise ProtocolError(f"a long message of {size} and {long} bytes")
                size, start, flags = long, start + _SIZE.size, flags & ~LONG
            if end - start < size:
                if size >= _BIG:
                    self.big = _reserve(size)
                    self.big[: end - start] = data[start:end]
                    self._big_at = end - start
                    self._big_head = (kind, flags, extra, call, seconds)
                    return frames
                break
            at = start + size
            frames.append((kind, flags, extra, call, seconds, bytes(data[start:at])))
        if at < end:
            self._rest = bytes(data[at:])
        return frames

    def close(self) -> None:
        """The stream ended.

        Raises:
          ProtocolError: in the middle of a message.
        """
        if self._rest or self.big is not None:
            raise ProtocolError("the connection ended in the middle of a message")


def _reserve(size: int) -> memoryview:
    """Memory for a payload. That of a long one costs nothing until it is written.

    Raises:
      ProtocolError: no machine like this one could ever receive so much.
    """
    if size <= SHORT:
        return memoryview(bytearray(size))
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        if size > have:
            raise OSError(f"this machine has {have}")
        room = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise ProtocolError(f"a message of {size} bytes cannot be received: {error}") from None
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            room.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(room)
