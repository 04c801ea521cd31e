"""Takes the checkpoints of a run: on a schedule, on request, and a last one when it stops."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, final

from lpml.clock import current_clock
from lpml.errors import LaunchError
from lpml.launchers.base import Event
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.decisions import Decision
from lpml.launchers.names import version
from lpml.launchers.plan import Plan
from lpml.launchers.supervisor import Supervisor
from lpml.record.folder import RunFolder

# The rest is imported with the first cut: most programs start without.
if TYPE_CHECKING:
    from lpml.launchers.cuts import Cut
    from lpml.record.checkpoints import Checkpoint, Checkpoints, Manifest

_log = logging.getLogger("lpml")
AGAIN = 5.0  # seconds after a cut that failed until the next, at most


@final
@dataclass(eq=False)
class CutRequest:
    """Somebody wants a checkpoint now, and waits for it."""

    ended: threading.Event = field(default_factory=threading.Event)
    path: Path | None = None
    trouble: str = ""


@final
class Checkpointing:
    """Takes the cuts of one run. Used by the thread that watches it.

    Args:
      plan: what runs.
      folder: of the run.
      supervisor: says when all nodes are there.
      every: seconds from one cut to the next; `None` = only when asked, or told to at the end.
      order: carries out an order.
      adopt: called with `{node: where its state is}` of each new cut.
      resumed: the cut that the run went on from.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        supervisor: Supervisor,
        *,
        every: float | None,
        order: Callable[[CutOrder], object],
        adopt: Callable[[Mapping[str, str]], object],
        resumed: Checkpoint | None = None,
    ) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._every = every
        self._order = order
        self._adopt = adopt
        self._seconds_before = 0.0 if resumed is None else resumed.manifest.seconds
        self.replan(plan)
        self._cut: Cut | None = None
        self._manifest: Manifest | None = None
        self._requests: list[CutRequest] = []  # for the next cut
        self._answered: list[CutRequest] = []  # by the cut that is being taken
        self._due: float | None = None  # the next cut; `None` = when all nodes are there
        self._last_begun = False
        self._began = 0.0
        if resumed is not None:
            self._use(resumed)

    def replan(self, plan: Plan) -> None:
        """The program has other nodes from now on."""
        self._plan = plan
        self._stateful = {node.name: node.service for node in plan.nodes if node.stateful}
        self._has_loop = {node.name for node in plan.nodes if node.interface.has_run}

    @functools.cached_property
    def _checkpoints(self) -> Checkpoints:
        from lpml.record.checkpoints import Checkpoints

        return Checkpoints(self._folder)

    @property
    def possible(self) -> bool:
        """Whether the program has any state to save."""
        return bool(self._stateful)

    def start(self, now: float) -> None:
        """The run begins."""
        self._began = now

    def request(self, request: CutRequest) -> None:
        """A cut is wanted as soon as may be."""
        if not self.possible:
            self._answer([request], "no node of this program has both save() and restore()")
        elif self._supervisor.phase != "running":
            self._answer([request], "the program is stopping")
        else:
            self._requests.append(request)

    def next_deadline(self) -> float | None:
        """When `advance` must be called at the latest, if nothing happens."""
        if self._cut is not None:
            return self._cut.next_deadline()
        waits = self._supervisor.phase == "running" and self._supervisor.all_ready
        return self._due if waits and self._scheduled else None

    def heard(self, event: Event, now: float) -> None:
        """An event of a node: an answer to an order, its end, or that it should be saved."""
        if event.what == "long_journal":
            self.request(CutRequest())
        if self._cut is None:
            return
        if event.what == "cut" and event.number == self._cut.number:
            self._carry_out(self._cut.answered(event.phase, event.node, event.text, now))
        elif event.what in ("exited", "failed"):
            self._carry_out(self._cut.lost(event.node))

    def advance(self, now: float) -> None:
        """Begins, goes on with and ends cuts as it is time."""
        phase = self._supervisor.phase
        cut = self._cut
        if cut is not None:
            self._carry_out(cut.tick(now))
            if phase != "running" and not cut.last and not cut.written and not cut.over:
                self._carry_out(cut.abandon("the program stops"))
            if cut.over:
                self._end(cut, now)
        if self._cut is None and phase == "running":
            self._begin_if_due(now)
        if self._cut is None and phase == "saving" and not self._last_begun:
            self._last_begun = True
            self._begin(now, last=True)
        if phase not in ("running", "saving", "stopping"):
            for waiting in (self._requests, self._answered):
                self._answer(waiting, "the program is stopping")

    def decided(self, decisions: list[Decision]) -> None:
        """Before decisions are carried out: nodes that are set back have nothing to redo."""
        if any(decision.afresh for decision in decisions):
            self._checkpoints.forget_journals()

    def close(self) -> None:
        """The run has ended. Where it cannot be resumed, its journals are of no use."""
        if self._folder.journals.exists() and self._checkpoints.latest() is None:
            self._checkpoints.forget_journals()

    @property
    def last_is_over(self) -> bool:
        """Whether there is nothing more to wait for before nodes are told to end."""
        return self._last_begun and self._cut is None

    @property
    def _scheduled(self) -> bool:
        return self._every is not None and self.possible

    def _begin_if_due(self, now: float) -> None:
        if not self._supervisor.all_ready:
            return
        if self._due is None and self._scheduled:
            # The first cut is taken at once, so that there is something to go back to.
            self._due = now if not self._supervisor.has_cut else now + (self._every or 0.0)
        if self._requests or (self._scheduled and self._due is not None and now >= self._due):
            self._begin(now)

    def _begin(self, now: float, *, last: bool = False) -> None:
        from lpml.launchers.cuts import Cut, levels
        from lpml.record.checkpoints import Manifest

        alive = [n for n in self._stateful if self._supervisor.is_alive(n)]
        if last and len(alive) < len(self._stateful):
            missing = ", ".join(sorted(set(self._stateful) - set(alive)))
            self._warn(f"no last checkpoint was taken, since some nodes ended before: {missing}")
            return
        # Who asks later means what is acknowledged until then, which this cut may not have.
        self._answered, self._requests = self._requests, []
        try:
            number, part = self._checkpoints.begin()
        except LaunchError as error:
            self._failed(str(error), now)
            return
        loops = [n for n in self._has_loop if self._supervisor.node_state(n) == "running"]
        self._manifest = Manifest(
            number=number,
            program=self._plan.program,
            nodes=dict(self._stateful),
            attempts={n.name: self._supervisor.attempt(n.name) for n in self._plan.nodes},
            lpml=version(),
        )
        self._cut = Cut(number, levels(self._plan), loops, part, last=last)
        self._carry_out(self._cut.begin(now))

    def _carry_out(self, orders: list[CutOrder]) -> None:
        cut, manifest = self._cut, self._manifest
        if orders and orders[0].what == "release" and cut is not None and manifest is not None:
            # Everybody stands still: what is in the files now belongs to the cut.
            self._manifest = dataclasses.replace(
                manifest,
                metrics=self._checkpoints.metrics_sizes(),
                wall_time=current_clock().wall_time(),
            )
        for order in orders:
            self._order(order)

    def _end(self, cut: Cut, now: float) -> None:
        self._cut = None
        if cut.trouble:
            self._checkpoints.abandon(cut.folder)
            self._failed(cut.trouble, now)
            return
        assert self._manifest is not None
        seconds = self._seconds_before + now - self._began
        try:
            whole = self._checkpoints.commit(
                cut.folder, dataclasses.replace(self._manifest, seconds=seconds)
            )
        except LaunchError as error:
            self._failed(str(error), now)
            return
        self._use(whole)
        self._due = now + (self._every or 0.0)
        for request in self._answered:
            request.path = whole.path
        self._answer(self._answered, "")

    def _use(self, cut: Checkpoint) -> None:
        self._supervisor.has_cut = True
        self._adopt({node: str(cut.stem(node)) for node in cut.manifest.nodes})

    def _failed(self, trouble: str, now: float) -> None:
        self._due = now + min(AGAIN, self._every or AGAIN)
        if self._supervisor.phase == "running" or self._last_begun:
            self._warn(f"no checkpoint was taken: {trouble}")
        self._answer(self._answered, trouble)

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._plan.program, text)

    @staticmethod
    def _answer(requests: list[CutRequest], trouble: str) -> None:
        for request in requests:
            request.trouble = trouble
            request.ended.set()
        requests.clear()
