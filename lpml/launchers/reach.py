"""Which nodes start again with one that died: a state machine without I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, final

from lpml.launchers.decisions import NodeRecord


class Again(NamedTuple):
    """What starts again."""

    names: tuple[str, ...]
    back: bool
    """The run is set back to its last cut."""
    what: str
    """In words, to follow those of the restart itself."""


@final
class Reach:
    """How far the death of a node reaches.

    A node without state is replaced, and so is one that keeps a journal, which makes it again what
    it was. The state of any other is of the last cut, so all nodes go back there with it.

    Args:
      nodes: all of the program.
      units: `{node: unit}`: nodes of one unit die together, and start again together.
      stateful: nodes whose state is saved.
    """

    def __init__(
        self, nodes: Mapping[str, NodeRecord], units: Mapping[str, str], stateful: Collection[str]
    ) -> None:
        self._nodes = nodes
        self._units = dict(units)
        self._stateful = frozenset(stateful)

    def join(self, node: str, unit: str | None) -> None:
        """A node was added."""
        if unit is not None:
            self._units[node] = unit

    def is_stateful(self, node: str) -> bool:
        """Whether its state is saved."""
        return node in self._stateful

    def unit_of(self, node: str) -> tuple[str, ...]:
        """Those who start again with it in any case, itself among them."""
        unit = self._units.get(node)
        if unit is None:
            return (node,)
        return tuple(other for other in self._nodes if self._units.get(other) == unit)

    def of(self, node: str) -> Again:
        """Who starts again when it has died."""
        unit = self.unit_of(node)
        saved = [name for name in unit if name in self._stateful]
        if any(not self._nodes[name].journaled for name in saved):
            present = tuple(name for name, known in self._nodes.items() if not known.left)
            return Again(present, True, ", and the whole run is set back to its last checkpoint")
        return Again(unit, False, ", and what it has journaled is redone" if saved else "")
