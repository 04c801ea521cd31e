"""How tests wait: for the condition itself, with a limit that only a failure reaches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil


def until(predicate: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it comes true within a while, however busy the machine is."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not predicate():
        if time.monotonic() > end:
            return False
        pause.wait(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; an orphan may be a zombie until init looks after it."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
