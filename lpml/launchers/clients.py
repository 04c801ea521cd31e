"""The launcher's own clients of its nodes, each made when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, final

from lpml import wire
from lpml.record.folder import RunFolder
from lpml.service import Interface


@final
class Clients:
    """One client of each node. Thread-safe.

    Args:
      address: says where a node is reached.
      folder: of the run.
    """

    def __init__(self, address: Callable[[str], wire.Address], folder: RunFolder) -> None:
        self._address = address
        self._folder = folder
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def get(self, node: str, interface: Interface) -> Any:
        """The client of a node."""
        with self._lock:
            if node not in self._made:
                self._made[node] = wire.connect(
                    self._address(node),
                    interface,
                    node=node,
                    caller="launcher",
                    log=str(self._folder.log_file(node)),
                )
            return self._made[node]

    def close(self) -> None:
        """Ends all of them."""
        with self._lock:
            made, self._made = self._made, {}
        for client in made.values():
            wire.close(client)
