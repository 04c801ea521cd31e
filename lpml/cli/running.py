"""The verb `run`: watches a run, shows it, and stops it when the user says so."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, final

from lpml.cli import views
from lpml.errors import NodeError

if TYPE_CHECKING:
    from lpml.graph import Program
    from lpml.launchers import Run, RunStatus

LIVE_INTERVAL = 0.25  # seconds between two pictures
LINE_INTERVAL = 10.0  # seconds between two lines where there is no terminal
_ATTENTION = 0.1  # seconds until a signal is seen


@final
@dataclass(frozen=True)
class Options:
    """How to run a program, and how to show it."""

    launch: str = "local_mp"
    address: str | None = None
    directory: Path | None = None
    stop_timeout: float = 10.0
    start_timeout: float = 120.0
    live: bool = True
    """A picture that is drawn again and again, where there is a terminal."""
    quiet: bool = False
    json: bool = False
    checkpoint_every: float | None = None
    resume: Path | None = None
    """The run folder to go on with."""
    command: Mapping[str, Any] = field(default_factory=dict)
    """How the program was made, for `lpml resume`."""


@final
class Interrupts:
    """Counts the signals that ask for the end, instead of dying of them, while it is entered.

    SIGTERM and a closed terminal count as one; SIGINT counts each time. A signal that was ignored
    before (`nohup`) stays ignored. A third SIGINT acts as if nobody listened. SIGTERM is what
    schedulers send before they take the machine away: state is saved then.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self.name = ""
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in self._SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *args: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def preempted(self) -> bool:
        """Whether the first of them was SIGTERM."""
        return self.name == "SIGTERM"

    @property
    def exit_code(self) -> int:
        """143 after SIGTERM, 130 after another, 0 after none."""
        return 143 if self.preempted else 130 if self.count else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.count = self.count + 1 if number == signal.SIGINT else max(1, self.count)
        self.name = self.name or signal.Signals(number).name
        if self.count == 2:
            signal.signal(signal.SIGINT, self._before.get(signal.SIGINT, signal.SIG_DFL))


class Display(Protocol):
    """Shows a run while it goes on."""

    interval: float
    """Seconds between two calls of `show`."""

    def show(self, status: RunStatus) -> None: ...

    def say(self, text: str) -> None:
        """One line of lpml's own."""


@final
class Silent:
    """Shows nothing."""

    interval = float("inf")

    def show(self, status: RunStatus) -> None:
        del status

    def say(self, text: str) -> None:
        del text


@final
class Lines:
    """A plain line now and then, on stderr: stdout has only what nodes print."""

    interval = LINE_INTERVAL

    def __init__(self) -> None:
        self._speeds = views.Speeds()

    def show(self, status: RunStatus) -> None:
        self._speeds.see(status)
        self.say(views.line(status, self._speeds))

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


@final
class Picture:
    """A table under the output, drawn again and again."""

    interval = LIVE_INTERVAL

    def __init__(self, live: Any) -> None:
        self._live = live
        self._speeds = views.Speeds()

    def show(self, status: RunStatus) -> None:
        self._speeds.see(status)
        height = self._live.console.size.height
        self._live.update(views.run_view(status, self._speeds, height), refresh=True)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, style="yellow")


@contextlib.contextmanager
def display(options: Options, title: str) -> Iterator[Display]:
    """What suits the terminal and the options. Enter it before the launch, leave it after the end:

    the picture stands in for stdout, and launchers may put something of theirs over it.
    """
    if options.quiet or options.json:
        yield Silent()
    elif options.live and _is_terminal():
        from rich.live import Live

        start = f"{title}: starting"
        with Live(start, console=views.console(), auto_refresh=False) as live:
            yield Picture(live)
    else:
        yield Lines()


def _is_terminal() -> bool:
    import os

    streams = (sys.stdout, sys.stderr)
    return all(s is not None and s.isatty() for s in streams) and os.environ.get("TERM") != "dumb"


def run(program: Program, options: Options) -> int:
    """Runs a program to its end.

    Returns:
      The exit code: 0 finished or stopped by `lpml stop`, 1 a node failed, 130 interrupted, 143
      preempted (SIGTERM).
    """
    from lpml.launchers import launch

    failure: NodeError | None = None
    with Interrupts() as interrupts:
        with display(options, program.name) as shown:
            running = launch(
                program,
                options.launch,
                address=options.address,
                directory=options.directory,
                terminal=not (options.quiet or options.json),
                stop_timeout=options.stop_timeout,
                start_timeout=options.start_timeout,
                checkpoint_every=options.checkpoint_every,
                resume=options.resume,
                command=options.command,
            )
            try:
                _follow(running, shown, interrupts)
            except NodeError as error:
                failure = error
            finally:
                status = _end(running)
            if isinstance(shown, Picture):
                shown.show(status)
        return _report(status, failure, interrupts, options)


def _follow(running: Run, shown: Display, interrupts: Interrupts) -> None:
    """Returns when the run has ended.

    Raises:
      NodeError: a node failed.
    """
    from lpml.clock import current_clock

    clock = current_clock()
    stopper = _Stopper(running, shown)
    next_show = clock.time() + (0.0 if shown.interval < 1.0 else shown.interval)
    while True:
        now = clock.time()
        if now >= next_show:
            shown.show(running.status())
            next_show = clock.time() + shown.interval
        stopper.see(interrupts)
        try:
            running.wait(min(_ATTENTION, shown.interval))
            return
        except TimeoutError:
            continue


@final
class _Stopper:
    """Stops a run at the first interrupt and kills it at the second. Never blocks."""

    def __init__(self, running: Run, shown: Display) -> None:
        self._run = running
        self._shown = shown
        self._seen = 0

    def see(self, interrupts: Interrupts) -> None:
        count = min(interrupts.count, 2)
        if count <= self._seen:
            return
        if count == 1:
            self._shown.say("lpml: stopping; interrupt once more to kill what still runs")
            save = interrupts.preempted
            self._run.request_stop(f"interrupted by {interrupts.name}", save=save)
        else:
            self._shown.say("lpml: killing what still runs")
            self._run.request_stop(f"interrupted twice, last by {interrupts.name}", timeout=0.0)
        self._seen = count


def _end(running: Run) -> RunStatus:
    """The last status. Whatever went wrong here, nothing of the run is left behind."""
    running.stop("the command line ended")
    return running.status()


def _report(
    status: RunStatus, failure: NodeError | None, interrupts: Interrupts, options: Options
) -> int:
    code = 1 if failure is not None else interrupts.exit_code
    if options.json:
        result = status.to_json()
        result["exit_code"] = code
        if failure is not None:
            result["error"] = {
                "node": failure.node,
                "reason": failure.reason,
                "traceback": failure.traceback,
                "log": failure.log,
            }
        print(json.dumps(result, default=str))
    elif failure is not None:
        print(f"{failure}", file=sys.stderr)
    elif not options.quiet:
        print(views.ending(status), file=sys.stderr)
    return code
