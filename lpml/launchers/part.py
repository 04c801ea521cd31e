"""The part of a program that one host of several runs."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

from lpml.launchers import pipes
from lpml.wire.tls import Identity


class Starter(Protocol):
    """Starts processes on request, signals them, and reports every death.

    Messages in and out are those of `ForkServer`.
    """

    socket: socket.socket
    """Readable when there is something in `inbox`."""
    inbox: pipes.Inbox

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Sends it a message; what cannot arrive is lost, and `inbox.ended` will say so."""

    def rouse(self) -> None:
        """Makes it listen, if somebody has stopped it by a signal."""

    @property
    def last_words(self) -> str:
        """The end of what it printed, for an error message."""
        ...

    def close(self) -> bool:
        """Ends it and every process that it started; says whether it could see to that itself."""
        ...

    def discard(self) -> None:
        """Ends it before it has started anything."""


@final
@dataclass(frozen=True)
class Membership:
    """What a host has to be one of several."""

    identity: Identity
    interface: str
    """Its address, at which the others reach it."""


@final
@dataclass
class Part:
    """What a host is told of the program around its own nodes."""

    nodes: set[str]
    """Those that are here."""
    starter: Starter
    host: str
    """Names this host among those of the run."""
    membership: Membership | None = None
    """By which nodes of other hosts are called; `None` = there are no other hosts."""
    path: tuple[str, ...] = ()
    """Of the launcher: where modules are looked for, as far as this host has those folders."""
    cwd: str = ""
    argv0: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """`{node: where it is reached}`, of all nodes."""
