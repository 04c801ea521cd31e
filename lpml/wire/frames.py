"""Bytes to frames: the format on the wire, and a decoder without I/O.

A frame is a header of 16 bytes and a payload. The header says, little-endian: size of the payload
(u32), kind (u8), flags (u8), extra (u16, by kind), id of the call (u32), seconds left (f32).

A payload is at most `CHUNK` bytes. A longer message is sent as several frames of one kind and id,
all but the last with the flag `MORE`; the decoder puts them together, so a message has no upper
limit and yet a peer can make us allocate no more than it sends.
"""

from __future__ import annotations

import struct
from typing import TypeAlias, final

from lpml.errors import ProtocolError

VERSION = 1
MAGIC = b"lpml"
CHUNK = 1 << 20
_LIMIT_OPEN = 4096  # messages that one peer may have begun and not ended
_BIG = 1 << 15  # a payload from this size on is received in place

HELLO, CALL, REPLY, ERROR, CANCEL, CREDIT, ITEM, END, RELEASE, FORGET, REFUSED = range(1, 12)
FETCHED = _LAST_KIND = 12

MORE = 1  # the message goes on in the next frame of this kind and id
TABLE = 2  # the payload begins with a table of buffers
KEYWORDS = 4  # the body of a call is (args, kwargs), else args
FETCHES = 8  # of a hello: `Shared` values of other hosts may be told of rather than sent

WINDOW = 16  # items of a stream that may be under way

FOREVER = -1.0  # in place of seconds left: no deadline

HEADER = struct.Struct("<IBBHIf")
HEADER_SIZE = HEADER.size
_unpack = HEADER.unpack_from

Payload: TypeAlias = "bytes | bytearray"
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


def chunked(
    head: tuple[int, int, int, int, float], pieces: list[memoryview]
) -> list[bytes | memoryview]:
    """A message of several pieces as frames of at most `CHUNK`: headers and views, in order.

    Args:
      head: kind, flags, extra, id, seconds left.
      pieces: the payload; not copied.
    """
    kind, flags, extra, call, seconds = head
    left = sum(piece.nbytes for piece in pieces)
    room = min(left, CHUNK)
    left -= room
    more = MORE if left else 0
    out: list[bytes | memoryview] = [header(room, kind, flags | more, extra, call, seconds)]
    for piece in pieces:
        at = 0
        while at < piece.nbytes:
            if room == 0:
                room = min(left, CHUNK)
                left -= room
                more = MORE if left else 0
                out.append(header(room, kind, flags | more, extra, call, seconds))
            step = min(room, piece.nbytes - at)
            out.append(piece[at : at + step])
            at += step
            room -= step
    return out


@final
class Decoder:
    """Turns what arrives on one connection into frames. Does no I/O.

    Where `target()` is a buffer, receive into it and call `filled`; else receive anywhere and
    call `feed`. After an error it must not be used again.
    """

    __slots__ = ("_big_at", "_big_head", "_open", "_rest", "big")

    def __init__(self) -> None:
        self._rest = b""  # the beginning of a frame
        self.big: bytearray | None = None  # a payload that is being received in place
        self._big_at = 0
        self._big_head: tuple[int, int, int, int, float] = (0, 0, 0, 0, 0.0)
        self._open: dict[tuple[int, int], bytearray] = {}  # {(kind, id): message so far}

    def target(self) -> memoryview | None:
        """Where the next bytes belong, or `None`: anywhere."""
        return None if self.big is None else memoryview(self.big)[self._big_at :]

    def single(self, data: memoryview, count: int) -> tuple[int, int, int, int, int, float] | None:
        """The header of the one whole frame without flags that the next `count` bytes are.

        `None` if they are anything else; then `feed` them. A shorter way for the common case.
        """
        if count < HEADER_SIZE or self._rest or self.big is not None or self._open:
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
        frames: list[Frame] = []
        self._add(frames, self._big_head, payload)
        return frames

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
            if size > CHUNK or not 0 < kind <= _LAST_KIND:
                raise ProtocolError(
                    f"a frame of kind {kind} and {size} bytes; kinds are 1 to {_LAST_KIND} and "
                    f"frames at most {CHUNK} bytes"
                )
            start = at + HEADER_SIZE
            if end - start < size:
                if size >= _BIG:
                    self.big = bytearray(size)
                    self.big[: end - start] = data[start:end]
                    self._big_at = end - start
                    self._big_head = (kind, flags, extra, call, seconds)
                    return frames
                break
            at = start + size
            payload = bytes(data[start:at])
            if flags & MORE or self._open:
                self._add(frames, (kind, flags, extra, call, seconds), payload)
            else:
                frames.append((kind, flags, extra, call, seconds, payload))
        if at < end:
            self._rest = bytes(data[at:])
        return frames

    def _add(
        self, frames: list[Frame], head: tuple[int, int, int, int, float], payload: Payload
    ) -> None:
        kind, flags, extra, call, seconds = head
        so_far = self._open.get((kind, call))
        if flags & MORE:
            if so_far is None:
                if len(self._open) >= _LIMIT_OPEN:
                    raise ProtocolError(f"more than {_LIMIT_OPEN} messages begun and not ended")
                self._open[kind, call] = bytearray(payload)
            else:
                so_far += payload
            return
        if so_far is not None:
            del self._open[kind, call]
            so_far += payload
            payload = so_far
        frames.append((kind, flags, extra, call, seconds, payload))

    def close(self) -> None:
        """The stream ended.

        Raises:
          ProtocolError: in the middle of a message.
        """
        if self._rest or self.big is not None or self._open:
            raise ProtocolError("the connection ended in the middle of a message")
