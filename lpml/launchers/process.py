"""One process with its nodes, as its launcher knows it: its pid, and the socket between them."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import Any, final

from lpml.launchers import pipes, system
from lpml.launchers.plan import NodePlan


@final
@dataclass(eq=False)
class NodeProcess:
    """One attempt at running the nodes of one process.

    What is sent may come from any thread; everything else is the launcher's own.
    """

    key: str
    nodes: list[NodePlan]
    attempts: dict[str, int] = field(default_factory=dict)  # {node: number}
    control: socket.socket | None = None
    inbox: pipes.Inbox | None = None
    pid: int = 0
    forked: bool = False
    exited: bool = False
    peak: int = 0
    _early: list[dict[str, Any]] = field(default_factory=list)  # what to say once it is forked
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def connect(self, control: socket.socket) -> None:
        """The process is being forked, with the other end of `control`."""
        with self._sending:
            self.control = control
            self.inbox = pipes.Inbox(control)
            early, self._early = self._early, []
        self.forked = True
        for message in early:
            self.tell(message)

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a message, now or as soon as there is a process; never waits."""
        with self._sending:
            if self.control is None:
                if not self.exited:
                    self._early.append(message)
                return
            with contextlib.suppress(OSError):  # it is gone, or stopped and full: signals follow
                pipes.send(self.control, message, wait=False)

    def disconnect(self) -> socket.socket | None:
        """Says nothing more; returns the socket, which is still to be closed."""
        with self._sending:
            control, self.control = self.control, None
            self.inbox = None
        return control

    @property
    def peak_memory(self) -> int:
        """Bytes that it used at most, so far or ever; 0 where unknown."""
        return self.peak or (system.peak_memory(self.pid) if self.pid else 0)
