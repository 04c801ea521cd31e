"""What is started, where and with what: plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

from lpml.resources import Placement, Resources, Restart
from lpml.service import Interface

if TYPE_CHECKING:
    from lpml.graph.check import Edge


@final
@dataclass(frozen=True)
class NodePlan:
    """One node, ready to be started."""

    name: str
    """`group/index`."""
    group: str
    index: int
    service: str
    """The name of its class or factory."""
    interface: Interface
    payload: bytes = field(repr=False)
    """Its service, args and kwargs, pickled; handles inside become clients in the node."""
    edges: tuple[Edge, ...] = ()
    """The handles it holds."""
    resources: Resources = field(default_factory=Resources)
    restart: Restart = field(default_factory=Restart)
    environment: Mapping[str, str] = field(default_factory=dict)
    """What is set in its process before it imports anything of its own."""
    process: str = ""
    """Nodes with the same key share a process."""
    placement: Placement = field(default_factory=lambda: Placement("pack", ""))
    """On which hosts of a cluster."""
    address: str = ""
    """Where it will be reached; "" until it is launched."""

    @property
    def stateful(self) -> bool:
        """Whether its state is part of a checkpoint: it has `save` and `restore`."""
        return self.interface.stateful


@final
@dataclass(frozen=True)
class Plan:
    """A program compiled for one launcher. Nothing of it is started yet."""

    program: str
    launch: str
    nodes: tuple[NodePlan, ...]
    cluster: str | None = None
    """The address of the Ray cluster that it is for; `None` = this machine alone."""

    def may_return(self, node: NodePlan) -> bool:
        """Whether the node may be started again: by its own policy, or since the run is set back.

        Where a stateful node is restarted, all start again with it.
        """
        never = "never"
        return node.restart.when != never or any(
            other.stateful and other.restart.when != never for other in self.nodes
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and `program.json`; payloads appear as their sizes."""
        return {
            "program": self.program,
            "launch": self.launch,
            "cluster": self.cluster,
            "nodes": [_node_json(node) for node in self.nodes],
        }


def _node_json(node: NodePlan) -> dict[str, Any]:
    return {
        "name": node.name,
        "group": node.group,
        "index": node.index,
        "service": node.service,
        "methods": {
            name: {"kind": spec.kind, "stream": spec.stream}
            for name, spec in node.interface.methods.items()
        },
        "has_run": node.interface.has_run,
        "payload_bytes": len(node.payload),
        "edges": [dataclasses.asdict(edge) for edge in node.edges],
        "resources": dataclasses.asdict(node.resources),
        "restart": dataclasses.asdict(node.restart),
        "stateful": node.stateful,
        "environment": dict(node.environment),
        "process": node.process,
        "placement": dataclasses.asdict(node.placement),
        "address": node.address,
    }
