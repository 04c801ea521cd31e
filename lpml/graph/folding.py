"""What a drawing shows of a program: many nodes alike become one, with their number."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, final

from lpml.graph.check import Edge, edges
from lpml.graph.program import Declared, Program

FOLD_FROM = 3
"""So many nodes that are alike are drawn as one."""


@final
@dataclass(frozen=True)
class Shown:
    """One shape of a drawing: a node, or several that are alike."""

    key: str
    """`n0`, `n1`, ...: an identifier in every format."""
    label: str
    service: str
    role: str
    group: str
    colocation: str | None
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many nodes it stands for."""
        return len(self.names)


@final
@dataclass(frozen=True)
class Arrow:
    """Handles of the nodes `target` are held in parameters of the nodes `source`."""

    source: str
    target: str
    label: str


@final
@dataclass(frozen=True)
class Group:
    """A group that gets a box: it holds several nodes or groups, or shares one process."""

    path: tuple[str, ...]
    label: str


@final
@dataclass(frozen=True)
class Picture:
    """A program as it is drawn."""

    name: str
    nodes: tuple[Shown, ...]
    arrows: tuple[Arrow, ...]

    def groups(self) -> dict[tuple[str, ...], Group | None]:
        """Every group by its path, outer before inner; `None` for those that get no box."""
        paths = [one.group.split("/") for one in self.nodes]
        every = dict.fromkeys(tuple(path[: i + 1]) for path in paths for i in range(len(path)))
        processes = {one.colocation for one in self.nodes}
        found: dict[tuple[str, ...], Group | None] = {}
        for path in every:
            name = "/".join(path)
            shared = name in processes
            inside = sum(one.group == name for one in self.nodes)
            inside += sum(other[:-1] == path for other in every)
            label = f"{path[-1]} (one process)" if shared else path[-1]
            found[path] = Group(path, label) if shared or inside > 1 else None
        return found


def picture(program: Program) -> Picture:
    """Folds a program for drawing.

    Nodes are alike if they are of one group and service, and hold and are held by nodes that are
    alike, in the same parameters.

    Raises:
      GraphError: the program has faults.
    """
    known = edges(program) if program.nodes else ()
    classes = _alike(program.nodes, known)
    members: dict[int, list[Declared]] = defaultdict(list)
    for declared in program.nodes:
        members[classes[declared.name]].append(declared)
    sizes: dict[str, int] = defaultdict(int)
    for declared in program.nodes:
        sizes[declared.group] += 1
    shown: list[Shown] = []
    key_of: dict[str, str] = {}  # {node's name: key}
    for together in members.values():
        folded = len(together) >= FOLD_FROM
        for part in [together] if folded else [[one] for one in together]:
            key = f"n{len(shown)}"
            shown.append(_shown(key, part, alone=sizes[part[0].group] == 1))
            key_of.update((one.name, key) for one in part)
    return Picture(program.name, tuple(shown), _arrows(known, key_of))


def role_of(declared: Declared) -> str:
    """The role that a service says it has, such as "learner"; a plain class is a "service"."""
    role: Any = getattr(declared.node._origin.cls, "lpml_role", "service")
    return str(role).replace("_", " ").lower()


def _alike(nodes: tuple[Declared, ...], known: tuple[Edge, ...]) -> dict[str, int]:
    """`{name: class}`, refined until nodes of one class have the same edges to classes."""
    classes = _numbered({one.name: (one.group, one.interface.service) for one in nodes})
    while True:
        around: dict[str, set[tuple[bool, str, int]]] = {one.name: set() for one in nodes}
        for edge in known:
            around[edge.source].add((True, edge.parameter, classes[edge.target]))
            around[edge.target].add((False, edge.parameter, classes[edge.source]))
        finer = _numbered({n: (classes[n], frozenset(around[n])) for n in classes})
        if len(set(finer.values())) == len(set(classes.values())):
            return classes
        classes = finer


def _numbered(signatures: dict[str, Any]) -> dict[str, int]:
    numbers: dict[Any, int] = {}
    return {name: numbers.setdefault(one, len(numbers)) for name, one in signatures.items()}


def _shown(key: str, part: list[Declared], alone: bool) -> Shown:
    first = part[0]
    label = first.group if alone else first.name
    if len(part) > 1:
        label = f"{first.group} × {len(part)}"
    return Shown(
        key=key,
        label=label,
        service=first.interface.service,
        role=role_of(first),
        group=first.group,
        colocation=first.colocation,
        names=tuple(one.name for one in part),
    )


def _arrows(known: tuple[Edge, ...], key_of: dict[str, str]) -> tuple[Arrow, ...]:
    labels: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for edge in known:
        labels[key_of[edge.source], key_of[edge.target]][edge.parameter] = None
    return tuple(Arrow(a, b, ", ".join(parameters)) for (a, b), parameters in labels.items())
