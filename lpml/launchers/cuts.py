"""One cut through all stateful nodes of a run: who is asked what, and when. Without I/O.

The state of each node is copied while nothing that could change any of them is going on:

1. *hold*: the main loop of every node stays at its next safe point (where it asks `should_stop`,
   or waits), so no loop is in the middle of what it does. Calls are still answered, so each gets
   there. A loop that waits in a call for others who are held is left where it is: its call has
   not been answered, and so it is one that was never made.
2. *shut*: stateful nodes take no more calls, callers before those whom they call, and wait until
   the calls inside have ended, or wait themselves. What a call does to others is done by then.
3. *save*: every stateful node copies its state. Nothing moves meanwhile, so an update that was
   acknowledged to anyone whose state says so is in the state of whoever acknowledged it, and one
   that is in no caller's state will not be made twice.
4. *release*: all go on; the copies are written while they do, and count when all are there.

Where a program has stopped by itself, its loops have ended and only *save* is left to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, final

from lpml.graph.layering import layers_of_boxes, without_cycles
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.plan import Plan
from lpml.record.folder import file_stem

PATIENCE: Mapping[str, float] = {"hold": 5.0, "shut": 5.0, "save": 60.0, "release": 600.0}
"""Seconds that each step may take: of a loop to its safe point, of a call, of a copy, of a disk."""
_SLACK = 2.0  # seconds after which an answer is late

Step = Literal["hold", "shut", "save", "release"]


def levels(plan: Plan) -> list[list[str]]:
    """The stateful nodes, those that call before those that they call, directly or not."""
    names = [node.name for node in plan.nodes]
    arrows = [(edge.source, edge.target) for node in plan.nodes for edge in node.edges]
    ahead = [arrow for arrow in without_cycles(names, arrows) if arrow is not None]
    layer = layers_of_boxes(names, ahead)
    stateful = [node.name for node in plan.nodes if node.stateful]
    found: dict[int, list[str]] = {}
    for name in sorted(stateful, key=lambda name: layer[name]):
        found.setdefault(layer[name], []).append(name)
    return list(found.values())


@final
class Cut:
    """One cut, from its first order to its last answer.

    Args:
      number: of the cut.
      levels: the stateful nodes in the order in which they are shut.
      loops: the nodes whose main loop goes on.
      folder: where the states are written.
      last: nothing goes on any more; only save.
    """

    def __init__(
        self,
        number: int,
        levels: Sequence[Sequence[str]],
        loops: Collection[str],
        folder: Path,
        *,
        last: bool = False,
    ) -> None:
        self.number = number
        self.folder = folder
        self.last = last
        self.trouble = ""
        """Why it failed."""
        self.done = False
        """Every state is written."""
        self._stateful = [name for level in levels for name in level]
        self._levels = [list(level) for level in levels]
        self._loops = list(loops)
        self._steps: list[tuple[Step, list[str]]] = [("save", self._stateful)]
        if not last:
            shut: list[tuple[Step, list[str]]] = [("shut", level) for level in self._levels]
            self._steps = [("hold", self._loops), *shut, *self._steps]
        self._steps.append(("release", list(dict.fromkeys([*self._stateful, *self._loops]))))
        self._step: Step = "hold"
        self._waiting: set[str] = set()
        self._end = 0.0

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected of it."""
        return self.done or bool(self.trouble)

    @property
    def written(self) -> bool:
        """Whether everybody goes on already, and only disks are waited for."""
        return self._step == "release"

    def next_deadline(self) -> float | None:
        """When `tick` must be called at the latest."""
        return None if self.over else self._end

    def begin(self, now: float) -> list[CutOrder]:
        """The first orders."""
        return self._next(now)

    def answered(self, order: str, node: str, answer: str, now: float) -> list[CutOrder]:
        """A node has carried out an order, or says why not."""
        if self.over or order != self._step or node not in self._waiting:
            return []
        self._waiting.discard(node)
        fine = {"hold": ("held", "calling"), "shut": ("quiet",), "save": ("copied",)}
        needed = order != "hold" or node in self._stateful
        if needed and answer not in fine.get(order, ("written",)):
            return self.abandon(f"{node}: {_words(answer)}")
        return self._next(now) if not self._waiting else []

    def lost(self, node: str) -> list[CutOrder]:
        """A node has ended."""
        if not self.over and (node in self._stateful or node in self._waiting):
            return self.abandon(f"{node} ended meanwhile")
        return []

    def tick(self, now: float) -> list[CutOrder]:
        """Time passed."""
        if self.over or now < self._end:
            return []
        late = ", ".join(sorted(self._waiting))
        return self.abandon(f"{late} did not answer in {PATIENCE[self._step]:g} s")

    def abandon(self, why: str) -> list[CutOrder]:
        """It will not be finished; everybody goes on."""
        self.trouble = why
        everyone = dict.fromkeys([*self._stateful, *self._loops])
        return [CutOrder("release", name, self.number) for name in everyone]

    def _next(self, now: float) -> list[CutOrder]:
        while self._steps:
            self._step, nodes = self._steps.pop(0)
            self._end = now + PATIENCE[self._step] + _SLACK
            self._waiting = set(nodes)
            if self._step == "release":
                self._waiting &= set(self._stateful)
            if nodes:
                return [self._order(name) for name in nodes]
        self.done = True
        return []

    def _order(self, name: str) -> CutOrder:
        path = ""
        if self._step == "release" and name in self._stateful:
            path = str(self.folder / file_stem(name))
        return CutOrder(self._step, name, self.number, PATIENCE[self._step], path)


def _words(answer: str) -> str:
    return "its loop came to no safe point" if answer == "busy" else answer
