"""Finds every fault of a program at once. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

from lpml.errors import GraphError
from lpml.graph import pickling
from lpml.graph.arguments import argument_faults, bound_arguments
from lpml.graph.culprits import find_culprit
from lpml.graph.handle import Origin
from lpml.graph.node import not_configured
from lpml.graph.pickling import Pickled
from lpml.graph.program import Declared, Program


@final
@dataclass(frozen=True)
class Edge:
    """The node `source` holds a handle of the node `target` in this parameter."""

    source: str
    target: str
    parameter: str


@final
@dataclass(frozen=True)
class Findings:
    """What there is to know of a program before it runs.

    Attributes:
      faults: each would keep the program from running.
      warnings: each is allowed and probably not meant.
      edges: who holds a handle of whom, as far as it can be seen.
    """

    faults: tuple[str, ...]
    warnings: tuple[str, ...]
    edges: tuple[Edge, ...]


def check(program: Program) -> tuple[str, ...]:
    """Every fault of the program, as messages; none if it is sound.

    Found are: no nodes at all, nodes never given their arguments, arguments that do not fit,
    handles of nodes that are not in this program, and values that cannot be pickled.
    """
    return examine(program).faults


def edges(program: Program) -> tuple[Edge, ...]:
    """Who holds a handle of whom, found wherever a handle hides, in the order of the nodes.

    Raises:
      GraphError: a node has no arguments yet, or one of its arguments cannot be looked through.
    """
    found = examine(program)
    if found.faults:
        raise GraphError(*found.faults)
    return found.edges


def payload(declared: Declared) -> Pickled:
    """The pickled `(service, args, kwargs)` of a node: what its worker unpickles.

    Raises:
      GraphError: as `dumps`, naming the node and its parameter.
    """
    node = declared.node
    value = (declared.service, node.args, dict(node.kwargs))
    try:
        return pickling.dumps(value)
    except GraphError as error:
        faults = [one for one in _faults_and_edges(declared, {}) if isinstance(one, str)]
        raise GraphError(*(faults or error.faults)) from error.__cause__


def examine(program: Program) -> Findings:
    """Faults, warnings and edges in one pass. What many nodes are given is looked through once."""
    found: list[str | Edge] = []
    seen: _Seen = {}
    if not program.nodes:
        found.append(f"program {program.name!r} has no nodes; add one with add_node")
    for declared in program.nodes:
        found += _faults_and_edges(declared, seen)
    known = tuple(dict.fromkeys(one for one in found if isinstance(one, Edge)))
    faults = tuple(one for one in found if isinstance(one, str))
    return Findings(faults, () if faults else _warnings(program, known), known)


_Seen = dict[int, tuple[Origin, ...]]  # {id of a value: the handles in it}; values are kept alive


def _faults_and_edges(declared: Declared, seen: _Seen) -> Iterator[str | Edge]:
    node = declared.node
    if not node.configured:
        yield not_configured(node._origin)
        return
    misfits = argument_faults(declared.name, node.service, node.args, node.kwargs)
    yield from misfits
    for label, value in _parts(declared):
        if id(value) not in seen:
            try:
                seen[id(value)] = pickling.scan(value)
            except Exception as error:
                yield f"{declared.name}: {find_culprit(label, value, error, pickling.scan)}"
                continue
        for origin in seen[id(value)]:
            yield _edge(declared, label.partition("[")[0], origin)


def _parts(declared: Declared) -> Iterator[tuple[str, Any]]:
    """The service, which may be a closure that holds handles, and each argument."""
    node = declared.node
    yield "service", node.service
    try:
        arguments = bound_arguments(node.service, node.args, node.kwargs)
    except TypeError:  # reported already
        return
    for path, _, value in arguments:
        yield path, value


def _edge(declared: Declared, label: str, origin: Origin) -> str | Edge:
    if origin.program is not declared.node._origin.program:
        return (
            f"{declared.name}: parameter {label!r} holds a handle of {origin}, which belongs to "
            "another program; add that node to this program"
        )
    return Edge(declared.name, origin.name or "", label)


def _warnings(program: Program, known: tuple[Edge, ...]) -> tuple[str, ...]:
    called = {edge.target for edge in known}
    return tuple(
        f"{declared.name}: no node holds its handle and {declared.interface.service} has no "
        "run(), so it will do nothing; pass its handle on, or leave it out"
        for declared in program.nodes
        if declared.name not in called and not declared.interface.has_run
    )
