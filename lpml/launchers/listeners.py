"""The sockets at which nodes are called, held by the launcher until a process has them.

Where a node may be started again the launcher keeps a copy: callers wait in its backlog meanwhile.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path
from typing import final

from lpml import wire


@final
class Listeners:
    """One socket for each node, in a folder.

    Args:
      folder: private to the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._paths: dict[str, Path] = {}  # {node: its socket}
        self._open: dict[str, socket.socket] = {}

    def path(self, node: str, ending: str = ".sock") -> Path:
        """The file of a node; a new one for a new node."""
        if node not in self._paths:
            self._paths[node] = self._folder / f"{len(self._paths)}.sock"
        return self._paths[node].with_suffix(ending)

    def address(self, node: str) -> wire.Address:
        """Where callers find a node."""
        return f"unix:{self.path(node)}"

    def listen(self, node: str) -> None:
        """Callers wait from now on. Those that waited before are hung up on.

        Raises:
          LaunchError: the machine refuses.
        """
        self.close([node])
        path = self.path(node)
        path.unlink(missing_ok=True)
        self._open[node] = wire.listen(path)

    def descriptor(self, node: str) -> int:
        """What the process of a node is given."""
        return self._open[node].fileno()

    def close(self, nodes: Iterable[str]) -> None:
        """Callers of these nodes learn at once that nobody answers, unless the node still does."""
        for node in nodes:
            listener = self._open.pop(node, None)
            if listener is not None:
                listener.close()

    def close_all(self) -> None:
        """As `close`, of every node."""
        self.close(list(self._open))
