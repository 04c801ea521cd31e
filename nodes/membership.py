"""Who takes part in a group that shares work, with a lease on silence: a state machine."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol, final


class Rules(Protocol):
    """What is told of members that come and go."""

    def join(self, worker: str) -> None: ...
    def leave(self, worker: str) -> None: ...


@final
class Membership:
    """Keeps who is there, when each was last heard of, and how long each has waited.

    Args:
      rules: told of everyone who comes and goes.
      lease: seconds of silence after which a member is taken for departed; `None` = never.
    """

    def __init__(self, rules: Rules, lease: float | None) -> None:
        self._rules = rules
        self._lease = lease
        self._heard: dict[str, float] = {}  # {member: when it was last heard of}
        self._waiting: Counter[str] = Counter()  # {member: its calls that wait}
        self._departed: set[str] = set()
        self.waited: dict[str, float] = {}
        """Seconds that each worker ever waited."""

    @property
    def present(self) -> tuple[str, ...]:
        """The members, by name."""
        return tuple(sorted(self._heard))

    @property
    def departed(self) -> tuple[str, ...]:
        """Who was a member and is none now."""
        return tuple(sorted(self._departed))

    def heard(self, worker: str, now: float) -> None:
        """`worker` called; if it was no member it is one now."""
        if worker not in self._heard:
            self._departed.discard(worker)
            self._rules.join(worker)
        self._heard[worker] = now

    def leave(self, worker: str) -> None:
        """`worker` is no member any more; without effect if it was none."""
        if self._heard.pop(worker, None) is not None:
            self._departed.add(worker)
            self._rules.leave(worker)

    def expire(self, now: float) -> tuple[str, ...]:
        """Lets those leave whose lease has passed, and names them."""
        if self._lease is None:
            return ()
        silent = tuple(
            worker
            for worker, heard in self._heard.items()
            if not self._waiting[worker] and heard + self._lease <= now
        )
        for worker in silent:
            self.leave(worker)
        return silent

    def until_next_expiry(self, now: float) -> float | None:
        """Seconds in which no lease can pass; at most the lease, since members may still come."""
        if self._lease is None:
            return None
        ends = [heard for worker, heard in self._heard.items() if not self._waiting[worker]]
        # Not so short that a clock, or the sum with its time, would stand still.
        return max(1e-3, min(ends, default=now) + self._lease - now)

    @contextlib.contextmanager
    def waiting(self, worker: str | None, time: Callable[[], float]) -> Iterator[None]:
        """A call of `worker` waits during the block: it is alive as long as that lasts."""
        if worker is None:
            yield
            return
        begin = time()
        self._waiting[worker] += 1
        try:
            yield
        finally:
            now = time()
            self._waiting[worker] -= 1
            self.waited[worker] = self.waited.get(worker, 0.0) + now - begin
            if worker in self._heard:
                self._heard[worker] = now
