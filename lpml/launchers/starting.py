"""How long a constructor may take, and what is done about one that does not return. Without I/O."""

from __future__ import annotations

from typing import final

from lpml.launchers.decisions import Decision, Failure, NodeRecord

INSPECTION = 2.0  # seconds that a node which does not start has to say where it hangs
PATIENCE = 60.0  # seconds until every node has a process or a thread, whatever start_timeout is


@final
class Starting:
    """Watches the nodes that are being built.

    Args:
      nodes: all of the program.
      timeout: seconds that a constructor may take.
    """

    def __init__(self, nodes: dict[str, NodeRecord], timeout: float) -> None:
        self._nodes = nodes
        self._timeout = timeout

    def next_deadline(self) -> float | None:
        """The next moment at which something is due."""
        return min((self._deadline(node) for _, node in self._built()), default=None)

    def late(self, now: float) -> tuple[list[Decision], list[str]]:
        """Whose time is over: those to be inspected, and those who do not even answer that."""
        decisions: list[Decision] = []
        hopeless: list[str] = []
        for name, node in self._built():
            if now < self._deadline(node):
                continue
            if node.inspected:
                hopeless.append(name)
            else:
                node.inspected = True
                decisions.append(Decision("inspect", name))
        return decisions, hopeless

    def failure(self, node: str, now: float, stack: str) -> Failure:
        """The failure of a node that took too long."""
        reason = (
            f"its constructor did not return within {self._timeout:g} s; "
            "raise start_timeout if it needs longer"
        )
        return Failure(node, reason, stack, at=now)

    def _built(self) -> list[tuple[str, NodeRecord]]:
        nodes = self._nodes.items()
        return [(name, node) for name, node in nodes if node.alive and node.state == "starting"]

    def _deadline(self, node: NodeRecord) -> float:
        if node.begun_at is None:
            end = node.started_at + max(self._timeout, PATIENCE)
        else:
            end = node.begun_at + self._timeout
        return end + (INSPECTION if node.inspected else 0.0)
