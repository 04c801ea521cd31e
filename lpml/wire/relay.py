"""The relay of a host: a `Shared` of another host comes to this one once, however many read it.

Each process asks the relay of its host, which asks the owner, if nobody has before, and hands the
descriptor to everybody. Where the relay cannot, the process asks the owner itself.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, final

from lpml.clock import Clock, RealClock
from lpml.errors import CallCancelled, CallError, CallTimeout, NodeUnavailable
from lpml.service import Interface, MethodSpec
from lpml.wire import references, tls
from lpml.wire.client import close, connect
from lpml.wire.dispatch import Dispatcher
from lpml.wire.server import Server
from lpml.wire.shared import FIND, Shared, find
from lpml.wire.sockets import Address, listen

SOCKET = "relay.sock"
"""In the socket folder of a run."""
_SPEC = MethodSpec("concurrent", idempotent=True)
_RELAY = Interface("Relay", {"fetch": _SPEC})
_OWNER = Interface("Shared", {FIND: _SPEC})


def use(folder: Path) -> None:
    """This process fetches through the relay that serves in a folder, from now on."""
    client = connect(f"unix:{folder / SOCKET}", _RELAY, node="the relay of this host")
    references.fetch_by(partial(_fetch, client))


def _fetch(relay: Any, owner: Address, identity: bytes) -> Shared[Any]:
    known = find(identity)
    if known is not None:
        return known
    try:
        shared: Shared[Any] = relay.fetch(owner, identity)
        return shared
    except (CallTimeout, CallCancelled):
        raise
    except CallError:
        client = _client_of(owner)
        try:
            return _fetch_from(client, owner, identity)
        finally:
            close(client)


def _client_of(owner: Address) -> Any:
    return connect(owner, _OWNER, node=f"the owner of a Shared value at {owner}")


def _fetch_from(client: Any, owner: Address, identity: bytes) -> Shared[Any]:
    shared: Shared[Any] | None = getattr(client, FIND)(identity)
    if shared is None:
        raise NodeUnavailable(f"the process at {owner} that made a Shared value is gone")
    return shared


@final
class Relay:
    """Fetches for all processes of its host. Keeps the last value of each owner."""

    def __init__(self, clock: Clock) -> None:
        self._changed = clock.condition()  # guards what follows
        self._coming: set[bytes] = set()
        self._owners: dict[Address, Any] = {}  # clients
        self._kept: dict[Address, Shared[Any]] = {}

    def let_go(self) -> None:
        """Forgets every owner and value."""
        with self._changed:
            owners, self._owners = self._owners, {}
            self._kept.clear()
        for client in owners.values():
            close(client)

    def fetch(self, owner: Address, identity: bytes) -> Shared[Any]:
        """The value `identity`, which the node at `owner` has.

        Raises:
          NodeUnavailable: it has not, or is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: identity not in self._coming)
            known = find(identity)
            if known is not None:
                self._kept[owner] = known
                return known
            self._coming.add(identity)
            client = self._owners.get(owner) or _client_of(owner)
            self._owners[owner] = client
        try:
            shared = self._kept[owner] = _fetch_from(client, owner, identity)
            return shared
        finally:
            with self._changed:
                self._coming.discard(identity)
                self._changed.notify_all()


@final
class _Here:
    """The surroundings of a relay."""

    def __init__(self) -> None:
        self.clock = RealClock()


@final
class RelayServer:
    """Serves a relay at `SOCKET` in a folder, until it is closed.

    Args:
      folder: the socket folder of a run.
      identity: what this host is in that run.
    """

    def __init__(self, folder: Path, identity: tls.Identity) -> None:
        tls.join(identity)
        here = _Here()
        self._relay = Relay(here.clock)
        dispatcher = Dispatcher(self._relay, _RELAY, here, "the relay")
        self._server = Server(dispatcher, listen(folder / SOCKET))
        self._server.start()

    def close(self) -> None:
        """Those who ask from now on must ask the owners. Idempotent."""
        self._server.close()
        self._relay.let_go()
