"""The thread that watches one run: events to the supervisor, its decisions to the engine.

It also shows what nodes print, keeps `status.json` up to date, and gives everything back at the
end, whatever that end was.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, final

from lpml.errors import LaunchError, UsageError
from lpml.launchers import rendezvous
from lpml.launchers.base import AbstractLauncher, Event, NodeReport
from lpml.launchers.checkpointing import Checkpointing, CutRequest
from lpml.launchers.decisions import Decision, Failure
from lpml.launchers.exporting import INTERVAL as EXPORT_INTERVAL
from lpml.launchers.exporting import Exporting
from lpml.launchers.names import uses_processes
from lpml.launchers.output import Echo
from lpml.launchers.plan import Plan
from lpml.launchers.saving import SavingStop, StopRequest
from lpml.launchers.supervisor import Supervisor
from lpml.record.folder import RunFolder

if TYPE_CHECKING:
    from lpml.launchers.scaling import ScaleRequest

T = TypeVar("T")
_log = logging.getLogger("lpml")

ECHO_INTERVAL = 0.1  # seconds between looks at the logs
STATUS_INTERVAL = 1.0  # seconds between two writes of status.json, at least


@final
class Watch:
    """Watches one run in a thread of its own.

    Args:
      plan: what runs.
      engine: what runs it.
      supervisor: who decides.
      folder: where it writes.
      sockets: the folder that is removed at the end.
      terminal: whether to show what nodes print.
      time_limit: seconds after which the run counts as failed; `None` = never.
      temporary: remove the run folder at the end.
      checkpointing: takes checkpoints.
      status: what `status.json` says.
    """

    def __init__(
        self,
        plan: Plan,
        engine: AbstractLauncher,
        supervisor: Supervisor,
        folder: RunFolder,
        sockets: Path,
        *,
        terminal: bool,
        time_limit: float | None,
        temporary: bool,
        checkpointing: Checkpointing,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self.ended = threading.Event()
        self.started_at = engine.now()
        self.ended_at: float | None = None
        self.reports: Mapping[str, NodeReport] = {}
        self.trouble = ""
        self.plan = plan
        self._first_plan = plan
        self._engine = engine
        self._supervisor = supervisor
        self._folder = folder
        self._sockets = sockets
        self._time_limit = time_limit
        self._temporary = temporary
        self._checkpointing = checkpointing
        self._status = status
        self._echo = (
            Echo({n.name: folder.log_file(n.name) for n in plan.nodes}) if terminal else None
        )
        self._requests: queue.SimpleQueue[StopRequest] = queue.SimpleQueue()
        self._seen: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._wanted: queue.SimpleQueue[CutRequest] = queue.SimpleQueue()
        self._scales: queue.SimpleQueue[ScaleRequest] = queue.SimpleQueue()
        self._saving_stop = SavingStop(supervisor, checkpointing)
        self._closers: list[Callable[[], None]] = []
        self._exporting = None if temporary else Exporting(folder)
        self._written = float("-inf")
        self._thread = threading.Thread(target=self._main, name="lpml-watch", daemon=True)

    def start(self) -> None:
        """Starts the nodes and the watching."""
        self._thread.start()

    def at_the_end(self, close: Callable[[], None]) -> None:
        """`close` is called when the run has ended. Before `start`."""
        self._closers.append(close)

    def request_stop(self, request: StopRequest) -> None:
        """Stops the run, soon. From any thread."""
        self._requests.put(request)
        self._engine.wake()

    def request_cut(self, request: CutRequest) -> None:
        """Takes a checkpoint, soon. From any thread."""
        self._wanted.put(request)
        self._engine.wake()

    def request_scale(self, request: ScaleRequest) -> None:
        """Changes the number of nodes of a group, soon. From any thread."""
        self._scales.put(request)
        self._engine.wake()

    def settle(self, timeout: float) -> None:
        """Waits until what the engine has heard by now is decided."""
        seen = threading.Event()
        self._seen.put(seen)
        self._engine.wake()
        if not self.ended.is_set():
            seen.wait(timeout)

    def join(self) -> None:
        """Waits for the last of it, after `ended`."""
        if threading.current_thread() is not self._thread:
            self._thread.join(5.0)

    @property
    def seconds(self) -> float:
        """How long the run has lasted."""
        end = self._engine.now() if self.ended_at is None else self.ended_at
        return end - self.started_at

    # The loop.

    def _main(self) -> None:
        try:
            self._loop()
        except BaseException as error:
            self.trouble = f"the launcher itself failed: {type(error).__name__}: {error}"
            raise
        finally:
            self._finish()

    def _loop(self) -> None:
        engine, supervisor, checkpointing = self._engine, self._supervisor, self._checkpointing
        checkpointing.start(engine.now())
        engine.carry_out(supervisor.start(engine.now()))
        while supervisor.phase != "ended":
            events = sorted(engine.poll(self._patience()), key=lambda event: event.at)
            waiting = _drain(self._seen)
            now = engine.now()
            decisions: list[Decision] = []
            for event in events:
                checkpointing.heard(event, now)
                decisions += self._feed(event, now)
            for request in _drain(self._requests):
                decisions += self._saving_stop.stop(request, now)
            decisions += self._check_limit(now)
            decisions += supervisor.tick(now)
            for scale in _drain(self._scales):
                decisions += self._scale(scale, now)
            for wanted in _drain(self._wanted):
                checkpointing.request(wanted)
            checkpointing.advance(now)
            decisions += self._saving_stop.advance(now)
            if supervisor.phase == "saving" and checkpointing.last_is_over:
                decisions += supervisor.saved(now)
            checkpointing.decided(decisions)
            engine.carry_out(decisions)
            for accident in supervisor.verdict.take_accidents():
                self._note(accident.failure, f"{accident.failure.reason}; {accident.what}")
            for seen in waiting:
                seen.set()
            if self._echo is not None:
                self._echo.poll()
            if self._exporting is not None:
                self._exporting.poll(now)
            if events or now - self._written > 10 * STATUS_INTERVAL:
                self._write_status(now)

    def _patience(self) -> float | None:
        now = self._engine.now()
        owed = (self._supervisor, self._checkpointing, self._saving_stop)
        ends = [each.next_deadline() for each in owed]
        if self._time_limit is not None and self._supervisor.phase == "running":
            ends.append(self.started_at + self._time_limit)
        if self._echo is not None:
            ends.append(now + ECHO_INTERVAL)
        if self._exporting is not None and not self._exporting.started:
            ends.append(now + EXPORT_INTERVAL)
        known = [end for end in ends if end is not None]
        return max(0.0, min(known) - now) if known else None

    def _feed(self, event: Event, now: float) -> list[Decision]:
        supervisor = self._supervisor
        if event.what == "begun":
            return supervisor.begun(event.node, now)
        if event.what == "ready":
            return supervisor.ready(
                event.node, now, has_run=event.has_run, journaled=event.journaled
            )
        if event.what == "returned":
            return supervisor.returned(event.node, now)
        if event.what == "failed":
            failure = Failure(
                event.node,
                event.text,
                event.traceback,
                event.at,
                consequence=event.consequence,
                hopeless=event.hopeless,
            )
            return supervisor.failed(failure, now)
        if event.what == "exited":
            return supervisor.exited(
                event.node,
                now,
                event.text,
                clean=event.clean,
                at=event.at,
                hopeless=event.hopeless,
            )
        if event.what == "abandoned":
            return supervisor.abandoned(event.node, now, event.text)
        if event.what == "overdue":
            return supervisor.overdue(event.node, now, event.traceback)
        if event.what in ("cut", "long_journal"):
            return []
        return self._saving_stop.finish(event.text, now)

    def _scale(self, request: ScaleRequest, now: float) -> list[Decision]:
        from lpml.launchers.scaling import change

        supervisor = self._supervisor
        decisions: list[Decision] = []
        try:
            if supervisor.phase != "running":
                raise UsageError(f"scale({request.group!r}): the program is stopping")
            changed = change(
                self.plan, self._first_plan, request.group, request.count, supervisor.leaving
            )
            self._engine.replan(changed.plan)
        except Exception as error:
            request.error = error
        else:
            before, self.plan = self.plan, changed.plan
            self._checkpointing.replan(changed.plan)
            content = self._folder.read_json(self._folder.program_json)
            with contextlib.suppress(LaunchError):  # a full disk ends no run
                self._folder.write_json(
                    self._folder.program_json, {**content, **changed.plan.to_json()}
                )
            apart = uses_processes(before.launch)
            for node in changed.added:
                if self._echo is not None:
                    self._echo.add(node.name, self._folder.log_file(node.name))
                unit = node.process if apart else None
                decisions += supervisor.join(node.name, node.restart, unit, now)
            for name in changed.removed:
                decisions += supervisor.leave(name, now)
            request.names = tuple(n.name for n in self.plan.nodes if n.group == request.group)
        request.done.set()
        return decisions

    def _check_limit(self, now: float) -> list[Decision]:
        limit, supervisor = self._time_limit, self._supervisor
        if limit is None or supervisor.phase != "running" or now < self.started_at + limit:
            return []
        names = [node.name for node in self.plan.nodes]
        late = [n for n in names if supervisor.node_state(n) in ("starting", "running")]
        node = late[0] if late else names[0]
        reason = (
            f"the program did not end within {limit:g} s (its time limit), and this node was "
            "not done; raise time_limit if it needs longer"
        )
        stack = self._engine.stack(node, timeout=0.0)
        return supervisor.failed(Failure(node, reason, stack, at=now), now)

    def _write_status(self, now: float) -> None:
        if now - self._written < STATUS_INTERVAL and self._supervisor.phase != "ended":
            return
        self._written = now
        try:
            self._folder.write_json(self._folder.status_json, self._status())
        except LaunchError as error:  # a full disk ends no run: the nodes that need it will say so
            _log.warning("%s", error)

    # The end.

    def _finish(self) -> None:
        steps = [
            self._last_reports,
            self._engine.close,
            *([self._echo.finish] if self._echo is not None else []),
            self._note_failures,
            *([self._exporting.close] if self._exporting is not None else []),
            *self._closers,
            self._checkpointing.close,
            self._mark_end,
            lambda: self._write_status(self._engine.now()),
            lambda: rendezvous.remove(self._sockets),
            self._remove_folder,
        ]
        trouble = []
        for step in steps:
            try:
                step()
            except Exception as error:
                trouble.append(f"{type(error).__name__}: {error}")
        if trouble and not self.trouble:
            self.trouble = "; ".join(trouble)
        self.ended.set()

    def _last_reports(self) -> None:
        self.reports = self._engine.reports(timeout=0.0)

    def _mark_end(self) -> None:
        self.ended_at = self._engine.now()

    def _note_failures(self) -> None:
        """Failures go to the logs last: behind what their nodes printed, and never shown twice."""
        for failure in self._supervisor.verdict.failures:
            self._note(failure, failure.reason)

    def _note(self, failure: Failure, words: str) -> None:
        with (
            contextlib.suppress(OSError),
            self._folder.log_file(failure.node).open("a", encoding="utf-8") as log,
        ):
            log.write(f"{failure.traceback}node {failure.node} failed: {words}\n")

    def _remove_folder(self) -> None:
        if self._temporary:
            shutil.rmtree(self._folder.path, ignore_errors=True)


def _drain(waiting: queue.SimpleQueue[T]) -> list[T]:
    """Everything in the queue, without waiting for more."""
    found: list[T] = []
    with contextlib.suppress(queue.Empty):
        while True:
            found.append(waiting.get_nowait())
    return found
