"""What a run looks like from outside: how it ended, and what every node is doing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from lpml.launchers.names import NodeState, OutcomeState
from lpml.record.metrics import json_number


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
    restarts: int = 0
    """How many times it was started again, in this run and those that it resumes."""


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
        """Plain data for `--json` and `status.json`; metrics that are not finite are words."""
        data = dataclasses.asdict(self)
        for node in data["nodes"]:
            node["metrics"] = {name: json_number(value) for name, value in node["metrics"].items()}
        return data
