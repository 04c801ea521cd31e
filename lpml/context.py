"""What a running node may ask: who it is, whether to stop, where to write, what to report."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, SupportsFloat, final

from lpml.clock import Clock, RealClock, current_scope, find_scope
from lpml.errors import UsageError
from lpml.record.folder import RunFolder, file_stem
from lpml.record.metrics import MetricsWriter

if TYPE_CHECKING:
    from lpml.record.journal import Journal, Record


def _nothing(reason: str) -> None:
    """Stops no program: there is none."""


@final
class SafePoints:
    """Where the main loop of a node may be held while a checkpoint is taken.

    A loop is at a safe point when it asks `should_stop` and while it is in `wait`: there it is
    between two things that it does. Used by lpml, not by services.
    """

    def __init__(self) -> None:
        self.wanted = False
        """Whether the loop is to stay at the next one."""
        self.loop: int | None = None
        """The thread of the loop; `None` = it has not begun, or has ended."""
        self._waits = False
        self._stays = False
        self._changed = threading.Condition()

    def begin(self) -> None:
        """The loop begins, in this thread: a safe point."""
        self.loop = threading.get_ident()
        if self.wanted:
            self.stay()

    def end(self) -> None:
        """The loop has ended."""
        self.loop = None

    def hold(self) -> None:
        """The loop is to stay at its next safe point. Returns at once."""
        self.wanted = True

    def release(self) -> None:
        """The loop may go on."""
        with self._changed:
            self.wanted = False
            self._changed.notify_all()

    @property
    def held(self) -> bool:
        """Whether the loop is at a safe point and will not leave it before `release`."""
        return self.wanted and (self.loop is None or self._waits or self._stays)

    def stay(self) -> None:
        """Called at a safe point, where `wanted`; by any thread, of which only the loop's stays."""
        if threading.get_ident() != self.loop:
            return
        with self._changed:
            self._stays = True
            try:
                while self.wanted:
                    self._changed.wait()
            finally:
                self._stays = False

    def wait(self, clock: Clock, seconds: float) -> bool:
        """`clock.wait`, as a safe point if this is the loop's thread."""
        if threading.get_ident() != self.loop:
            return clock.wait(seconds)
        self._waits = True
        try:
            clock.wait(seconds)
        finally:
            self._waits = False
            if self.wanted:
                self.stay()
        return clock.stopping


@final
class Context:
    """The surroundings of one node. Services get theirs from `lpml.context()`.

    Args:
      name: `group/index`.
      group: the node's group, nested groups joined by `/`.
      index: position in the group, from 0.
      clock: the node's time and waiting.
      program: the program's name.
      directory: the run folder, or `None` where there is no run.
      on_stop: called by `stop_program` with the reason.
      attempt: how many times the node was started before.
    """

    def __init__(
        self,
        name: str = "standalone/0",
        group: str = "standalone",
        index: int = 0,
        clock: Clock | None = None,
        program: str = "",
        directory: Path | None = None,
        on_stop: Callable[[str], None] = _nothing,
        attempt: int = 0,
    ) -> None:
        self.name = name
        self.group = group
        self.index = index
        self.attempt = attempt
        """0 at first, one more with each restart and each resume. Fold it into a random key (with
        the index), and a restarted node does not repeat what it did."""
        self.clock = RealClock() if clock is None else clock
        self.program = program
        self.directory = directory
        self.safe_points = SafePoints()
        self._on_stop = on_stop
        self._lock = threading.Lock()
        self._metrics: dict[str, float] = {}
        self._progress: tuple[float, float | None] | None = None
        self._writer: MetricsWriter | None = None
        self._keeps_journal = False
        self.journal_file: Journal | None = None
        """Used by lpml, not by services."""

    @property
    def should_stop(self) -> bool:
        """Whether the program is stopping; `run()` should return soon.

        A safe point: while a checkpoint is taken, a `run()` that asks this waits here.
        """
        if self.safe_points.wanted:
            self.safe_points.stay()
        return self.clock.stopping

    def wait(self, seconds: float) -> bool:
        """Waits for `seconds`, or less if the program stops; says whether it does.

        A safe point, as `should_stop` is.
        """
        return self.safe_points.wait(self.clock, seconds)

    def stop_program(self, reason: str = "") -> None:
        """Asks the whole program to stop, as a success. Returns at once."""
        self._on_stop(reason or f"{self.name} asked")

    def log(self, metrics: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Records scalars, in the run folder and in the live view.

        Args:
          metrics: names and numbers (anything that `float` takes, such as a 0-d array).
          step: the abscissa of the curves; `None` = counted per node from 0.
        """
        values = {name: float(value) for name, value in metrics.items()}
        with self._lock:
            self._metrics.update(values)
            if self.directory is None:
                return
            if self._writer is None:
                path = self.directory / "metrics" / f"{self.name.replace('/', '-')}.jsonl"
                self._writer = MetricsWriter(path)
            self._writer.write(values, step, self.clock.wall_time())

    def progress(self, done: float, total: float | None = None) -> None:
        """Reports how far the node's work is; the live view shows a bar where `total` is known."""
        self._progress = (done, total)

    def keep_journal(self) -> None:
        """Says that this node journals: if it dies, it alone is replaced, exactly as it was.

        Called in the constructor of a service with `save`, `restore` and `redo`. From then on it
        gives each change of its state to `journal`, before it makes it.
        """
        self._keeps_journal = True
        if self.directory is not None and self.journal_file is None:
            from lpml.record.journal import Journal

            folder = RunFolder(self.directory).journals
            self.journal_file = Journal(folder, file_stem(self.name))

    def journal(self, record: Record) -> None:
        """Records a change of the state of this node. Outlives its process.

        Call it before the change is made, under the lock under which it is made and saved, so that
        records are in the order of the changes. Where there is no run, nothing is recorded.

        Args:
          record: bytes, or a sequence of buffers whose bytes are joined; `redo` gets it as bytes.

        Raises:
          LaunchError: the machine refuses, for lack of room say. Then do not make the change, and
            let the caller know: nothing of it is in the journal.
          NodeUnavailable: the node has ended.
          UsageError: it was not said in the constructor that there is a journal, or it is called
            there or in `redo`.
        """
        if not self._keeps_journal:
            raise UsageError(
                f"{self.name} has no journal; call lpml.context().keep_journal() in its constructor"
            )
        if self.journal_file is not None:
            self.journal_file.append(record)

    @property
    def latest_metrics(self) -> Mapping[str, float]:
        """The last value of each metric."""
        with self._lock:
            return dict(self._metrics)

    @property
    def latest_progress(self) -> tuple[float, float | None] | None:
        """`(done, total)` as last reported."""
        return self._progress

    def close(self) -> None:
        """Flushes and closes what `log` and `journal` opened."""
        if self.journal_file is not None:
            self.journal_file.close()
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None


_standalone = Context()


def context() -> Context:
    """The context of the node whose code is running.

    Outside any node (a service tried by hand or in a unit test) it is a context that never stops
    and records nothing. So it is in a thread that the node started itself, where several nodes
    share a process: run its function by `contextvars.copy_context().run`, or use `lpml.future`.
    """
    scope = find_scope()
    return scope if isinstance(scope, Context) else _standalone


class entered:
    """Runs the block as code of `node`, so that `context()` there is `node`."""

    __slots__ = ("_node", "_token")

    def __init__(self, node: Context) -> None:
        self._node = node

    def __enter__(self) -> Context:
        self._token = current_scope.set(self._node)
        return self._node

    def __exit__(self, *args: object) -> None:
        current_scope.reset(self._token)
