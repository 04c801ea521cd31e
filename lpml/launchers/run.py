"""A run of a program: watched, asked, stopped, and waited for."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, final

from lpml.ending import at_exit
from lpml.errors import LaunchError, NodeError, UsageError, closest
from lpml.launchers.names import uses_processes
from lpml.launchers.plan import NodePlan, Plan
from lpml.launchers.status import NodeStatus, Outcome, RunStatus

# The rest is imported when something is launched: `import lpml` stays cheap.
if TYPE_CHECKING:
    from lpml.launchers.base import NodeReport
    from lpml.record.checkpoints import Checkpoint
    from lpml.record.folder import RunFolder

_REPORT_TIMEOUT = 0.5  # seconds that `status` waits for nodes that are busy


@final
class Run:
    """A program that is running. A context manager: leaving the block stops it.

    Made by `launch`. All methods may be called from any thread.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        sockets: Path,
        *,
        terminal: bool,
        stop_timeout: float,
        start_timeout: float,
        time_limit: float | None,
        temporary: bool,
        checkpoint_every: float | None,
        resumed: Checkpoint | None,
    ) -> None:
        from lpml.launchers.base import load
        from lpml.launchers.checkpointing import Checkpointing
        from lpml.launchers.supervisor import Supervisor
        from lpml.launchers.watch import Watch

        self.name = folder.name
        """The run's id: the name of its folder."""
        self.folder = folder
        self.launch = plan.launch
        self._stop_timeout = stop_timeout
        self._pid = os.getpid()
        self._supervisor = Supervisor(
            [node.name for node in plan.nodes],
            start_timeout=start_timeout,
            stop_timeout=stop_timeout,
            policies={node.name: node.restart for node in plan.nodes},
            units={node.name: node.process for node in plan.nodes if uses_processes(plan.launch)},
            stateful=[node.name for node in plan.nodes if node.stateful],
            attempts={} if resumed is None else _one_more(resumed.manifest.attempts),
            journaled=() if resumed is None else _journaled(folder, resumed),
        )
        self._engine = load(plan.launch)(plan, folder, sockets)
        checkpointing = Checkpointing(
            plan,
            folder,
            self._supervisor,
            every=checkpoint_every,
            order=self._engine.order,
            adopt=self._engine.adopt,
            resumed=resumed,
        )
        self._supervisor.saves_at_the_end = checkpoint_every is not None and checkpointing.possible
        self._watch = Watch(
            plan,
            self._engine,
            self._supervisor,
            folder,
            sockets,
            terminal=terminal,
            time_limit=time_limit,
            temporary=temporary,
            checkpointing=checkpointing,
            status=lambda: self._describe(self._engine.reports(0.0)).to_json(),
        )

    def _start(self, sockets: Path) -> None:
        try:
            self._open(sockets)
        except BaseException:
            self._engine.close()
            raise
        _live.add(self)
        self._watch.start()

    def _open(self, sockets: Path) -> None:
        from lpml.launchers import rendezvous
        from lpml.launchers.control import ControlServer

        control = ControlServer(self, sockets)
        self._watch.at_the_end(control.close)
        rendezvous.publish(sockets, self.name, self.plan.program, self.launch, self.folder.path)
        control.start()

    @property
    def plan(self) -> Plan:
        """What was started, with what `scale` has changed since."""
        return self._watch.plan

    @property
    def failure(self) -> NodeError | None:
        """The first failure of a node, or `None`."""
        failure = self._supervisor.verdict.failure
        if failure is None:
            return None
        log = self.folder.log_file(failure.node)
        return NodeError(failure.node, failure.reason, failure.traceback, str(log))

    def wait(self, timeout: float | None = None) -> Outcome:
        """Waits until every node has ended.

        Args:
          timeout: seconds; `None` = for ever.

        Returns:
          How it ended.

        Raises:
          NodeError: a node failed.
          TimeoutError: it still runs; nothing was stopped.
        """
        if not self._watch.ended.wait(timeout):
            raise TimeoutError(
                f"run {self.name} still runs after {timeout:g} s; wait longer, or stop() it"
            )
        outcome = self._outcome()
        failure = self.failure
        if failure is not None:
            raise failure
        return outcome

    def stop(self, reason: str = "", timeout: float | None = None) -> Outcome:
        """Stops the program and waits until nothing of it is left.

        Args:
          reason: shown to people.
          timeout: seconds until what still runs is killed; `None` = the launch's `stop_timeout`,
            0 = kill at once. Given during a stop it can only shorten it.

        Returns:
          How it ended; a failure is in it and in `failure`, and is not raised.
        """
        self.request_stop(reason, timeout)
        self._watch.ended.wait()
        return self._outcome()

    def request_stop(
        self, reason: str = "", timeout: float | None = None, *, save: bool = False
    ) -> None:
        """As `stop`, without waiting for the end.

        Args:
          reason: shown to people.
          timeout: as of `stop`. Saving counts into it.
          save: take a last checkpoint, even if there is no schedule of checkpoints.
        """
        from lpml.launchers.saving import StopRequest

        if not self._watch.ended.is_set():
            request = StopRequest(reason or "it was stopped", timeout, save=save)
            self._watch.request_stop(request)

    def checkpoint(self, timeout: float = 60.0) -> Path:
        """Saves the state of all stateful nodes as one cut, now, and waits until it is on the disk.

        Returns:
          Its folder. `lpml.launch(program, resume=...)` goes on from the newest one of a run.

        Raises:
          LaunchError: it could not be taken; the message says why.
          TimeoutError: it was not finished within `timeout` seconds.
        """
        from lpml.launchers.checkpointing import CutRequest

        request = CutRequest()
        self._watch.request_cut(request)
        end = self._engine.now() + timeout
        while not request.ended.wait(0.1):
            if self._watch.ended.is_set() and not request.ended.is_set():
                raise LaunchError(f"run {self.name} has ended; nothing is left to save")
            if self._engine.now() > end:
                raise TimeoutError(f"no checkpoint of run {self.name} within {timeout:g} s")
        if request.path is None:
            raise LaunchError(f"run {self.name}: no checkpoint was taken: {request.trouble}")
        return request.path

    def client(self, name: str) -> Any:
        """A client of the node `name`: an object with the methods of its service.

        Raises:
          UsageError: there is no such node.
        """
        self._check(name)
        return self._engine.client(name)

    def status(self) -> RunStatus:
        """What every node is doing. A node that does not answer shows what it last said."""
        if self._watch.ended.is_set():
            return self._describe(self._watch.reports)
        reports = self._engine.reports(_REPORT_TIMEOUT)
        self._watch.settle(_REPORT_TIMEOUT)
        return self._describe(reports)

    def scale(self, group: str, count: int) -> tuple[str, ...]:
        """Gives a group of stateless nodes more or fewer of them, while the program runs.

        New nodes have the arguments of the group's last one, and start at once; the last ones are
        the first to leave, as in a stop of their own. Returns when that is under way.

        Args:
          group: such as `actor`.
          count: how many nodes it is to have.

        Returns:
          The names of its nodes from now on.

        Raises:
          UsageError: there is no such group, or its nodes cannot come and go: others hold handles
            of them, they have state, accelerators or a process in common.
          LaunchError: the machine refuses what a new node needs, or the run has ended.
        """
        from lpml.launchers.scaling import ScaleRequest

        request = ScaleRequest(group, count)
        self._watch.request_scale(request)
        while not request.done.wait(0.1):
            if self._watch.ended.is_set() and not request.done.is_set():
                raise LaunchError(f"run {self.name} has ended; there is nothing to scale")
        if request.error is not None:
            raise request.error
        return request.names

    def stack(self, name: str, timeout: float = 5.0) -> str:
        """The Python stacks of every thread of a node, even of one that hangs in foreign code.

        Raises:
          UsageError: there is no such node.
        """
        self._check(name)
        return self._engine.stack(name, timeout)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop("the block that held the run was left")
        except BaseException:  # a second Ctrl-C, say: leave nothing behind, and hurry
            self.stop("", timeout=0.0)
            raise
        if error is None and self.failure is not None:
            raise self.failure

    def __repr__(self) -> str:
        return f"<Run {self.name}: {len(self.plan.nodes)} nodes on {self.launch}, {self._state()}>"

    def _check(self, name: str) -> None:
        names = tuple(node.name for node in self.plan.nodes)
        if name not in names:
            raise UsageError(f"{name!r}: no such node in run {self.name}{closest(name, names)}")

    def _state(self) -> str:
        if self._watch.trouble:
            return "failed"
        if self._supervisor.phase == "ended":
            return self._supervisor.verdict.state
        return "running" if self._supervisor.phase == "running" else "stopping"

    def _outcome(self) -> Outcome:
        self._watch.join()
        if self._watch.trouble and self._supervisor.verdict.failure is None:
            raise LaunchError(f"run {self.name}: {self._watch.trouble}")
        supervisor = self._supervisor
        return Outcome(supervisor.verdict.state, supervisor.verdict.reason, self._watch.seconds)

    def _describe(self, reports: Any) -> RunStatus:
        nodes = [self._node_status(node, reports.get(node.name)) for node in self.plan.nodes]
        return RunStatus(
            run=self.name,
            program=self.plan.program,
            launch=self.launch,
            state=self._state(),
            reason=self._supervisor.verdict.reason,
            seconds=self._watch.seconds,
            folder=str(self.folder.path),
            nodes=tuple(nodes),
        )

    def _node_status(self, node: NodePlan, report: NodeReport | None) -> NodeStatus:
        from lpml.launchers.base import NodeReport

        said = report or NodeReport()
        return NodeStatus(
            name=node.name,
            group=node.group,
            index=node.index,
            service=node.service,
            state=self._supervisor.node_state(node.name),
            pid=self._engine.pid(node.name),
            calls=said.calls,
            errors=said.errors,
            metrics=said.metrics,
            progress=said.progress,
            peak_memory=self._engine.peak_memory(node.name),
            detail=self._supervisor.detail(node.name),
            address=self._engine.address(node.name),
            restarts=self._supervisor.restarts(node.name),
        )


def _one_more(attempts: Mapping[str, int]) -> dict[str, int]:
    return {node: attempt + 1 for node, attempt in attempts.items()}


def _journaled(folder: RunFolder, cut: Checkpoint) -> tuple[str, ...]:
    """Who redoes a journal when a run goes on from a cut: all who have state, or nobody."""
    from lpml.record.checkpoints import Checkpoints

    return tuple(cut.manifest.nodes) if Checkpoints(folder).are_journaled(cut) else ()


_live: weakref.WeakSet[Run] = weakref.WeakSet()


@at_exit
def _stop_what_runs() -> None:
    """An interpreter that ends takes its runs along."""
    for run in list(_live):
        if run._pid == os.getpid() and not run._watch.ended.is_set():
            with contextlib.suppress(LaunchError):
                run.stop("the launcher's interpreter ends", timeout=3.0)
