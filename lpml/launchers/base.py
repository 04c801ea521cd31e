"""What every launcher is: an engine that starts the nodes of a plan and says what became of them.

`Run` owns the loop around it: events of the engine go to the supervisor, its decisions back to
the engine. An engine decides nothing.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lpml.errors import UsageError
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.names import LAUNCHERS, check_name
from lpml.launchers.plan import Plan
from lpml.record.folder import RunFolder


@dataclass(frozen=True)
class Event:
    """What happened to a node, or what it asks.

    `stop_program` carries the reason of a node that ends the program; `cut` is an answer to an
    order of a checkpoint, `long_journal` asks for one; the others are events of the supervisor.
    """

    what: Literal[
        "begun",
        "ready",
        "returned",
        "failed",
        "exited",
        "abandoned",
        "overdue",
        "stop_program",
        "cut",
        "long_journal",
    ]
    node: str
    at: float
    text: str = ""
    traceback: str = ""
    has_run: bool = False
    journaled: bool = False
    """Of a node that is ready: it keeps a journal."""
    consequence: bool = False
    hopeless: bool = False
    clean: bool = True
    phase: str = ""
    """Of a cut: which order was answered."""
    number: int = 0
    """Of a cut."""


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself when it is asked."""

    calls: int = 0
    errors: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    progress: tuple[float, float | None] | None = None


class AbstractLauncher(ABC):
    """The engine of one run. All but the last group is called by one thread.

    Args:
      plan: what it starts.
      folder: where logs and metrics go.
      sockets: a private folder for this run; it is removed when the run has ended.

    Raises:
      LaunchError: the machine refuses a socket, a file or a process. Nothing is left then.
    """

    @abstractmethod
    def __init__(self, plan: Plan, folder: RunFolder, sockets: Path) -> None: ...

    @classmethod
    def refusals(cls, plan: Plan) -> list[str]:
        """What a plan asks for and this engine can never give, one line each.

        Raises:
          LaunchError: the cluster that the plan is for cannot be asked.
        """
        del plan
        return []

    @abstractmethod
    def now(self) -> float:
        """The time that events and deadlines are in."""

    @abstractmethod
    def carry_out(self, decisions: list[Decision]) -> None:
        """Does to the nodes what the supervisor decided. Does not wait for the effect."""

    @abstractmethod
    def poll(self, timeout: float | None) -> list[Event]:
        """Waits until something happens, `wake` is called or `timeout` seconds passed."""

    @abstractmethod
    def replan(self, plan: Plan) -> None:
        """The program has other nodes from now on. New ones are started by a decision, and those
        that are not in the plan any more are told to end by others.

        Raises:
          LaunchError: the machine refuses what a new node needs; nothing was changed.
        """

    @abstractmethod
    def order(self, order: CutOrder) -> None:
        """Has a node do its part in a checkpoint; the answer comes as an event `cut`.

        A node that is not there does not answer.
        """

    @abstractmethod
    def adopt(self, states: Mapping[str, str]) -> None:
        """Nodes that are started from now on are restored: `{node: where its state is}`."""

    @abstractmethod
    def close(self) -> None:
        """Gives back everything the engine holds; every node has ended or been given up."""

    # From any thread.

    @abstractmethod
    def wake(self) -> None:
        """Makes `poll` return now."""

    @abstractmethod
    def address(self, node: str) -> str:
        """Where a node is reached from outside this process; "" where it is not."""

    @abstractmethod
    def client(self, node: str) -> Any:
        """A client of a node."""

    def service(self, node: str) -> object:
        """The object itself, or `None` before it is built.

        Raises:
          UsageError: it lives in another process, as where nothing else is said.
        """
        raise UsageError(
            f"{node} lives in a process of its own, so its object cannot be had here; "
            "call it through client(), or launch on 'test' or 'local_mt'"
        )

    @abstractmethod
    def reports(self, timeout: float) -> Mapping[str, NodeReport]:
        """What each node says of itself; the last known where it does not answer in time."""

    @abstractmethod
    def pid(self, node: str) -> int:
        """The process of a node; 0 before it has one."""

    @abstractmethod
    def peak_memory(self, node: str) -> int:
        """The most main memory that its process has used, in bytes; 0 where unknown."""

    @abstractmethod
    def stack(self, node: str, timeout: float) -> str:
        """The Python stacks of every thread of a node."""


def load(launch: str) -> type[AbstractLauncher]:
    """The class of a launcher, imported now.

    Raises:
      UsageError: there is no such launcher.
    """
    check_name(launch)
    module, _, name = LAUNCHERS[launch].partition(":")
    found: type[AbstractLauncher] = getattr(importlib.import_module(module), name)
    return found
