"""Nodes that end together and start again together: a state machine without I/O."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import final

from lpml.launchers.decisions import GRACE, Decision, NodeRecord


@final
@dataclass(eq=False)
class Group:
    """Nodes that start again once all of them are gone and a pause is over."""

    names: tuple[str, ...]
    pause: float
    back: bool
    """The run is set back: nothing of before counts."""
    due: float | None
    """When they start; `None` = some are still there."""
    patience: float
    """When those that are still there are ended, or given up."""
    ended: bool = False
    """They were told to end at once."""


@final
class Groups:
    """The nodes of a program that are about to start again.

    Args:
      nodes: all of the program.
    """

    def __init__(self, nodes: dict[str, NodeRecord]) -> None:
        self._nodes = nodes
        self._groups: list[Group] = []

    def next_deadline(self) -> float | None:
        """The next moment at which something is due."""
        ends = [group.patience if group.due is None else group.due for group in self._groups]
        return min(ends, default=None)

    def gather(
        self,
        culprit: str,
        names: Collection[str],
        pause: float,
        now: float,
        *,
        back: bool = False,
    ) -> list[Decision]:
        """These nodes are to start again; ends those that live, but for the culprit, who ends."""
        joined = set(names)
        for group in [group for group in self._groups if joined & set(group.names)]:
            joined |= set(group.names)
            pause = max(pause, group.pause)
            back = back or group.back
            self._groups.remove(group)
        members = tuple(name for name in self._nodes if name in joined)
        self._groups.append(Group(members, pause, back, None, now + GRACE))
        decisions = []
        for name in members:
            node = self._nodes[name]
            if node.alive and name != culprit and node.state != "restarting":
                decisions.append(Decision("end", name))
            node.state = "restarting"
            node.working = False
        self.settle(now)
        return decisions

    def settle(self, now: float) -> None:
        """Somebody has ended: the pause of a group begins when nobody of it is left."""
        for group in self._groups:
            if group.due is None and not self._left(group):
                group.due = now + group.pause

    def drop(self, name: str, now: float) -> None:
        """A node is not to start again after all."""
        for group in self._groups:
            group.names = tuple(other for other in group.names if other != name)
        self._groups = [group for group in self._groups if group.names]
        self.settle(now)

    def take_due(self, now: float) -> list[Group]:
        """The groups that are to start now; they are forgotten here."""
        due = [group for group in self._groups if group.due is not None and now >= group.due]
        self._groups = [group for group in self._groups if group not in due]
        return due

    def hasten(self, now: float) -> tuple[list[Decision], list[str]]:
        """What is done about nodes that do not end: decisions, and those that nothing ends."""
        decisions: list[Decision] = []
        stuck: list[str] = []
        for group in [g for g in self._groups if g.due is None and now >= g.patience]:
            if group.ended:
                self._groups.remove(group)
                stuck.append(self._left(group)[0])
            else:
                group.ended, group.patience = True, now + GRACE
                decisions += [Decision("end", name) for name in self._left(group)]
        return decisions, stuck

    def _left(self, group: Group) -> list[str]:
        return [name for name in group.names if self._nodes[name].alive]
