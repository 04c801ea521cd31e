"""Where the sockets of a run live, and how other processes of this user find the run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

from lpml.clock import current_clock
from lpml.errors import LaunchError
from lpml.launchers import system

_LONGEST = 40  # characters of a run's id in a path that may have 108 in all


@final
@dataclass(frozen=True)
class RunInfo:
    """What `run.json` says of a run that is going on."""

    run: str
    program: str
    launch: str
    folder: str
    pid: int
    pid_started: int
    """With `pid` it names the launcher for ever; 0 where the system does not say."""
    started: float
    """Seconds since 1970."""
    control: str
    """The address of its control service."""

    @property
    def alive(self) -> bool:
        """Whether its launcher still runs."""
        return system.is_alive(self.pid, self.pid_started)


def root() -> Path:
    """The folder that holds one folder per run of this user; `LPML_SOCKETS` overrides it."""
    given = os.environ.get("LPML_SOCKETS")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"lpml-{os.getuid()}"


def make(run: str) -> Path:
    """A new private folder for the sockets of one run. Removes what dead runs have left.

    Raises:
      LaunchError: the folder cannot be had, or somebody else could write to it.
    """
    sweep()
    base = root()
    for attempt in range(1000):
        path = base / (run[:_LONGEST] + (f"-{attempt}" if attempt else ""))
        try:
            _make_private(base)
            path.mkdir(mode=0o700)
            return path
        except (FileExistsError, FileNotFoundError):  # taken, or the empty root just removed
            continue
        except OSError as error:
            raise LaunchError(
                f"the socket folder {path} cannot be made ({error.strerror}); "
                "set LPML_SOCKETS to a folder of yours with a short path"
            ) from error
    raise LaunchError(f"no free name for a socket folder in {base}; remove what is in it")


def _make_private(base: Path) -> None:
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700, parents=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise LaunchError(
            f"the socket folder {base} is no folder that only you can write to; "
            "remove it, or set LPML_SOCKETS to one"
        )


def publish(folder: Path, run: str, program: str, launch: str, run_folder: Path) -> None:
    """Writes `run.json`, so that other processes find the run."""
    info = RunInfo(
        run=run,
        program=program,
        launch=launch,
        folder=str(run_folder),
        pid=os.getpid(),
        pid_started=system.start_time(os.getpid()),
        started=current_clock().wall_time(),
        control=f"unix:{folder / 'control.sock'}",
    )
    part = folder / "run.json.part"
    part.write_text(json.dumps(asdict(info)))
    part.rename(folder / "run.json")


def mark_host(folder: Path) -> None:
    """Says that this process serves a run of elsewhere: `sweep` asks whether it still lives."""
    pid = os.getpid()
    (folder / "host.json").write_text(json.dumps([pid, system.start_time(pid)]))


def runs() -> list[RunInfo]:
    """The runs of this user on this machine whose launchers are alive, oldest first."""
    found = []
    for path in _folders():
        info = _read(path)
        if info is not None and info.alive:
            found.append(info)
    return sorted(found, key=lambda info: info.started)


def sweep() -> None:
    """Removes the folders of runs whose launcher is dead."""
    for path in _folders():
        info = _read(path)
        if (info is not None and not info.alive) or _host_is_dead(path):
            remove(path)


def remove(folder: Path) -> None:
    """Removes the folder of a run, and the root if that was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def _folders() -> list[Path]:
    try:
        return list(root().iterdir())
    except OSError:
        return []


def _read(folder: Path) -> RunInfo | None:
    try:
        return RunInfo(**json.loads((folder / "run.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _host_is_dead(folder: Path) -> bool:
    try:
        pid, started = json.loads((folder / "host.json").read_text())
    except (OSError, ValueError, TypeError):
        return False
    return not system.is_alive(pid, started)
