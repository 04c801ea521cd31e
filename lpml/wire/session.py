"""One client's connection, seen from the server: what arrived, and what is still to be sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from typing import Any, final

from lpml.clock import Call
from lpml.wire import frames
from lpml.wire.dispatch import Handler
from lpml.wire.frames import Decoder, Payload
from lpml.wire.lending import Lending
from lpml.wire.memory import File
from lpml.wire.parcel import Content, Packed
from lpml.wire.parts import Parts
from lpml.wire.sockets import Connection
from lpml.wire.transfer import send_with_files

_JOIN = 1 << 18  # bytes that one send takes at once
_KEPT = 4 << 20  # bytes of a long message that are copied before the next are sent
CHOKED = 64 << 20  # bytes waiting for a client from which on no more of its calls are read
RELIEVED = 8 << 20


@final
class Job:
    """One call that a client made."""

    generator: Any = None
    credits = 0  # items of a stream that the client will take
    parked = False  # a stream waits for credits

    def __init__(
        self,
        session: Session,
        identity: int,
        handler: Handler,
        call: Call,
        flags: int = 0,
        payload: Payload | Content = b"",
        arguments_at: int = 0,
    ) -> None:
        self.session = session
        self.id = identity
        self.handler = handler
        self.call = call
        self.flags = flags
        self.payload = payload
        self.arguments_at = arguments_at


@final
class Session:
    """The state of one connection. `send` may be called by any thread, the rest by the loop."""

    def __init__(self, connection: Connection, poller: Any) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.fd = connection.fileno()
        self.decoder = Decoder()
        self.caller: str | None = None  # None = it has not said hello
        self.jobs: dict[int, Job] = {}  # {id: call}
        self.closed = False
        self.bytes_out = 0
        self.pending = _nothing if isinstance(connection, socket.socket) else connection.pending
        """Whether something came of which the poller knows nothing."""
        self._poller = poller
        self._lock = threading.Lock()
        self._out: deque[bytes | Packed] = deque()
        self.lending = Lending(connection, self._out.append)
        self._send = connection.send
        self._input = self._mask = poller.IN

    def greet(self, caller: str, flags: int) -> None:
        """The client said hello."""
        self.caller = caller
        if flags & frames.FETCHES:
            self.lending.announce()

    @property
    def unsent(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out)

    def put(self, message: bytes | Packed) -> None:
        """Adds a message to what the next `flush` sends."""
        if isinstance(message, Packed) and isinstance(message.data, Parts):
            self.send(message)  # a part of it is lent
        else:
            self._out.append(message)

    def send(self, message: bytes | Packed) -> None:
        """Sends a message now, or as soon as the client takes it. Keeps nothing that is lent."""
        with self._lock:
            if type(message) is bytes and not self._out and not self.closed:
                try:
                    sent = self._send(message)
                except OSError:  # full, or gone: as `flush` says
                    sent = 0
                self.bytes_out += sent
                if sent == len(message):
                    return
                if sent:  # first: the garbage collector may have added a frame meanwhile
                    self._out.appendleft(Packed(memoryview(message)[sent:], ()))
                else:
                    self._out.appendleft(message)
            else:
                self._out.append(message)
        self.flush()
        if isinstance(message, Packed) and isinstance(message.data, Parts):
            self._keep(message.data)

    def _keep(self, parts: Parts) -> None:
        """Sends what can be sent at once, and of the rest copies what is lent.

        Both by turns: while we copy, the client receives.
        """
        while True:
            with self._lock:
                if not parts.lent or not self._out:  # or it will not be sent at all
                    return
                parts.keep(_KEPT)
            self.flush()

    def flush(self) -> None:
        """Sends what can be sent without waiting; the loop sends the rest."""
        out = self._out
        with self._lock:
            if self.closed:
                out.clear()
                return
            while out:
                message = out.popleft()
                data: bytes | memoryview | Parts
                files: tuple[File, ...]
                if isinstance(message, bytes):
                    data, files = (self._join(message) if out else message), ()
                else:
                    data, files, _ = message
                try:
                    if isinstance(data, Parts):
                        sent = self._send_parts(data)
                    elif files:
                        sent = send_with_files(self.socket, data, files)
                    else:
                        sent = self._send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    out.clear()
                    break  # the loop sees the end of the connection
                self.bytes_out += sent
                if isinstance(data, Parts):
                    if data:
                        out.appendleft(message)
                        break
                elif sent < len(data):
                    rest = memoryview(data)[sent:] if sent else data
                    out.appendleft(Packed(rest, files if sent == 0 else ()))
                    break
            if out or self._mask != self._input:
                self._listen()

    def _send_parts(self, parts: Parts) -> int:
        total = len(parts)
        with contextlib.suppress(BlockingIOError):
            parts.send(self._send)
        return total - len(parts)

    def _join(self, message: bytes) -> bytes:
        """With the messages behind it, while they are small and carry no files."""
        out = self._out
        pieces, size = [message], len(message)
        while out and size < _JOIN and type(out[0]) is bytes:
            following = out.popleft()
            assert isinstance(following, bytes)
            pieces.append(following)
            size += len(following)
        return b"".join(pieces)

    def _listen(self) -> None:
        """Tells the poller what the loop should be woken for."""
        mask = self._input
        if self._out:
            waiting = sum(map(_size, list(self._out)))
            choked = not self._mask & self._input
            mask = self._poller.OUT
            if waiting < (RELIEVED if choked else CHOKED):
                mask |= self._input
        if mask != self._mask:
            self._mask = mask
            self._poller.modify(self.fd, mask)

    def close(self) -> None:
        """Closes the connection and cancels its calls. Sends what it can without waiting."""
        self.flush()
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._out.clear()
            self._poller.unregister(self.fd)
            self.socket.close()
            self.lending.close()
        for job in list(self.jobs.values()):
            job.call.cancel()

    def refuse(self, reason: str) -> None:
        """Tells the client why its connection ends, in plain text."""
        text = reason.encode()[:4096]
        self.put(frames.header(len(text), frames.REFUSED) + text)
        self.close()


def _nothing() -> bool:
    return False


def _size(message: bytes | Packed) -> int:
    return len(message) if isinstance(message, bytes) else len(message.data)
