"""One node, wherever it lives: unpickle, build, serve, run, report."""

from __future__ import annotations

import inspect
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from lpml import wire
from lpml.context import Context, entered
from lpml.errors import ProgramStopped, UsageError
from lpml.graph import pickling
from lpml.launchers import exits
from lpml.launchers.base import Event, NodeReport
from lpml.launchers.local import Door
from lpml.service import Interface
from lpml.wire.server import Remote

if TYPE_CHECKING:
    from lpml.launchers.cutorder import CutOrder
    from lpml.launchers.cutting import Cutting
    from lpml.record.journal import Journal

SWITCH_INTERVAL = 0.0005  # seconds; in a node that both runs and serves, or replies wait 5 ms


@final
class Host:
    """One node: its context, its service, and the server in front of it.

    Args:
      name: `group/index`.
      interface: what callers know of it.
      payload: the pickled service, args and kwargs.
      context: its surroundings.
      resolve: a client for the name of a node.
      report: where its events go.
      door: where callers of the same process knock.
      listener: where callers of other processes do, or `None`.
      state: where the state is that it begins with, or "".
    """

    def __init__(
        self,
        name: str,
        interface: Interface,
        payload: bytes,
        context: Context,
        resolve: Callable[[str], object],
        report: Callable[[Event], None],
        door: Door,
        listener: socket.socket | None = None,
        state: str = "",
        remote: Remote | None = None,
    ) -> None:
        self.name = name
        self.context = context
        self.door = door
        self.working_thread: int | None = None  # where its constructor or run() is going on
        self.failed = False
        self.state = state
        self._cutting: Cutting | None = None  # once a checkpoint is taken
        self._interface = interface
        self._payload = payload
        self._resolve = resolve
        self._report = report
        self._listener = listener
        self._remote = remote
        self._server: Any = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._over = False

    def main(self) -> None:
        """Builds, serves and runs the node; returns when that ended, however it ended."""
        self.working_thread = threading.get_ident()
        try:
            with entered(self.context):
                self._work()
        finally:
            self.working_thread = None

    def _work(self) -> None:
        doing = "its constructor"
        try:
            loaded: Any = pickling.loads(self._payload, self._resolve)
            service, args, kwargs = loaded
            built = service(*args, **kwargs)
            if self.state and self._interface.stateful:
                doing = "restoring it from its checkpoint"
                _restore(built, Path(self.state))
            if self.context.journal_file is not None:
                doing = "redoing its journal"
                self._redo(built, self.context.journal_file)
            run = getattr(built, "run", None)
            self._serve(built, has_run=callable(run))
            if not callable(run):
                return
            doing = "run()"
            if not self.context.should_stop:
                self.context.safe_points.begin()
                try:
                    _run(run)
                finally:
                    self.context.safe_points.end()
        except ProgramStopped:
            pass
        except SystemExit as leaving:
            if leaving.code not in (None, 0):
                self._fail(doing, leaving)
                return
        except BaseException as error:
            stopped = exits.is_program_stopped(error)
            if not stopped and not (self.context.should_stop and exits.is_clean_in_a_stop(error)):
                self._fail(doing, error)
                return
        self._report(Event("returned", self.name, time.monotonic()))

    def _redo(self, built: Any, journal: Journal) -> None:
        from lpml.record.checkpoints import number_of

        if not self._interface.redoes:
            raise UsageError(
                f"{self._interface.service} keeps a journal and has not all of save(), "
                "restore(state) and redo(record), without which it is of no use; add them"
            )
        ask = Event("long_journal", self.name, time.monotonic())
        journal.begin(number_of(self.state), built.redo, lambda: self._report(ask))

    def _serve(self, built: object, has_run: bool) -> None:
        interface = self._interface
        if has_run and interface.methods and self._listener is not None:
            sys.setswitchinterval(SWITCH_INTERVAL)
        with self._lock:
            if self._over:
                raise ProgramStopped("the node was closed while it started")
            journaled = self.context.journal_file is not None
            now = time.monotonic()
            self._report(Event("ready", self.name, now, has_run=has_run, journaled=journaled))
            dispatcher = self.door.open(built)
            if self._listener is not None:
                self._server = wire.Server(dispatcher, self._listener, self._remote)
                self._server.start()

    def _fail(self, doing: str, error: BaseException) -> None:
        at = time.monotonic()
        self.failed = True
        event = Event(
            "failed",
            self.name,
            at,
            text=f"{doing} raised {exits.in_one_line(error)}",
            traceback=exits.format_traceback(error, (__file__,)),
            consequence=exits.is_consequence(error),
            hopeless=exits.is_hopeless(error),
        )
        self._report(event)
        self.close()

    def stop(self) -> None:
        """The program is stopping."""
        if self._cutting is not None:
            self._cutting.release()  # first, so that calls that wait at a shut door are served
        self.context.clock.stop()

    def order(self, order: CutOrder) -> None:
        """Does the node's part in a checkpoint. Returns at once."""
        if self._cutting is None:
            from lpml.launchers.cutting import Cutting

            stateful = self._interface.stateful
            self._cutting = Cutting(self.context, self.door, self._answer, stateful=stateful)
        self._cutting.order(order)

    def _answer(self, order: CutOrder, text: str) -> None:
        now = time.monotonic()
        self._report(Event("cut", self.name, now, text, phase=order.what, number=order.number))

    def wait_closed(self) -> None:
        """Waits until somebody said that the node may end."""
        self._closing.wait()

    def let_go(self) -> None:
        """The node may end."""
        self._closing.set()

    def close(self) -> None:
        """Stops serving: callers learn at once that nobody answers here any more."""
        self._closing.set()
        with self._lock:
            if self._over:
                return
            self._over = True
        self.door.close()
        if self._server is not None:
            self._server.close()
        else:
            if self._listener is not None:
                self._listener.close()
            if self._remote is not None:
                self._remote[0].close()
        self.context.close()

    def report(self) -> NodeReport:
        """Counts and last metrics."""
        served = self.door.dispatcher.statistics()
        return NodeReport(
            served.calls,
            served.errors,
            self.context.latest_metrics,
            self.context.latest_progress,
        )


def _restore(service: Any, stem: Path) -> None:
    from lpml.record import trees

    service.restore(trees.load(stem))


def _run(run: Callable[[], object]) -> None:
    result = run()
    if inspect.iscoroutine(result):
        import asyncio

        asyncio.run(result)
