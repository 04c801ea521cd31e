"""Who died, what that means for the program, and when all stop: a state machine without I/O.

Events come in as method calls with the time `now`; decisions come out as a list. The launchers
carry them out and report what became of them. Nothing here reads a clock, so a launcher with
virtual time uses it as it is.

A node that dies is started again where its policy says so; the first failure that no policy
covers ends the run. The life of a program::

    running --(every run() returned | stop asked | a failure that nothing covers)--> stopping

and from there as `stopping` says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, final

from lpml.launchers.decisions import Accident, Decision, Failure, NodeRecord
from lpml.launchers.groups import Groups
from lpml.launchers.names import NodeState, OutcomeState
from lpml.launchers.reach import Reach
from lpml.launchers.restarts import Budget
from lpml.launchers.starting import Starting
from lpml.launchers.stopping import Stop
from lpml.launchers.verdict import Verdict
from lpml.resources import Restart

Phase = Literal["running", "stopping", "saving", "closing", "ended"]

_NO_CUT = (
    "it has state, and no checkpoint of the run to set it back to; "
    "give --checkpoint-every (checkpoint_every=) for its restart policy to be of use"
)


@final
class Supervisor:
    """Decides for one run. Not thread-safe: one thread feeds it.

    Args:
      nodes: names.
      start_timeout: seconds that a constructor may take.
      stop_timeout: seconds from the first sign of the stop to the last kill.
      policies: `{node: policy}`; a node that is not in it is never restarted.
      units: `{node: unit}`: nodes of one unit die together, and start again together.
      stateful: nodes whose state is saved; `Reach` says what that means for a restart.
      attempts: `{node: attempts before}`; 0 where it says nothing.
      journaled: nodes that have journals to redo from a run before.
    """

    def __init__(
        self,
        nodes: Iterable[str],
        *,
        start_timeout: float = 120.0,
        stop_timeout: float = 10.0,
        policies: Mapping[str, Restart] | None = None,
        units: Mapping[str, str] | None = None,
        stateful: Collection[str] = (),
        attempts: Mapping[str, int] | None = None,
        journaled: Collection[str] = (),
    ) -> None:
        policies = policies or {}
        self.has_cut = False
        """Whether there is a checkpoint to set the run back to."""
        self.verdict = Verdict()
        """How the run has gone so far."""
        self.saves_at_the_end = False
        """Whether a stop waits for a last cut (`saved`) before nodes are told to end."""
        self._nodes = {
            name: NodeRecord(
                Budget(policies.get(name, Restart.never())),
                attempt=(attempts or {}).get(name, 0),
                journaled=name in journaled,
            )
            for name in nodes
        }
        self._restarts = any(policy.when != "never" for policy in policies.values())
        self._reach = Reach(self._nodes, units or {}, stateful)
        self._groups = Groups(self._nodes)  # nodes that are about to start again
        self._leaving: list[Stop] = []  # nodes that leave while the program goes on
        self._first_attempts = dict(attempts or {})
        self._starting = Starting(self._nodes, start_timeout)
        self.stop_timeout = stop_timeout
        self._stop: Stop | None = None
        self._ticked = 0.0

    # What is known.

    @property
    def phase(self) -> Phase:
        """Where the program stands."""
        return "running" if self._stop is None else self._stop.phase

    def node_state(self, node: str) -> NodeState:
        """The state of one node."""
        return self._nodes[node].state

    def is_alive(self, node: str) -> bool:
        """Whether it has been started and is not known to be gone."""
        return self._nodes[node].alive

    def attempt(self, node: str) -> int:
        """How many times a node was started before."""
        return self._nodes[node].attempt

    @property
    def leaving(self) -> tuple[str, ...]:
        """Nodes that were told to leave and are not gone."""
        return tuple(name for name, node in self._nodes.items() if node.left and node.alive)

    def restarts(self, node: str) -> int:
        """How many times a node was started again in this run."""
        return self._nodes[node].attempt - self._first_attempts.get(node, 0)

    def detail(self, node: str) -> str:
        """One line on why the node is in its state, or ""."""
        return self._nodes[node].detail

    @property
    def all_ready(self) -> bool:
        """Whether every node serves, or has ended as it should."""
        return not any(node.state in ("starting", "restarting") for node in self._nodes.values())

    def next_deadline(self) -> float | None:
        """When `tick` must be called at the latest, if nothing happens; `None` = never."""
        if self._stop is not None:
            return self._stop.next_deadline(self._ticked)
        ends = [stop.next_deadline(self._ticked) for stop in self._leaving]
        ends += [self._starting.next_deadline(), self._groups.next_deadline()]
        return min((end for end in ends if end is not None), default=None)

    # What happens.

    def start(self, now: float) -> list[Decision]:
        """The launcher is ready to start nodes."""
        self._ticked = now
        return self._start(self._nodes, now)

    def join(self, node: str, policy: Restart, unit: str | None, now: float) -> list[Decision]:
        """A node is added to the program while it runs, or comes back to it."""
        self._ticked = now
        if node in self._nodes:
            self._nodes[node].attempt += 1
        else:
            self._nodes[node] = NodeRecord(Budget(policy))
            self._restarts = self._restarts or policy.when != "never"
            self._reach.join(node, unit)
        return self._start([node], now)

    def leave(self, node: str, now: float) -> list[Decision]:
        """A node is to end while the program goes on."""
        self._ticked = now
        known = self._nodes[node]
        known.left = True
        self._groups.drop(node, now)
        stop = Stop({node: known}, now, self.stop_timeout, self.verdict.notes)
        self._leaving.append(stop)
        return stop.begin() + self._advance(now)

    def begun(self, node: str, now: float) -> list[Decision]:
        """The node has its process or thread; what it has for its constructor counts from here."""
        self._ticked = now
        self._nodes[node].begun_at = now
        return []

    def ready(
        self, node: str, now: float, *, has_run: bool, journaled: bool = False
    ) -> list[Decision]:
        """The constructor returned; the node serves, and works on if it has a `run()`."""
        self._ticked = now
        known = self._nodes[node]
        if known.state != "starting":
            return []
        known.state = "running"
        known.ready_at = now
        known.has_run = has_run
        known.working = has_run
        known.journaled = journaled
        return self._advance(now)

    def returned(self, node: str, now: float) -> list[Decision]:
        """`run()` returned, or the node gave up cleanly because of the stop."""
        self._ticked = now
        known = self._nodes[node]
        if known.state not in ("starting", "running"):
            return self._advance(now)
        known.working = False
        again = self._stop is None and not known.left and not self._reach.is_stateful(node)
        if again and known.budget.covers(failed=False):
            pause = known.budget.spend(_served(known, now))
            others = self._groups.gather(node, self._reach.unit_of(node), pause, now)
            return others or [Decision("retire", node)]
        known.state = "stopped" if known.left or self._stop is not None else "finished"
        return self._advance(now)

    def failed(self, failure: Failure, now: float) -> list[Decision]:
        """The constructor or `run()` raised. The node ends by itself, and is then `exited`."""
        self._ticked = now
        known = self._nodes[failure.node]
        if known.state in ("failed", "restarting"):
            return []
        known.working = False
        # What was never up before and raises is a mistake that another attempt would repeat.
        if known.ready_at is None and not self.restarts(failure.node) and not failure.consequence:
            failure = dataclasses.replace(failure, hopeless=True)
        return self._judge(failure, now) + self._advance(now)

    def exited(
        self,
        node: str,
        now: float,
        how: str = "",
        *,
        clean: bool = True,
        at: float | None = None,
        hopeless: bool = False,
    ) -> list[Decision]:
        """The node is gone.

        Args:
          node: its name.
          now: the time.
          how: the decoded exit, "" for a normal one.
          clean: whether it ended as a node ends that was told to.
          at: when it died, if that is known better than by `now`.
          hopeless: whether no other attempt can be started.
        """
        self._ticked = now
        known = self._nodes[node]
        if not known.alive:
            return []
        known.alive = False
        known.working = False
        decisions: list[Decision] = []
        if known.state == "failed":
            decisions = self._given_up(node)  # it said why before it went
        elif known.state == "restarting":
            decisions = self._gone(node, now)
        elif known.killed or known.terminated:
            known.state = "stopped"
            known.detail = how
            if not clean:
                self.verdict.notes.append(f"{node} had to be killed")
        elif known.closed and (clean or not self.verdict.only_consequences):
            known.state = "finished" if known.state == "finished" else "stopped"
            if not clean:
                known.detail = how
                self.verdict.notes.append(f"{node} {how or 'ended badly'} while it closed")
        elif known.asked and clean:
            known.state = "finished" if known.state == "finished" else "stopped"
        else:
            reason = how or "ended without being asked to"
            at = now if at is None else at
            decisions = self._judge(Failure(node, reason, at=at, hopeless=hopeless), now)
        return decisions + self._advance(now)

    def abandoned(self, node: str, now: float, why: str) -> list[Decision]:
        """The node cannot be ended; the run ends without it."""
        known = self._nodes[node]
        if known.alive:
            self.verdict.notes.append(f"{node} {why}")
            known.killed = True
        return self.exited(node, now, why, clean=True)

    def overdue(self, node: str, now: float, stack: str = "") -> list[Decision]:
        """The node was inspected because it does not start; `stack` says where it hangs."""
        if self._nodes[node].state != "starting" or self._stop is not None:
            return []
        return self.failed(self._starting.failure(node, now, stack), now)

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
        decisions = []
        if self._stop is None:
            self.verdict.end(state, reason)
            decisions = self._begin_stop(now, timeout)
        elif timeout is not None:
            self._stop.shorten(now, timeout)
        return decisions + self._advance(now)

    def saved(self, now: float) -> list[Decision]:
        """The last cut is done, or will never be."""
        self._ticked = now
        if self._stop is not None:
            self._stop.saved()
        return self._advance(now)

    def tick(self, now: float) -> list[Decision]:
        """Time passed."""
        self._ticked = now
        decisions: list[Decision] = []
        if self._stop is None:
            inspections, hopeless = self._starting.late(now)
            decisions += inspections
            for name in hopeless:
                decisions += self.overdue(name, now)
            decisions += self._restart(now)
        return decisions + self._advance(now)

    # Restarts.

    def _judge(self, failure: Failure, now: float) -> list[Decision]:
        """What a failure means: a restart, or the end of the run."""
        name = failure.node
        known = self._nodes[name]
        known.detail = failure.reason
        if known.left and self._stop is None:
            known.state = "stopped"
            self.verdict.survive(Accident(failure, "it was leaving the program"))
            return []
        budget = known.budget
        covered = self._stop is None and not failure.hopeless and budget.covers(failed=True)
        again = self._reach.of(name)
        if covered and (self.has_cut or not again.back):
            pause = budget.spend(_served(known, now))
            self.verdict.survive(Accident(failure, f"{budget.words} in {pause:g} s{again.what}"))
            return self._groups.gather(name, again.names, pause, now, back=again.back)
        if covered:
            failure = _because(failure, _NO_CUT)
        elif budget.used and self._stop is None and not failure.hopeless:
            times = "once" if budget.used == 1 else f"{budget.used} times"
            failure = _because(failure, f"it was restarted {times}, and no more may be")
        known.state = "failed"
        known.detail = failure.reason
        self.verdict.failures.append(failure)
        gone = [] if known.alive else self._given_up(name)
        return gone + self._begin_stop(now)

    def _given_up(self, name: str) -> list[Decision]:
        """Where nothing is ever restarted, callers learn by themselves that a node is gone."""
        return [Decision("give_up", name)] if self._restarts else []

    def _gone(self, name: str, now: float) -> list[Decision]:
        """A node that is to start again has ended."""
        if self._stop is not None:
            self._nodes[name].state = "stopped"
            return self._given_up(name)
        self._groups.settle(now)
        return []

    def _restart(self, now: float) -> list[Decision]:
        """Starts whose time has come, and sees to those who do not end."""
        decisions, stuck = self._groups.hasten(now)
        for group in self._groups.take_due(now):
            for name in group.names:
                self._nodes[name].attempt += 1
            decisions += self._start(group.names, now, afresh=group.back)
        for name in stuck:
            self._nodes[name].state = "failed"
            reason = "it could not be ended, so it cannot be restarted"
            self.verdict.failures.append(Failure(name, reason, at=now))
            decisions += self._begin_stop(now)
        return decisions

    # How one thing leads to the next.

    def _start(self, names: Iterable[str], now: float, *, afresh: bool = False) -> list[Decision]:
        decisions = []
        for name in names:
            self._nodes[name].start(now)
            decisions.append(Decision("start", name, self._nodes[name].attempt, afresh))
        return decisions

    def _begin_stop(self, now: float, timeout: float | None = None) -> list[Decision]:
        if self._stop is not None:
            return []
        length = self.stop_timeout if timeout is None else timeout
        save = self.saves_at_the_end and not self.verdict.failures
        self._stop = Stop(self._nodes, now, length, self.verdict.notes, save=save)
        return self._stop.begin()

    def _advance(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        if self._stop is None:
            for stop in self._leaving:
                decisions += stop.advance(now)
            self._leaving = [stop for stop in self._leaving if stop.phase != "ended"]
        if self._stop is None and self._all_returned():
            self.verdict.end("finished", "every run() returned")
            decisions += self._begin_stop(now)
        if self._stop is not None:
            decisions += self._stop.advance(now)
        return decisions

    def _all_returned(self) -> bool:
        nodes = self._nodes.values()
        with_run = [node for node in nodes if node.has_run and not node.left]
        return bool(with_run) and self.all_ready and not any(node.working for node in with_run)


def _served(node: NodeRecord, now: float) -> float:
    return 0.0 if node.ready_at is None else now - node.ready_at


def _because(failure: Failure, more: str) -> Failure:
    return dataclasses.replace(failure, reason=f"{failure.reason}; {more}")
