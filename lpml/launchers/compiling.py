"""compile(): a program is made ready for one launcher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lpml.errors import GraphError
from lpml.launchers.names import check_name, cluster_address, uses_processes
from lpml.launchers.plan import NodePlan, Plan

if TYPE_CHECKING:
    from lpml.graph.program import Program


def compile(program: Program, launch: str = "local_mp", *, address: str | None = None) -> Plan:
    """Checks a program and says what a launcher would start.

    Args:
      program: the graph.
      launch: the launcher's name.
      address: of the Ray cluster, for `ray`; as `launch`.

    Returns:
      The plan; it can be printed, and nothing was started.

    Raises:
      GraphError: the program has faults; all of them are in it.
      UsageError: there is no such launcher, or it takes no address.
      LaunchError: there is no cluster at the address.
    """
    from lpml.graph.check import examine, payload
    from lpml.launchers import devices
    from lpml.launchers.base import load

    check_name(launch)
    cluster = cluster_address(launch, address)
    declared = program.nodes
    needs = {node.name: node.resources for node in declared}
    found = examine(program)
    faults = [*found.faults]
    places: dict[str, tuple[str, ...]] = {}
    if cluster is None:
        machine = devices.Machine.find()
        faults += devices.faults(needs, machine)
        places = {} if faults else devices.place(needs, machine)
    if faults:
        raise GraphError(*faults)
    apart = uses_processes(launch)
    nodes = []
    for node in declared:
        nodes.append(
            NodePlan(
                name=node.name,
                group=node.group,
                index=node.index,
                service=getattr(node.service, "__name__", type(node.service).__name__),
                interface=node.interface,
                payload=payload(node).data,
                edges=tuple(edge for edge in found.edges if edge.source == node.name),
                resources=node.resources,
                restart=node.restart,
                environment=(
                    devices.environment(
                        node.resources, None if launch == "ray" else places[node.name]
                    )
                    if apart
                    else {}
                ),
                process=(node.colocation or node.name) if apart else "launcher",
                placement=node.placement,
            )
        )
    plan = Plan(program.name, launch, tuple(nodes), cluster)
    if cluster is not None:
        refused = load(launch).refusals(plan)
        if refused:
            raise GraphError(*refused)
    return plan
