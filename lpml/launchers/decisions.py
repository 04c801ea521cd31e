"""What the supervisor decides and what it knows of a node: plain values, shared by its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, final

from lpml.launchers.names import NodeState
from lpml.launchers.restarts import Budget

GRACE = 5.0  # seconds after a kill until a node that cannot die is given up


@final
@dataclass(frozen=True)
class Decision:
    """What the launcher must do to one node.

    `start`: run it, as attempt number `attempt`. `ask`: tell it to stop, still serving. `close`:
    stop serving and end, for good. `terminate`: interrupt whatever it does. `kill`: end it at
    once. `inspect`: report where it hangs, as `overdue`. `retire`, `end`: as `close` and `kill`,
    but another attempt follows, so its address stays open. `give_up`: the node is gone, and no
    attempt follows after all: its callers must learn.
    """

    what: Literal[
        "start", "ask", "close", "terminate", "kill", "inspect", "retire", "end", "give_up"
    ]
    node: str
    attempt: int = 0
    afresh: bool = False
    """Of a `start`: the run was set back, so calls of before, which nobody has heard yet, must
    never be heard."""


@final
@dataclass(frozen=True)
class Failure:
    """Why a node failed.

    Args:
      node: its name.
      reason: one line.
      traceback: its traceback or "".
      at: when it happened, in the launcher's time.
      consequence: whether it only says that another node was gone (NodeUnavailable).
      hopeless: whether another attempt would end in the same way.
    """

    node: str
    reason: str
    traceback: str = ""
    at: float = 0.0
    consequence: bool = False
    hopeless: bool = False


@final
@dataclass(frozen=True)
class Accident:
    """A failure that did not end the run."""

    failure: Failure
    what: str
    """What is done about it, in words."""


@final
@dataclass
class NodeRecord:
    """One node, as the supervisor knows it."""

    budget: Budget = field(default_factory=Budget)
    state: NodeState = "starting"
    attempt: int = 0
    alive: bool = False
    working: bool = True  # its constructor or its run() has not ended
    has_run: bool = False
    journaled: bool = False  # an attempt of its kept a journal, so another will redo it
    asked: bool = False
    closed: bool = False
    closed_at: float = 0.0
    terminated: bool = False
    killed: bool = False
    started_at: float = 0.0
    begun_at: float | None = None  # when its constructor could begin
    ready_at: float | None = None  # when its constructor returned
    inspected: bool = False
    left: bool = False  # it leaves, or has left, a program that goes on
    detail: str = ""

    def start(self, now: float) -> None:
        """Another attempt begins."""
        self.state = "starting"
        self.alive = self.working = True
        self.has_run = self.asked = self.closed = self.terminated = self.killed = False
        self.left = False
        self.started_at, self.begun_at, self.ready_at, self.inspected = now, None, None, False
