"""What a block of code left behind: processes, threads, descriptors, shared memory, folders."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 10.0  # seconds that what is ending may take to be gone, on a busy machine too
_HARMLESS = ("/dev/null", "/dev/urandom", "/dev/random", "/proc", "/sys", "/dev/pts", "/dev/tty")


@dataclass(frozen=True)
class Snapshot:
    """What there is at one moment. Each field maps an identity to words for people."""

    processes: dict[str, str] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)
    descriptors: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def take() -> Snapshot:
        """Looks around: this process, its descendants, shared memory and socket folders."""
        return Snapshot(_processes(), _threads(), _descriptors(), _files())

    def since(self, before: Snapshot) -> list[str]:
        """What is here now and was not there `before`, one line each."""
        lines = []
        for kind in ("processes", "threads", "descriptors", "files"):
            old: dict[str, str] = getattr(before, kind)
            new: dict[str, str] = getattr(self, kind)
            lines += [words for key, words in new.items() if key not in old]
        return lines


class Leak(AssertionError):
    """Something was left behind."""


@contextmanager
def no_leaks(patience: float = _PATIENCE) -> Iterator[None]:
    """Fails if the block leaves a process, thread, descriptor, shared memory or socket folder.

    Args:
      patience: seconds that what is ending may take to be gone.

    Raises:
      Leak: what is left, one line each. Also an `AssertionError`.
    """
    before = Snapshot.take()
    yield
    left = _left(before, patience)
    if left:
        raise Leak("left behind:\n  " + "\n  ".join(left))


def _left(before: Snapshot, patience: float) -> list[str]:
    left = Snapshot.take().since(before)
    if not left:
        return []
    gc.collect()  # what only a reference cycle holds is not left behind
    pause = threading.Event()
    for step in range(int(patience / 0.02)):
        left = Snapshot.take().since(before)
        if not left:
            break
        pause.wait(0.02)
        if step == 10:
            gc.collect()
    return left


def _threads() -> dict[str, str]:
    frames = sys._current_frames()
    found = {}
    for thread in threading.enumerate():
        if not thread.is_alive() or isinstance(thread, threading._DummyThread):
            continue
        where = ""
        if thread.ident in frames:
            at = traceback.extract_stack(frames[thread.ident], limit=1)[-1]
            where = f" at {at.filename}:{at.lineno} in {at.name}"
        found[f"{thread.ident}:{thread.name}"] = f"thread {thread.name}{where}"
    return found


def _descriptors() -> dict[str, str]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    found = {}
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except OSError:  # the descriptor of the listing itself, or no links (macOS)
            continue
        if not target.startswith(_HARMLESS):
            found[f"{name}:{target}"] = f"descriptor {name}: {target}"
    return found


def _stat(pid: str) -> tuple[int, str, str] | None:
    """Parent, state and start time of a process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    rest = text[text.rindex(b")") + 2 :].split()
    return int(rest[1]), rest[0].decode(), rest[19].decode()


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return ""


def _processes() -> dict[str, str]:
    """The descendants of this process (Linux only), zombies too."""
    found: dict[str, str] = {}
    pending = [str(os.getpid())]
    while pending:
        for child in _children(pending.pop()):
            stat = _stat(child)
            if stat is not None:
                pending.append(child)
                found[f"{child}:{stat[2]}"] = f"process {child} ({stat[1]}): {_command(child)}"
    return found


def _children(pid: str) -> list[str]:
    found: list[str] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += file.read().split()
    except OSError:
        pass
    return found


def sockets_root() -> Path:
    """The folder that holds the socket folders of all runs of this user."""
    default = Path(tempfile.gettempdir()) / f"lpml-{os.getuid()}"
    return Path(os.environ.get("LPML_SOCKETS") or default)


def _files() -> dict[str, str]:
    found: dict[str, str] = {}
    shm = Path("/dev/shm")
    if shm.is_dir():
        found |= {str(p): f"shared memory {p}" for p in shm.iterdir() if p.name.startswith("lpml")}
    root = sockets_root()
    if root.is_dir():
        found |= {str(p): f"socket folder {p}" for p in root.iterdir()}
    return found
