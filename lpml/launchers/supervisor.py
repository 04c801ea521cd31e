"""Who died, what that means for the program, and when all stop: a state machine without I/O.

Events come in as method calls with the time `now`; decisions come out as a list. The launchers
carry them out and report what became of them. Nothing here reads a clock, so a launcher with
virtual time uses it as it is.

The life of a program::

    running --(every run() returned | stop asked | a node failed)--> stopping
    stopping --(no node works any more | 80 % of the deadline)--> closing
    closing --(no node is alive)--> ended
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, final

from lpml.launchers.names import NodeState, OutcomeState

Phase = Literal["running", "stopping", "closing", "ended"]

TERMINATE_AT = 0.6  # of the stop deadline: what still works is interrupted
CLOSE_AT = 0.8  # of the stop deadline: whoever has returned may go, even if others have not
CLOSING = 0.2  # of the stop deadline: what a node has for its end before it is interrupted
INSPECTION = 2.0  # seconds that a node which does not start has to say where it hangs
PATIENCE = 60.0  # seconds until every node has a process or a thread, whatever start_timeout is
GRACE = 5.0  # seconds after a kill until a node that cannot die is given up


@dataclass(frozen=True)
class Decision:
    """What the launcher must do to one node.

    `start`: run it. `ask`: tell it to stop, still serving. `close`: stop serving and end.
    `terminate`: interrupt whatever it does. `kill`: end it at once. `inspect`: report where it
    hangs, as `overdue`.
    """

    what: Literal["start", "ask", "close", "terminate", "kill", "inspect"]
    node: str


@dataclass(frozen=True)
class Failure:
    """Why a node failed.

    Args:
      node: its name.
      reason: one line.
      traceback: its traceback or "".
      at: when it happened, in the launcher's time.
      consequence: whether it only says that another node was gone (NodeUnavailable).
    """

    node: str
    reason: str
    traceback: str = ""
    at: float = 0.0
    consequence: bool = False


@dataclass
class _Node:
    state: NodeState = "starting"
    alive: bool = False
    working: bool = True  # its constructor or its run() has not ended
    has_run: bool = False
    asked: bool = False
    closed: bool = False
    closed_at: float = 0.0
    terminated: bool = False
    killed: bool = False
    begun_at: float | None = None  # when its constructor could begin
    inspected: bool = False
    detail: str = ""


@final
class Supervisor:
    """Decides for one run. Not thread-safe: one thread feeds it.

    Args:
      nodes: names.
      start_timeout: seconds that a constructor may take.
      stop_timeout: seconds from the first sign of the stop to the last kill.
    """

    def __init__(
        self, nodes: Iterable[str], *, start_timeout: float = 120.0, stop_timeout: float = 10.0
    ) -> None:
        self._nodes = {name: _Node() for name in nodes}
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._phase: Phase = "running"
        self._started_at = 0.0
        self._stop_started = 0.0
        self._stop_deadline = 0.0
        self._ticked = 0.0
        self._state: OutcomeState = "finished"
        self._reason = ""
        self._failures: list[Failure] = []
        self._notes: list[str] = []

    # What is known.

    @property
    def phase(self) -> Phase:
        """Where the program stands."""
        return self._phase

    @property
    def state(self) -> OutcomeState:
        """How the program ended, or is about to."""
        return "failed" if self._failures else self._state

    @property
    def reason(self) -> str:
        """Why it ended, and who had to be killed for it."""
        failure = self.failure
        first = f"{failure.node}: {failure.reason}" if failure else self._reason
        return "; ".join([first, *self._notes]) if first else "; ".join(self._notes)

    @property
    def failure(self) -> Failure | None:
        """The failure to show: the first that is not the mere consequence of another."""
        return min(self._failures, key=lambda f: (f.consequence, f.at), default=None)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Every failure, in the order in which they were heard of."""
        return tuple(self._failures)

    def node_state(self, node: str) -> NodeState:
        """The state of one node."""
        return self._nodes[node].state

    def detail(self, node: str) -> str:
        """One line on why the node is in its state, or ""."""
        return self._nodes[node].detail

    def next_deadline(self) -> float | None:
        """When `tick` must be called at the latest, if nothing happens; `None` = never."""
        if self._phase == "running":
            return min((self._start_deadline(node) for _, node in self._starting()), default=None)
        if self._phase == "ended":
            return None
        steps = [*self._steps(), self._stop_deadline, self._stop_deadline + GRACE]
        steps += [self._patience_with(node) for _, node in self._alive() if node.closed]
        return min((step for step in steps if step > self._ticked), default=None)

    # What happens.

    def start(self, now: float) -> list[Decision]:
        """The launcher is ready to start nodes."""
        self._started_at = self._ticked = now
        for node in self._nodes.values():
            node.alive = True
        return [Decision("start", name) for name in self._nodes]

    def begun(self, node: str, now: float) -> list[Decision]:
        """The node has its process or thread; what it has for its constructor counts from here."""
        self._ticked = now
        self._nodes[node].begun_at = now
        return []

    def ready(self, node: str, now: float, *, has_run: bool) -> list[Decision]:
        """The constructor returned; the node serves, and works on if it has a `run()`."""
        self._ticked = now
        known = self._nodes[node]
        if known.state != "starting":
            return []
        known.state = "running"
        known.has_run = has_run
        known.working = has_run
        return self._advance(now)

    def returned(self, node: str, now: float) -> list[Decision]:
        """`run()` returned, or the node gave up cleanly because of the stop."""
        self._ticked = now
        known = self._nodes[node]
        if known.state in ("starting", "running"):
            known.state = "finished" if self._phase == "running" else "stopped"
            known.working = False
        return self._advance(now)

    def failed(self, failure: Failure, now: float) -> list[Decision]:
        """The constructor or `run()` raised."""
        self._ticked = now
        known = self._nodes[failure.node]
        if known.state == "failed":
            return []
        known.state = "failed"
        known.detail = failure.reason
        known.working = False
        self._failures.append(failure)
        return self._begin_stop(now) + self._advance(now)

    def exited(
        self, node: str, now: float, how: str = "", *, clean: bool = True, at: float | None = None
    ) -> list[Decision]:
        """The node is gone.

        Args:
          node: its name.
          now: the time.
          how: the decoded exit, "" for a normal one.
          clean: whether it ended as a node ends that was told to.
          at: when it died, if that is known better than by `now`.
        """
        self._ticked = now
        known = self._nodes[node]
        if not known.alive:
            return []
        known.alive = False
        known.working = False
        died_at = now if at is None else at
        decisions: list[Decision] = []
        if known.state == "failed":
            pass  # it said why before it went
        elif known.killed or known.terminated:
            known.state = "stopped"
            known.detail = how
            if not clean:
                self._notes.append(f"{node} had to be killed")
        elif known.closed and (clean or not self._only_consequences()):
            known.state = "finished" if known.state == "finished" else "stopped"
            if not clean:
                known.detail = how
                self._notes.append(f"{node} {how or 'ended badly'} while it closed")
        elif known.asked and clean:
            known.state = "finished" if known.state == "finished" else "stopped"
        else:
            known.state = "failed"
            known.detail = how or "ended without being asked to"
            self._failures.append(Failure(node, known.detail, at=died_at))
            decisions += self._begin_stop(now)
        return decisions + self._advance(now)

    def abandoned(self, node: str, now: float, why: str) -> list[Decision]:
        """The node cannot be ended; the run ends without it."""
        known = self._nodes[node]
        if known.alive:
            self._notes.append(f"{node} {why}")
            known.killed = True
        return self.exited(node, now, why, clean=True)

    def overdue(self, node: str, now: float, stack: str = "") -> list[Decision]:
        """The node was inspected because it does not start; `stack` says where it hangs."""
        if self._nodes[node].state != "starting" or self._phase != "running":
            return []
        reason = (
            f"its constructor did not return within {self._start_timeout:g} s; "
            "raise start_timeout if it needs longer"
        )
        return self.failed(Failure(node, reason, stack, at=now), now)

    def stop(
        self,
        now: float,
        reason: str = "",
        *,
        state: OutcomeState = "stopped",
        timeout: float | None = None,
    ) -> list[Decision]:
        """Somebody asked for the end.

        Args:
          now: the time.
          reason: shown to people.
          state: `finished` where the program itself asked, `stopped` where somebody outside did.
          timeout: seconds for the whole stop. A stop under way is only ever shortened.
        """
        self._ticked = now
        if self._phase == "ended":
            return []
        decisions = []
        if self._phase == "running":
            self._state = state
            self._reason = reason
            decisions = self._begin_stop(now, timeout)
        elif timeout is not None and now + timeout < self._stop_deadline:
            self._stop_started = now
            self._stop_deadline = now + timeout
        return decisions + self._advance(now)

    def tick(self, now: float) -> list[Decision]:
        """Time passed."""
        self._ticked = now
        decisions: list[Decision] = []
        if self._phase == "running":
            for name, node in self._starting():
                if now < self._start_deadline(node):
                    continue
                if not node.inspected:
                    node.inspected = True
                    decisions.append(Decision("inspect", name))
                else:  # it does not even say where it hangs
                    decisions += self.overdue(name, now)
        return decisions + self._advance(now)

    # How one thing leads to the next.

    def _starting(self) -> list[tuple[str, _Node]]:
        return [(name, node) for name, node in self._alive() if node.state == "starting"]

    def _start_deadline(self, node: _Node) -> float:
        if node.begun_at is None:
            end = self._started_at + max(self._start_timeout, PATIENCE)
        else:
            end = node.begun_at + self._start_timeout
        return end + (INSPECTION if node.inspected else 0.0)

    def _steps(self) -> tuple[float, float]:
        length = self._stop_deadline - self._stop_started
        return (
            self._stop_started + TERMINATE_AT * length,
            self._stop_started + CLOSE_AT * length,
        )

    def _patience_with(self, node: _Node) -> float:
        """Until when a node that was told to end may take."""
        length = self._stop_deadline - self._stop_started
        return max(node.closed_at + CLOSING * length, self._stop_started + TERMINATE_AT * length)

    def _begin_stop(self, now: float, timeout: float | None = None) -> list[Decision]:
        if self._phase != "running":
            return []
        self._phase = "stopping"
        self._stop_started = now
        self._stop_deadline = now + (self._stop_timeout if timeout is None else timeout)
        asked = [name for name, node in self._nodes.items() if node.alive]
        for name in asked:
            self._nodes[name].asked = True
        return [Decision("ask", name) for name in asked]

    def _advance(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        if self._phase == "running" and self._all_returned():
            self._reason = self._reason or "every run() returned"
            decisions += self._begin_stop(now)
        if self._phase in ("stopping", "closing"):
            terminate_at, close_at = self._steps()
            if now >= self._stop_deadline:
                decisions += self._each("kill", [n for n in self._alive() if not n[1].killed])
                self._phase = "closing"
            if now >= self._stop_deadline + GRACE:
                for name, node in self._alive():
                    node.alive = False
                    self._notes.append(f"{name} could not be killed")
            elif now >= terminate_at:
                late = [
                    (name, node)
                    for name, node in self._alive()
                    if not node.terminated
                    and not node.killed
                    and (node.working or (node.closed and now >= self._patience_with(node)))
                ]
                decisions += self._each("terminate", late)
            if self._phase == "stopping" and now >= close_at:
                self._phase = "closing"
        if self._phase == "stopping" and not any(n.working for _, n in self._alive()):
            self._phase = "closing"
        if self._phase == "closing":
            waiting = [n for n in self._alive() if not n[1].closed and not n[1].killed]
            decisions += self._each("close", waiting)
            for _, node in waiting:
                node.closed_at = now
            if not self._alive():
                self._phase = "ended"
        return decisions

    def _only_consequences(self) -> bool:
        """Whether nodes failed because another was gone, and none is known to have gone."""
        return bool(self._failures) and all(failure.consequence for failure in self._failures)

    def _each(
        self,
        what: Literal["close", "terminate", "kill"],
        nodes: Sequence[tuple[str, _Node]],
    ) -> list[Decision]:
        for _, node in nodes:
            node.closed = node.closed or what == "close"
            node.terminated = node.terminated or what == "terminate"
            node.killed = node.killed or what == "kill"
        return [Decision(what, name) for name, _ in nodes]

    def _alive(self) -> list[tuple[str, _Node]]:
        return [(name, node) for name, node in self._nodes.items() if node.alive]

    def _all_returned(self) -> bool:
        nodes = self._nodes.values()
        with_run = [node for node in nodes if node.has_run]
        return (
            bool(with_run)
            and not any(node.state == "starting" for node in nodes)
            and not any(node.working for node in with_run)
        )
