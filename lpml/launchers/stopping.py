"""How a program stops: one deadline, and what is done to each node until then. Without I/O.

::

    stopping --(no node works any more)--> saving, where a last cut is wanted
    stopping | saving --(nothing more to wait for | 80 % of the deadline)--> closing
    closing --(no node is alive)--> ended
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, final

from lpml.launchers.decisions import GRACE, Decision, NodeRecord

TERMINATE_AT = 0.6  # of the stop deadline: what still works is interrupted
CLOSE_AT = 0.8  # of the stop deadline: whoever has returned may go, even if others have not
CLOSING = 0.2  # of the stop deadline: what a node has for its end before it is interrupted

Phase = Literal["stopping", "saving", "closing", "ended"]
_Named = tuple[str, NodeRecord]


@final
class Stop:
    """One stop.

    Args:
      nodes: those of the program.
      now: when it begins.
      timeout: seconds until the last kill.
      notes: gets a line on each node that could not even be killed.
      save: wait for `saved` before anybody is told to end.
    """

    def __init__(
        self,
        nodes: dict[str, NodeRecord],
        now: float,
        timeout: float,
        notes: list[str],
        *,
        save: bool = False,
    ) -> None:
        self.phase: Phase = "stopping"
        self._save = save
        self._nodes = nodes
        self._notes = notes
        self._started = now
        self._deadline = now + timeout

    def begin(self) -> list[Decision]:
        """Asks everyone; who is between two attempts stays gone."""
        decisions = []
        for name, node in self._nodes.items():
            if node.alive:
                node.asked = True
                decisions.append(Decision("ask", name))
            elif node.state == "restarting":
                node.state = "stopped"
                decisions.append(Decision("give_up", name))
        return decisions

    def shorten(self, now: float, timeout: float) -> None:
        """Somebody is in a greater hurry. Never makes it longer."""
        if now + timeout < self._deadline:
            self._started = now
            self._deadline = now + timeout

    def saved(self) -> None:
        """Nobody waits for a cut any more."""
        self._save = False

    def next_deadline(self, after: float) -> float | None:
        """The next moment at which something is due."""
        if self.phase == "ended":
            return None
        steps = [self._terminate_at, self._close_at, self._deadline, self._deadline + GRACE]
        steps += [self._patience_with(node) for _, node in self._alive() if node.closed]
        return min((step for step in steps if step > after), default=None)

    def advance(self, now: float) -> list[Decision]:
        """What is due by now."""
        decisions: list[Decision] = []
        if now >= self._deadline:
            decisions += self._each("kill", [n for n in self._alive() if not n[1].killed])
            self.phase = "closing"
        if now >= self._deadline + GRACE:
            for name, node in self._alive():
                node.alive = False
                node.state = "stopped" if node.state == "restarting" else node.state
                self._notes.append(f"{name} could not be killed")
        elif now >= self._terminate_at:
            decisions += self._each("terminate", [n for n in self._alive() if self._late(n, now)])
        if self.phase in ("stopping", "saving"):
            idle = not any(node.working for _, node in self._alive())
            if now >= self._close_at or (idle and not self._save):
                self.phase = "closing"
            elif idle:
                self.phase = "saving"
        if self.phase == "closing":
            waiting = [n for n in self._alive() if not n[1].closed and not n[1].killed]
            decisions += self._each("close", waiting)
            for _, node in waiting:
                node.closed_at = now
            if not self._alive():
                self.phase = "ended"
        return decisions

    @property
    def _terminate_at(self) -> float:
        return self._started + TERMINATE_AT * (self._deadline - self._started)

    @property
    def _close_at(self) -> float:
        return self._started + CLOSE_AT * (self._deadline - self._started)

    def _late(self, named: _Named, now: float) -> bool:
        node = named[1]
        if node.terminated or node.killed:
            return False
        return node.working or (node.closed and now >= self._patience_with(node))

    def _patience_with(self, node: NodeRecord) -> float:
        """Until when a node that was told to end may take."""
        length = self._deadline - self._started
        return max(node.closed_at + CLOSING * length, self._terminate_at)

    def _alive(self) -> list[_Named]:
        return [(name, node) for name, node in self._nodes.items() if node.alive]

    @staticmethod
    def _each(
        what: Literal["close", "terminate", "kill"], nodes: Sequence[_Named]
    ) -> list[Decision]:
        for _, node in nodes:
            node.closed = node.closed or what == "close"
            node.terminated = node.terminated or what == "terminate"
            node.killed = node.killed or what == "kill"
        return [Decision(what, name) for name, _ in nodes]
