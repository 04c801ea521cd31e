"""Program: named groups of nodes, and the handles between them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, final, get_args

from lpml.errors import GraphError
from lpml.graph.arguments import argument_faults
from lpml.graph.methods import method_faults
from lpml.graph.node import Node, P, S
from lpml.resources import Placement, Resources, Restart, Spreading
from lpml.service import Interface

_LABEL = re.compile(r"[A-Za-z0-9_.-]+")


@final
@dataclass(frozen=True)
class Declared:
    """A node in its place in a program."""

    name: str
    """`group/index`; nested groups are joined by `/`."""
    group: str
    index: int
    service: Callable[..., object]
    node: Node[Any, Any]
    """Holds the arguments, which may come after the node was added."""
    resources: Resources
    restart: Restart
    colocation: str | None
    """Nodes with the same key share one process; `None` = a process of its own."""
    placement: Placement
    interface: Interface


@dataclass(frozen=True)
class _Group:
    path: tuple[str, ...]
    resources: Resources | None
    restart: Restart | None
    colocation: str | None
    placement: Placement | None


_OUTSIDE = _Group((), None, None, None, None)


@final
class Program:
    """A graph of services. Declares what runs and who knows whom; says nothing of where.

    Args:
      name: letters, digits and `_.-`; names the run folder.

    Example:
      >>> class Counter:
      ...     def next(self) -> int: ...
      >>> class Worker:
      ...     def __init__(self, counter: Counter) -> None: ...
      >>> program = Program("count")
      >>> counter = program.add_node(Node(Counter))
      >>> with program.group("worker"):
      ...     for _ in range(2):
      ...         _ = program.add_node(Node(Worker, counter))
      >>> [declared.name for declared in program.nodes]
      ['counter/0', 'worker/0', 'worker/1']
    """

    def __init__(self, name: str) -> None:
        self.name = _checked(name, "a program's name")
        self._nodes: list[Declared] = []
        self._groups: list[_Group] = [_OUTSIDE]
        self._counts: dict[str, int] = {}  # {group: nodes in it}
        self._files: dict[str, str] = {}  # {name with dashes, as in file names: name}

    @property
    def nodes(self) -> tuple[Declared, ...]:
        """The nodes, in the order in which they were added."""
        return tuple(self._nodes)

    def group(
        self,
        label: str,
        *,
        resources: Resources | None = None,
        restart: Restart | None = None,
        colocate: bool = False,
        placement: Spreading | None = None,
    ) -> AbstractContextManager[None]:
        """Nodes added in the block belong to the group `label`. Groups nest.

        Args:
          label: letters, digits and `_.-`.
          resources: of each node of the group, unless an inner group says otherwise. `None` =
            those of the group around it, or of the service's role.
          restart: likewise.
          colocate: all nodes of the group, and of groups inside it, share one process.
          placement: on which hosts of a cluster its nodes go: `pack`, on as few as may be (where
            nothing else is said); `spread`, on as many as may be; `strict_pack`, all on one;
            `strict_spread`, each on another. A launcher of one machine has nothing to place.
            `None` = as the group around it.

        Raises:
          GraphError: the label has other characters, or there is no such placement.
        """
        if placement is not None and placement not in get_args(Spreading):
            known = ", ".join(get_args(Spreading))
            raise GraphError(f"group({label!r}, placement={placement!r}): give one of {known}")
        outer = self._groups[-1]
        path = (*outer.path, _checked(label, "a group's label"))
        key = outer.colocation or ("/".join(path) if colocate else None)
        placed = Placement(placement, "/".join(path)) if placement else outer.placement
        return self._entered(
            _Group(path, resources or outer.resources, restart or outer.restart, key, placed)
        )

    @contextmanager
    def _entered(self, group: _Group) -> Iterator[None]:
        self._groups.append(group)
        try:
            yield
        finally:
            self._groups.pop()

    def add_node(self, node: Node[P, S], label: str | None = None) -> S:
        """Puts a node into the program and returns the handle of its service.

        Args:
          node: a node that was not added yet, to this or another program.
          label: replaces the innermost group's label; outside of groups it is the group. With
            neither, the group is the name of the class in snake_case.

        Returns:
          The handle, typed as the service: pass it to the nodes that call this one.

        Raises:
          GraphError: the arguments do not fit the service's signature or its annotations, or a
            method is an `async def`. All faults are listed; the node was not added.
        """
        if not isinstance(node, Node):
            raise GraphError(
                f"add_node({node!r}): not a Node; write add_node(Node(Service, arguments...))"
            )
        declared = self._place(node, label)
        faults = method_faults(declared.name, node._origin.cls)
        if faults:
            raise GraphError(*faults)
        if node.configured:
            _raise_faults(declared)
        node._added(self, declared.name, lambda: _raise_faults(declared))
        self._nodes.append(declared)
        self._counts[declared.group] = declared.index + 1
        self._files[declared.name.replace("/", "-")] = declared.name
        return node.handle()

    def _place(self, node: Node[Any, Any], label: str | None) -> Declared:
        origin = node._origin
        if origin.program is not None:
            where = "this program" if origin.program is self else "another program"
            raise GraphError(
                f"{origin} was added to {where} before; make another Node for another node, "
                "or pass the handle you have"
            )
        surrounding = self._groups[-1]
        path = surrounding.path
        if label is not None:
            path = (*path[:-1], _checked(label, "a node's label"))
        group = "/".join(path) or _snake_case(origin.interface.service)
        index = self._counts.get(group, 0)
        name = f"{group}/{index}"
        other = self._files.get(name.replace("/", "-"))
        if other is not None:
            raise GraphError(f"{name} and {other} would share their files; rename one group")
        return Declared(
            name=name,
            group=group,
            index=index,
            service=node.service,
            node=node,
            resources=surrounding.resources or _role_default(node, "lpml_resources", Resources()),
            restart=surrounding.restart or _role_default(node, "lpml_restart", Restart.never()),
            colocation=surrounding.colocation,
            placement=surrounding.placement or Placement("pack", group),
            interface=origin.interface,
        )

    def __repr__(self) -> str:
        return f"<Program {self.name}: {len(self._nodes)} nodes>"


def _raise_faults(declared: Declared) -> None:
    node = declared.node
    faults = argument_faults(declared.name, node.service, node.args, node.kwargs)
    if faults:
        raise GraphError(*faults)


def _role_default(node: Node[Any, Any], attribute: str, otherwise: Any) -> Any:
    """What the service's role says, as a class attribute that a plain service need not have."""
    value = getattr(node._origin.cls, attribute, otherwise)
    if not isinstance(value, type(otherwise)):
        raise GraphError(
            f"{node._origin.interface.service}.{attribute} is {value!r}; "
            f"give a {type(otherwise).__name__}"
        )
    return value


def _checked(label: object, what: str) -> str:
    if not isinstance(label, str) or not _LABEL.fullmatch(label):
        raise GraphError(f"{label!r} cannot be {what}; use letters, digits and _ . - only")
    return label


def _snake_case(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return re.sub(r"[^A-Za-z0-9_.-]", "", words.lower().strip("_")) or "node"
