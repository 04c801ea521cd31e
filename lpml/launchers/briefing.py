"""What a process of a run is told of itself and of the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from lpml.launchers import devices
from lpml.launchers.part import Part
from lpml.launchers.plan import Plan
from lpml.launchers.process import NodeProcess
from lpml.launchers.specs import NodeSpec, Peer, ProcessSpec
from lpml.record.folder import RunFolder
from lpml.service import Interface

MARK = "LPML_SOCKETS_OF_RUN"
"""An environment variable of every process of a run, by which leftovers are found."""


def brief(
    process: NodeProcess,
    plan: Plan,
    folder: RunFolder,
    part: Part | None,
    *,
    sockets: Path,
    stacks: Path,
    states: Mapping[str, str],
    address: Callable[[str], str],
    interfaces: Mapping[str, Interface],
) -> ProcessSpec:
    """What to send to a process that is being forked.

    Args:
      process: with its nodes and the attempts at them.
      plan: of the program.
      folder: of the run.
      part: the part of the program that is here; `None` = all.
      sockets: the folder of the sockets.
      stacks: the file for the process's stacks.
      states: `{node: where its state is}`.
      address: of a node by name.
      interfaces: of all nodes that were ever planned.
    """
    environment = {**process.nodes[0].environment, MARK: str(sockets)}
    names = {edge.target for node in process.nodes for edge in node.edges}
    return ProcessSpec(
        program=plan.program,
        folder=str(folder.path),
        nodes=tuple(
            NodeSpec(
                node.name,
                node.group,
                node.index,
                node.interface,
                node.payload,
                address(node.name),
                str(folder.log_file(node.name)),
                process.attempts[node.name],
                states.get(node.name, ""),
            )
            for node in process.nodes
        ),
        peers={name: Peer(name, address(name), interfaces[name]) for name in names},
        environment=environment if part is not None else {**os.environ, **environment},
        threads=max(devices.threads(node.resources) for node in process.nodes),
        path=absolute_path() if part is None else part.path,
        cwd=os.getcwd() if part is None else part.cwd,
        argv0=(sys.argv[0] if sys.argv else "") if part is None else part.argv0,
        stacks=str(stacks),
        host="" if part is None else part.host,
        sockets=str(sockets),
        identity=part.membership.identity if part and part.membership else None,
    )


def absolute_path() -> tuple[str, ...]:
    """Where this process looks for modules, also for processes in other folders."""
    return tuple(str(Path(entry).absolute()) for entry in sys.path)
