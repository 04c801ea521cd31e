"""The receiving half of a client's connection: bytes in, frames out, within a deadline."""

from __future__ import annotations

import select
import socket
import struct
from time import monotonic
from typing import final

from lpml.wire.frames import HEADER_SIZE, REPLY, Decoder, Frame
from lpml.wire.patience import PATIENCE, check_caller
from lpml.wire.segments import Receiver
from lpml.wire.sockets import Connection
from lpml.wire.transfer import ROOM, take_files

_RECEIVE = 1 << 16


@final
class Inlet:
    """Reads one connection. Used by one thread at a time: the leader.

    Args:
      connection: a blocking connection.
      receiver: of the connection's segments.
    """

    def __init__(self, connection: Connection, receiver: Receiver) -> None:
        self._socket = connection
        self._pending = getattr(connection, "pending", None)
        self._receiver = receiver
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(_RECEIVE))
        seconds = int(PATIENCE)
        patience = struct.pack("ll", seconds, int((PATIENCE - seconds) * 1e6))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)

    def read(self, end: float | None, call: int) -> bytes | list[Frame] | None:
        """Reads once.

        Args:
          end: when to give up.
          call: the id of a call whose reply is wanted, or 0.

        Returns:
          The body of that reply, if it is all that came; else the frames that are complete;
          or `None`: nothing came until `end`.

        Raises:
          CallCancelled: nothing came, and the call that this thread serves was cancelled.
          ProtocolError: what came is no message.
          OSError: the connection is gone.
        """
        decoder = self._decoder
        try:
            if end is not None:
                left = end - monotonic()
                if left < PATIENCE and not self._readable(max(0.0, left)):
                    check_caller()
                    return None
            target = decoder.target() if decoder.big is not None else None
            into = self._buffer if target is None else target
            count, ancillary, cut, _ = self._socket.recvmsg_into((into,), ROOM)
        except (BlockingIOError, InterruptedError):
            check_caller()
            return None if end is not None and monotonic() >= end else []
        if ancillary or cut:
            take_files(ancillary, cut, self._receiver)
        if count == 0:
            raise ConnectionResetError
        if call:
            head = decoder.single(into, count)
            if head is not None and head[1] == REPLY and head[4] == call:
                return bytes(into[HEADER_SIZE:count])
        return decoder.feed(into[:count]) if target is None else decoder.filled(count)

    def _readable(self, timeout: float) -> bool:
        if self._pending is not None and self._pending():
            return True
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(timeout * 1000))
