"""Which client uses which connection: one per address and process, made when it is needed."""

from __future__ import annotations

import os
import threading
import weakref
from time import monotonic
from typing import final

from lpml.clock import call_timeout, current_clock, find_scope
from lpml.errors import CallTimeout, NodeUnavailable, ProtocolError
from lpml.service import Interface
from lpml.wire.channel import Channel
from lpml.wire.places import is_expected, nearest
from lpml.wire.sockets import Address, dial

_PAUSE = 0.05  # seconds between two looks for a node that is on its way to another host


@final
class Link:
    """The connection to one address, made when it is needed and made anew when it broke."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.peers: weakref.WeakSet[Peer] = weakref.WeakSet()
        self._lock = threading.Lock()
        self.open_channel: Channel | None = None

    def channel(self, peer: Peer) -> Channel:
        """The connection.

        Raises:
          NodeUnavailable: nobody listens, or the client was closed.
        """
        channel = self.open_channel
        if channel is not None and not channel.broken and not peer.closed:
            return channel
        if peer.closed:
            raise NodeUnavailable(f"this client of {peer.node} was closed; make another")
        with self._lock:
            channel = self.open_channel
            if channel is None or channel.broken:
                channel = self.open_channel = self._connect(peer)
            return channel

    def _connect(self, peer: Peer) -> Channel:
        left, began = call_timeout(), monotonic()
        while True:
            try:
                where = nearest(self.address)
                return Channel(dial(where), peer.node, peer.caller_name(), where)
            except (ProtocolError, CallTimeout):
                raise
            except OSError as error:
                waited = monotonic() - began
                late = left is not None and waited > left
                if late or not is_expected(self.address, waited) or current_clock().wait(_PAUSE):
                    raise NodeUnavailable(
                        f"{peer.caller_name() or 'a call'} cannot reach {peer.node}: nothing "
                        f"answers at {self.address} ({error.strerror or error}); it has ended or "
                        "never started" + peer.log_line()
                    ) from None

    def leave(self, peer: Peer) -> None:
        """One client less."""
        with self._lock:
            self.peers.discard(peer)
            if not self.peers and self.open_channel is not None:
                self.open_channel.close(f"the last client of {peer.node} was closed")
                self.open_channel = None

    def forget(self) -> None:
        """After a fork."""
        self._lock = threading.Lock()
        self.open_channel = None


_links: weakref.WeakValueDictionary[Address, Link] = weakref.WeakValueDictionary()
_linking = threading.Lock()


def link_to(address: Address) -> Link:
    with _linking:
        link = _links.get(address)
        if link is None:
            link = _links[address] = Link(address)
        return link


@final
class Peer:
    """What a client and its methods know of the other side."""

    def __init__(self, link: Link, interface: Interface, node: str, caller: str, log: str) -> None:
        self.link = link
        self.interface = interface
        self.node = node
        self.caller = caller
        self.log = log
        self.closed = False
        link.peers.add(self)

    def caller_name(self) -> str:
        """Who calls, for messages."""
        return self.caller or str(getattr(find_scope(), "name", ""))

    def log_line(self) -> str:
        """The last line of a message."""
        return f"\nits log: {self.log}" if self.log else ""

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.link.leave(self)


def _after_fork() -> None:
    global _linking
    _linking = threading.Lock()
    for link in list(_links.values()):
        link.forget()


os.register_at_fork(after_in_child=_after_fork)
