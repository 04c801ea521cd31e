"""A run of a program: watched, asked, stopped, and waited for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from lpml.errors import NodeError
from lpml.launchers.plan import Plan
from lpml.launchers.supervisor import NodeState, OutcomeState

if TYPE_CHECKING:
    from lpml.graph.program import Program
    from lpml.record.folder import RunFolder


@final
@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    `finished`: every `run()` returned, or a node stopped the program. `stopped`: somebody outside
    asked. `failed`: a node failed.
    """

    state: OutcomeState
    reason: str
    seconds: float
    """From the launch to the end of the last node."""


@final
@dataclass(frozen=True)
class NodeStatus:
    """One node, as seen now."""

    name: str
    group: str
    index: int
    service: str
    state: NodeState
    pid: int = 0
    calls: int = 0
    errors: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    progress: tuple[float, float | None] | None = None
    peak_memory: int = 0
    """Bytes."""
    detail: str = ""
    """Why it is in this state, where there is something to say."""
    address: str = ""


@final
@dataclass(frozen=True)
class RunStatus:
    """A run, as seen now."""

    run: str
    program: str
    launch: str
    state: str
    """`running`, `stopping`, or the state of its outcome."""
    reason: str
    seconds: float
    folder: str
    nodes: tuple[NodeStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and `status.json`."""
        return dataclasses.asdict(self)


@final
class Run:
    """A program that is running. A context manager: leaving the block stops it.

    Made by `launch`. All methods may be called from any thread.
    """

    name: str
    """The run's id: the name of its folder."""
    folder: RunFolder
    launch: str
    plan: Plan

    @property
    def failure(self) -> NodeError | None:
        """The first failure of a node, or `None`."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> Outcome:
        """Waits until every node has ended.

        Args:
          timeout: seconds; `None` = for ever.

        Returns:
          How it ended.

        Raises:
          NodeError: a node failed.
          TimeoutError: it still runs; nothing was stopped.
        """
        raise NotImplementedError

    def stop(self, reason: str = "", timeout: float | None = None) -> Outcome:
        """Stops the program and waits until nothing of it is left.

        Args:
          reason: shown to people.
          timeout: seconds until what still runs is killed; `None` = the launch's `stop_timeout`,
            0 = kill at once. Given during a stop it can only shorten it.

        Returns:
          How it ended; a failure is in it and in `failure`, and is not raised.
        """
        raise NotImplementedError

    def client(self, name: str) -> Any:
        """A client of the node `name`: an object with the methods of its service.

        Raises:
          UsageError: there is no such node.
        """
        raise NotImplementedError

    def status(self) -> RunStatus:
        """What every node is doing. A node that does not answer shows what it last said."""
        raise NotImplementedError

    def stack(self, name: str, timeout: float = 5.0) -> str:
        """The Python stacks of every thread of a node, even of one that hangs in foreign code.

        Raises:
          UsageError: there is no such node.
        """
        raise NotImplementedError

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        raise NotImplementedError


def launch(
    program: Program,
    launch: str = "local_mp",
    *,
    directory: Path | str | None = None,
    terminal: bool = True,
    stop_timeout: float = 10.0,
    start_timeout: float = 120.0,
) -> Run:
    """Starts a program. Returns as soon as every node is on its way.

    Args:
      program: the graph.
      launch: where it runs: `local_mp` processes, `local_mt` threads, `test` threads with a time
        limit.
      directory: the folder that run folders are made in; `None` = `./runs`.
      terminal: whether what nodes print is shown here, each line with its node.
      stop_timeout: seconds that a stop may take before what still runs is killed.
      start_timeout: seconds that the constructor of a node may take.

    Raises:
      GraphError: the program has faults.
      UsageError: there is no such launcher.
      LaunchError: the machine refused something: a folder, a socket, a process.
    """
    raise NotImplementedError
