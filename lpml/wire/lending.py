"""What the two ends of a connection lend each other: segments, and values that are fetched."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import final

from lpml.wire import frames
from lpml.wire.frames import Payload
from lpml.wire.references import Announced, Reference
from lpml.wire.segments import Receiver, Sender
from lpml.wire.sockets import Connection


@final
class Lending:
    """The memory of one connection, both ways, at one of its ends.

    Args:
      connection: descriptors travel over it only if it is within a host.
      tell: sends a frame with the next message; takes no lock, as the garbage collector calls it.
      told: what becomes of the id of a `Shared` value that the peer tells of; `None` = an error.
    """

    def __init__(
        self,
        connection: Connection,
        tell: Callable[[bytes], object],
        told: Callable[[bytes], Reference] | None = None,
    ) -> None:
        local = isinstance(connection, socket.socket)
        self.sender = Sender(partial(_tell, tell, frames.FORGET)) if local else None
        self.receiver = Receiver(partial(_tell, tell, frames.RELEASE), told)
        self.announced: Announced | None = None  # None = values are sent, with each message

    def announce(self) -> None:
        """The peer fetches the values that it is told of; so where none are sent, it is told."""
        if self.sender is None:
            self.announced = Announced()

    def heard(self, kind: int, identity: int, payload: Payload) -> None:
        """The peer says something about a segment, or about a value that it was told of."""
        if kind == frames.RELEASE and self.sender is not None:
            self.sender.given_back(identity)
        elif kind == frames.FORGET:
            self.receiver.forget(identity)
        elif kind == frames.FETCHED and self.announced is not None:
            self.announced.drop(bytes(payload))

    def close(self) -> None:
        """The connection is gone; who was lent something keeps it."""
        if self.sender is not None:
            self.sender.close()
        self.receiver.close()
        if self.announced is not None:
            self.announced.clear()


def _tell(tell: Callable[[bytes], object], kind: int, segment: int) -> None:
    tell(frames.header(0, kind, call=segment))
