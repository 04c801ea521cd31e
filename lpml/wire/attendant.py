"""The thread that reads a connection where somebody is to be called back and nobody waits."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any, Protocol, final

from lpml.wire.futures import Future, release
from lpml.wire.lead import closed_latch
from lpml.wire.waiting import Reading

_LINGER = 0.2  # seconds that an idle thread stays for more to attend to


class Attended(Reading, Protocol):
    """What the attendant needs of a channel besides."""

    def asked(self) -> list[Future[Any]]:
        """The pending futures of which somebody is to be called back."""
        ...


@final
class Attendant:
    """Calls back, in a thread that lives while it must and leads where nobody else does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = False
        self._latch = closed_latch()
        self._ended: deque[Future[Any]] = deque()  # to be called back

    def attend(self, channel: Attended) -> None:
        """Somebody is to be called back by a pending future of the channel."""
        with self._lock:
            if self._running:
                release(self._latch)
                return
            self._running = True
        threading.Thread(target=self._run, args=(channel,), name="lpml-reader", daemon=True).start()

    def call_back(self, future: Future[Any]) -> None:
        """The future has ended, and was attended to."""
        self._ended.append(future)
        with self._lock:
            if self._running:
                release(self._latch)

    def forget(self) -> None:
        """After a fork: the thread is not here."""
        self._lock = threading.Lock()
        self._running = False

    def _run(self, channel: Attended) -> None:
        while True:
            while self._ended:
                self._ended.popleft().call_back()
            asked = channel.asked()
            if asked:
                self._await_any(channel, asked)
            elif not self._latch.acquire(timeout=_LINGER):
                with self._lock:
                    if not self._ended and not channel.asked():
                        self._running = False
                        return

    def _await_any(self, channel: Attended, asked: list[Future[Any]]) -> None:
        """Returns when one has ended, or one more has been asked for, or a deadline passed."""
        latch, lead = self._latch, channel.lead
        end = min([f.deadline for f in asked if f.deadline is not None], default=None)
        if lead.take_or_join(latch):
            try:
                while not self._ended and not latch.acquire(False) and channel.read(end):
                    pass
            finally:
                lead.give()
        else:
            latch.acquire(timeout=-1 if end is None else max(0.0, end - monotonic()))
            lead.leave(latch)
        for future in asked:
            if future.pending and future.deadline is not None and monotonic() >= future.deadline:
                channel.expire(future)
