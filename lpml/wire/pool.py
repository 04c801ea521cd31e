"""Threads that run what must not be run where it arrives: reused, made on demand, daemonic."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, final

from lpml.wire.futures import release


@final
class _Worker:
    __slots__ = ("job", "latch")

    def __init__(self) -> None:
        self.latch = threading.Lock()
        self.latch.acquire()
        self.job: tuple[Callable[..., object], tuple[Any, ...]] | None = None


@final
class Pool:
    """Runs every job at once, in an idle thread if there is one.

    Args:
      name: of its threads.
      linger: seconds after which an idle thread ends; `None` = at `close`.
    """

    def __init__(self, name: str, linger: float | None = None) -> None:
        self._name = name
        self._linger = linger
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []  # the last to become idle is the first to be used
        self._closed = False
        self.threads = 0

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Runs `function(*args)` in a thread. It must not raise."""
        with self._lock:
            worker = self._idle.pop() if self._idle else None
            if worker is None:
                self.threads += 1
        if worker is not None:
            worker.job = (function, args)
            release(worker.latch)
            return
        worker = _Worker()
        worker.job = (function, args)
        threading.Thread(target=self._run, args=(worker,), name=self._name, daemon=True).start()

    def close(self) -> None:
        """Ends the idle threads; busy ones end after their job."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            release(worker.latch)

    def forget(self) -> None:
        """After a fork: none of the threads is here."""
        self._lock = threading.Lock()
        self._idle = []
        self.threads = 0

    def _run(self, worker: _Worker) -> None:
        while worker.job is not None:
            function, args = worker.job
            worker.job = None
            function(*args)
            del function, args  # what a job held is free while its thread is idle
            with self._lock:
                if self._closed:
                    break
                self._idle.append(worker)
            if not worker.latch.acquire(timeout=-1 if self._linger is None else self._linger):
                with self._lock:
                    if worker in self._idle:
                        self._idle.remove(worker)
                        break
                worker.latch.acquire()  # it was taken this very moment
        with self._lock:
            self.threads -= 1
