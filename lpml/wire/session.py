"""One client's connection, seen from the server: what arrived, and what is still to be sent."""

from __future__ import annotations

import socket
import threading
from collections import deque
from functools import partial
from typing import Any, final

from lpml.clock import Call
from lpml.wire import frames
from lpml.wire.dispatch import Handler
from lpml.wire.frames import Decoder, Payload
from lpml.wire.parcel import Content, Packed
from lpml.wire.segments import Receiver, Sender
from lpml.wire.transfer import receive_into, send_with_files

_JOIN = 1 << 18  # bytes that one send takes at once
CHOKED = 64 << 20  # bytes waiting for a client from which on no more of its calls are read
RELIEVED = 8 << 20


@final
class Job:
    """One call that a client made."""

    __slots__ = (
        "arguments_at",
        "call",
        "credits",
        "flags",
        "generator",
        "handler",
        "id",
        "parked",
        "payload",
        "session",
    )

    def __init__(
        self,
        session: Session,
        identity: int,
        handler: Handler,
        call: Call,
        flags: int,
        payload: Payload | Content,
        arguments_at: int,
    ) -> None:
        self.session = session
        self.id = identity
        self.handler = handler
        self.call = call
        self.flags = flags
        self.payload: Payload | Content = payload
        self.arguments_at = arguments_at
        self.generator: Any = None
        self.credits = 0
        self.parked = False


@final
class Session:
    """The state of one connection. `send` may be called by any thread, the rest by the loop."""

    def __init__(self, connection: socket.socket, poller: Any) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.fd = connection.fileno()
        self.decoder = Decoder()
        self.caller: str | None = None  # None = it has not said hello
        self.jobs: dict[int, Job] = {}  # {id: call}
        self.closed = False
        self.bytes_out = 0
        self.sender = Sender(partial(self._tell, frames.FORGET))
        self.receiver = Receiver(partial(self._tell, frames.RELEASE))
        self._poller = poller
        self._lock = threading.Lock()
        self._out: deque[Packed] = deque()
        self._mask = poller.IN

    def receive(self, into: memoryview) -> int:
        """Receives into a buffer; the number of bytes, 0 at the end."""
        return receive_into(self.socket, into, self.receiver)

    def memory(self, kind: int, identity: int, payload: Payload) -> None:
        """A message about segments."""
        del payload
        if kind == frames.RELEASE:
            self.sender.given_back(identity)
        elif kind == frames.FORGET:
            self.receiver.forget(identity)

    def _tell(self, kind: int, segment: int) -> None:
        """Goes with the next message. Takes no lock: the garbage collector may call it."""
        self._out.append(Packed(frames.header(0, kind, call=segment)))

    def put(self, packed: Packed) -> None:
        """Adds a message to what the next `flush` sends."""
        self._out.append(packed)

    def send(self, packed: Packed) -> None:
        """Sends a message now, or as soon as the client takes it."""
        self._out.append(packed)
        self.flush()

    def flush(self) -> None:
        """Sends what can be sent without waiting; the loop sends the rest."""
        with self._lock:
            if self.closed:
                self._out.clear()
                return
            out = self._out
            while out:
                packed = out.popleft()
                if not packed.files and out:
                    packed = self._join(packed)
                try:
                    sent = self._transmit(packed)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    out.clear()
                    break  # the loop sees the end of the connection
                self.bytes_out += sent
                if sent < len(packed.data):
                    files = packed.files if sent == 0 else ()
                    out.appendleft(Packed(memoryview(packed.data)[sent:], files))
                    break
            self._listen()

    def _join(self, packed: Packed) -> Packed:
        """With the messages behind it, while they are small and carry no files."""
        out = self._out
        pieces, size = [packed.data], len(packed.data)
        while out and size < _JOIN and not out[0].files:
            data = out.popleft().data
            pieces.append(data)
            size += len(data)
        return Packed(b"".join(pieces))

    def _transmit(self, packed: Packed) -> int:
        if not packed.files:
            return self.socket.send(packed.data)
        return send_with_files(self.socket, packed.data, packed.files)

    def _listen(self) -> None:
        """Tells the poller what the loop should be woken for."""
        mask = self._poller.IN
        if self._out:
            waiting = sum(len(packed.data) for packed in list(self._out))
            choked = not self._mask & self._poller.IN
            mask = self._poller.OUT
            if waiting < (RELIEVED if choked else CHOKED):
                mask |= self._poller.IN
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
            self.sender.close()
            self.receiver.close()
        for job in list(self.jobs.values()):
            job.call.cancel()

    def refuse(self, reason: str) -> None:
        """Tells the client why its connection ends, in plain text."""
        text = reason.encode()[:4096]
        self.put(Packed(frames.header(len(text), frames.REFUSED) + text))
        self.close()
