"""Messages between a launcher and the processes it started, over socket pairs.

A message is one JSON object behind its length. Only the two ends of a pair can write to it, and
nothing in it is ever unpickled. File descriptors travel with the first bytes of a message.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any, final

_LENGTH = struct.Struct("<I")
MAX_FDS = 200  # a message of the kernel carries at most 253


def send(
    sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = (), *, wait: bool = True
) -> None:
    """Sends one message.

    Args:
      sock: one end of a pair.
      message: what JSON can say.
      fds: descriptors to hand over.
      wait: block while the pair is full; without it a full pair raises BlockingIOError.

    Raises:
      OSError: the other end is gone.
    """
    body = json.dumps(message).encode()
    data = _LENGTH.pack(len(body)) + body
    if not wait:
        data = data[sock.send(data, socket.MSG_DONTWAIT) :]
    elif fds:
        data = data[socket.send_fds(sock, [data], list(fds)) :]
    if data:
        sock.sendall(data)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Waits for one message and its descriptors; `None` when the other end is gone."""
    try:
        head, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, MAX_FDS)
        head += _exactly(sock, _LENGTH.size - len(head))
        body = _exactly(sock, _LENGTH.unpack(head)[0])
    except (EOFError, ConnectionError, struct.error):
        return None
    return json.loads(body), list(fds)


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = sock.recv(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


@final
class Inbox:
    """Cuts what arrives at a socket into messages, without ever waiting."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray()
        self.ended = False

    def read(self) -> list[dict[str, Any]]:
        """Every message that is complete by now. Sets `ended` when the other end is gone."""
        while not self.ended:
            try:
                part = self._sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                part = b""
            self.ended = not part
            self._buffer += part
        messages = []
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                break
            messages.append(json.loads(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
        return messages
