"""The sockets at which nodes are called, held by the launcher until a process has them.

A node is called at a Unix socket, and from other hosts of its run at a TCP socket as well.

Where a node may be started again the launcher keeps a copy: callers wait in its backlog meanwhile.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import final

from lpml import wire
from lpml.launchers.part import Membership
from lpml.wire.places import everywhere
from lpml.wire.tls import address_of, listen_tcp


@final
class Listeners:
    """One socket for each node, in a folder; two where the run has several hosts.

    Args:
      folder: private to the run.
      host: names this host among those of the run.
      member: what this host is among them; `None` = there are no others.
    """

    def __init__(self, folder: Path, host: str = "", member: Membership | None = None) -> None:
        self._folder = folder
        self._host = host
        self._member = member
        self._paths: dict[str, Path] = {}  # {node: its socket}
        self._open: dict[str, socket.socket] = {}
        self._remote: dict[str, socket.socket] = {}
        self._ports: dict[str, wire.Address] = {}

    def path(self, node: str, ending: str = ".sock") -> Path:
        """The file of a node; a new one for a new node."""
        if node not in self._paths:
            self._paths[node] = self._folder / f"{len(self._paths)}.sock"
        return self._paths[node].with_suffix(ending)

    def address(self, node: str) -> wire.Address:
        """Where callers find a node."""
        local = f"unix:{self.path(node)}"
        if node not in self._ports:
            return local
        return everywhere(local, self._host, self._ports[node])

    def listen(self, node: str) -> None:
        """Callers wait from now on. Those that waited before are hung up on.

        Raises:
          LaunchError: the machine refuses.
        """
        remote = self._remote.pop(node, None)  # keeps its port
        path = self.path(node)
        # The new socket is there before the old one hangs up: who is hung up on comes back at once.
        draft = path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        listener = wire.listen(draft)
        draft.rename(path)
        self.close([node])
        self._open[node] = listener
        if self._member is None:
            return
        if remote is None:
            remote = listen_tcp(self._member.interface)
            self._ports[node] = address_of(remote, self._member.identity)
        else:
            _hang_up(remote)
        self._remote[node] = remote

    def descriptors(self, node: str) -> list[int]:
        """What the process of a node is given."""
        found = [self._open[node].fileno()]
        if node in self._remote:
            found.append(self._remote[node].fileno())
        return found

    def close(self, nodes: Iterable[str]) -> None:
        """Callers of these nodes learn at once that nobody answers, unless the node still does."""
        for node in nodes:
            for listener in (self._open.pop(node, None), self._remote.pop(node, None)):
                if listener is not None:
                    listener.close()

    def close_all(self) -> None:
        """As `close`, of every node."""
        self.close(list(self._open))


def _hang_up(listener: socket.socket) -> None:
    """Whoever waits there."""
    listener.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
