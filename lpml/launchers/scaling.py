"""More or fewer nodes of a group while a program runs: what may be scaled, and to which plan."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import final

from lpml.errors import UsageError, closest
from lpml.launchers.plan import NodePlan, Plan


@final
@dataclass(eq=False)
class ScaleRequest:
    """Somebody wants `count` nodes in a group, and waits until that is under way."""

    group: str
    count: int
    done: threading.Event = field(default_factory=threading.Event)
    names: tuple[str, ...] = ()
    """The nodes of the group from now on."""
    error: Exception | None = None


@final
@dataclass(frozen=True)
class Change:
    """From one plan to the next."""

    plan: Plan
    added: tuple[NodePlan, ...]
    removed: tuple[str, ...]


def change(
    plan: Plan, first: Plan, group: str, count: int, leaving: Collection[str] = ()
) -> Change:
    """What it takes for `group` to have `count` nodes.

    A new node has the arguments of the group's last one; `lpml.context().index` tells them apart.
    The last ones are the first to leave.

    Args:
      plan: what runs now.
      first: what the run began with: a group that has no nodes any more is as it was there.
      group: its name.
      count: at least 0.
      leaving: nodes that have not ended yet; their names cannot be given again so soon.

    Raises:
      UsageError: there is no such group, or its nodes cannot come and go.
    """
    known = {node.group: node for node in (*first.nodes, *plan.nodes)}  # the last of each group
    if group not in known:
        raise UsageError(f"scale({group!r}): no such group{closest(group, tuple(known))}")
    if count < 0:
        raise UsageError(f"scale({group!r}, {count}): give a number of nodes of at least 0")
    template = known[group]
    _check(plan, first, template, group)
    here = [node for node in plan.nodes if node.group == group]
    kept = {node.index for node in here[:count]}
    taken = {node.name for node in here}.union(leaving)
    free = (index for index in itertools.count() if f"{group}/{index}" not in taken)
    added = tuple(_copy(template, next(free)) for _ in range(count - len(here)))
    removed = tuple(node.name for node in here[count:])
    nodes = [n for n in plan.nodes if n.group != group or n.index in kept]
    place = max((i for i, n in enumerate(nodes) if n.group == group), default=len(nodes) - 1) + 1
    nodes[place:place] = added
    return Change(dataclasses.replace(plan, nodes=tuple(nodes)), added, removed)


def _copy(template: NodePlan, index: int) -> NodePlan:
    name = f"{template.group}/{index}"
    own = template.process == template.name
    edges = tuple(dataclasses.replace(edge, source=name) for edge in template.edges)
    return dataclasses.replace(
        template,
        name=name,
        index=index,
        edges=edges,
        process=name if own else template.process,
    )


def _check(plan: Plan, first: Plan, template: NodePlan, group: str) -> None:
    members = {n.name for n in (*first.nodes, *plan.nodes) if n.group == group}
    holders = sorted(
        edge.source for node in plan.nodes for edge in node.edges if edge.target in members
    )
    if holders:
        why = f"{', '.join(holders[:3])} hold handles of its nodes, and would not know the others"
    elif template.stateful:
        why = f"{template.service} has state (save and restore) that would be lost or missing"
    elif template.resources.gpu:
        why = f"its nodes have accelerators (gpu={template.resources.gpu:g}), shared out at launch"
    elif template.process not in (template.name, "launcher"):
        why = f"its nodes share one process ({template.process!r}), as `colocate` says"
    else:
        return
    raise UsageError(
        f"scale({group!r}): {why}; launch the program with the number of nodes that you want"
    )
