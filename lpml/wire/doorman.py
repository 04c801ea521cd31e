"""Lets members of the run in: the handshakes of a server, beside the thread that serves."""

from __future__ import annotations

import select
import selectors
import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import final

from lpml.wire.complaints import PAUSE, Complaints
from lpml.wire.tls import HANDSHAKE, TlsConnection
from lpml.wire.waker import Waker

_MOST = 256  # handshakes under way; beyond that the oldest goes


@final
class Doorman:
    """Accepts at one TLS socket, from `start` to `close`.

    Args:
      node: the node's name, for messages and threads.
      listener: a TCP socket.
      context: of the server.
      admit: called in the doorman's thread with each peer that has proved who it is.
    """

    def __init__(
        self,
        node: str,
        listener: socket.socket,
        context: ssl.SSLContext,
        admit: Callable[[TlsConnection], None],
    ) -> None:
        self._listener = listener
        self._context = context
        self._admit = admit
        self._complaints = Complaints(node)
        self._deadlines: dict[TlsConnection, float] = {}  # of those at the door, oldest first
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self._thread = threading.Thread(target=self._serve, name=f"lpml-door-{node}", daemon=True)

    def start(self) -> None:
        """Begins; returns at once."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._thread.start()

    def close(self) -> None:
        """Lets nobody in any more."""
        self._waker.wake()
        self._thread.join(2.0)
        for connection in list(self._deadlines):
            self._turn_away(connection, "")
        self._selector.close()
        self._listener.close()
        self._waker.close()

    def _serve(self) -> None:
        while True:
            first = next(iter(self._deadlines.values()), None)
            timeout = None if first is None else max(0.0, first - monotonic())
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._waker:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._go_on(key.data)
            now = monotonic()
            for connection in [c for c, end in self._deadlines.items() if end <= now]:
                self._turn_away(connection, f"it did not prove who it is in {HANDSHAKE:g} s")

    def _accept(self) -> None:
        try:
            plain, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._complaints.say("cannot accept a caller", error)
            select.select([self._waker], [], [], PAUSE)  # no descriptors are left; some will be
            return
        try:
            connection = TlsConnection(plain, self._context, server=True)
        except OSError:  # it has gone already
            plain.close()
            return
        if len(self._deadlines) >= _MOST:
            self._turn_away(next(iter(self._deadlines)), "too many are at the door")
        self._deadlines[connection] = monotonic() + HANDSHAKE
        self._selector.register(connection, selectors.EVENT_READ, connection)
        self._go_on(connection)

    def _go_on(self, connection: TlsConnection) -> None:
        if connection not in self._deadlines:
            return
        try:
            wanted = connection.step()
        except OSError as error:
            self._turn_away(connection, str(getattr(error, "reason", None) or error))
            return
        if wanted:
            reads = wanted == select.POLLIN
            mask = selectors.EVENT_READ if reads else selectors.EVENT_WRITE
            self._selector.modify(connection, mask, connection)
            return
        del self._deadlines[connection]
        self._selector.unregister(connection)
        self._admit(connection)

    def _turn_away(self, connection: TlsConnection, why: str) -> None:
        if why:  # first: who sees the end of the connection may look for the reason in the log
            self._complaints.say("refused a connection", why)
        del self._deadlines[connection]
        self._selector.unregister(connection)
        connection.close()
