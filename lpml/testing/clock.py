"""A clock whose time passes only when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import final

from lpml.clock import Clock, Condition, current_call, enlist
from lpml.errors import ProgramStopped

_EPOCH = 946_684_800.0  # 2000-01-01, the wall time at virtual time 0
_PATIENCE = 10.0  # real seconds that a test waits for its threads


@final
class VirtualClock(Clock):
    """Time that stands still until `advance` is called, or jumps when everyone waits.

    A wait of an hour takes no real time: the test advances the clock by an hour. Where no test is
    there to do so, `jump_when_waiting=n` lets time jump to the next moment that anyone waits for
    as soon as `n` threads wait; with `n=1` a loop in the test's own thread runs through its
    waits at once.

    Args:
      start: the time at first, in seconds.
      jump_when_waiting: how many waiting threads make time jump; `None` = never.

    Example:
      >>> clock = VirtualClock(jump_when_waiting=1)
      >>> clock.wait(3600.0)
      False
      >>> clock.time()
      3600.0
    """

    def __init__(self, start: float = 0.0, *, jump_when_waiting: int | None = None) -> None:
        self._now = start
        self._threshold = jump_when_waiting
        self._stopping = False
        self._epoch = 0  # counts what may end a wait; a waiter that missed one looks again
        self._waiters: list[_Waiter] = []
        self._changed = threading.Condition()  # guards all of the above
        self._idle = _VirtualCondition(self)
        enlist(self)

    def advance(self, seconds: float) -> None:
        """Lets `seconds` pass. Waits that end within them end now.

        Raises:
          ValueError: `seconds` is negative.
        """
        if not seconds >= 0:
            raise ValueError(f"advance({seconds!r}): time does not go backwards")
        with self._changed:
            self._now += seconds
            self._wake_all()

    def until_waiting(self, threads: int = 1, timeout: float = _PATIENCE) -> None:
        """Blocks, in real time, until at least `threads` threads wait on this clock.

        So a test knows that what it started has come to rest, without sleeping.

        Raises:
          TimeoutError: they did not within `timeout` real seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._waiters) >= threads, timeout):
                raise TimeoutError(
                    f"{len(self._waiters)} threads wait on the clock after {timeout} s, "
                    f"not {threads}: the others run on, block elsewhere or have ended"
                )

    @property
    def waiting(self) -> int:
        """How many threads wait on this clock."""
        with self._changed:
            return len(self._waiters)

    def time(self) -> float:
        return self._now

    def wall_time(self) -> float:
        return _EPOCH + self._now

    def condition(self) -> Condition:
        return _VirtualCondition(self)

    def wait(self, seconds: float | None) -> bool:
        try:
            with self._idle:
                self._idle.wait_for(lambda: self._stopping, seconds)
        except ProgramStopped:
            pass
        return self._stopping

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._wake_all()

    def wake(self) -> None:
        with self._changed:
            self._wake_all()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def _wake_all(self) -> None:
        self._epoch += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.woken.set()

    def _enter(self, waiter: _Waiter, epoch: int) -> None:
        """Counts the thread as waiting, unless something happened since it looked."""
        with self._changed:
            if epoch != self._epoch:
                waiter.woken.set()
                return
            self._waiters.append(waiter)
            self._changed.notify_all()
            if self._threshold is not None and len(self._waiters) >= self._threshold:
                self._jump()

    def _jump(self) -> None:
        ends = [waiter.end for waiter in self._waiters if waiter.end is not None]
        if ends:
            self._now = max(self._now, min(ends))
            self._wake_all()

    def _notify(self, condition: _VirtualCondition) -> None:
        with self._changed:
            self._epoch += 1
            for waiter in [w for w in self._waiters if w.condition is condition]:
                self._waiters.remove(waiter)
                waiter.woken.set()


@final
class _Waiter:
    """One thread in one wait."""

    __slots__ = ("condition", "end", "woken")

    def __init__(self, condition: _VirtualCondition, end: float | None) -> None:
        self.condition = condition
        self.end = end  # virtual time; None = until notified
        self.woken = threading.Event()


@final
class _VirtualCondition:
    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> bool:
        me = threading.get_ident()
        if self._owner != me:
            self._lock.acquire()
            self._owner = me
        self._depth += 1
        return True

    def __exit__(self, *args: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
            self._lock.release()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        self._check_held("wait_for")
        clock = self._clock
        end = None if timeout is None else clock.time() + timeout
        while True:
            epoch = clock._epoch
            if predicate():
                return True
            clock.check()
            if end is not None and clock.time() >= end:
                return False
            self._sleep(_Waiter(self, _earlier(end)), epoch)

    def notify_all(self) -> None:
        self._check_held("notify_all")
        self._clock._notify(self)

    def _sleep(self, waiter: _Waiter, epoch: int) -> None:
        """Waits with the lock released, however often this thread holds it."""
        depth, self._depth, self._owner = self._depth, 0, None
        self._lock.release()
        try:
            self._clock._enter(waiter, epoch)
            waiter.woken.wait()
        finally:
            self._lock.acquire()
            self._depth, self._owner = depth, threading.get_ident()

    def _check_held(self, what: str) -> None:
        if self._owner != threading.get_ident():
            raise RuntimeError(f"{what}: hold the condition (`with condition:`) around it")


def _earlier(end: float | None) -> float | None:
    """`end`, or the deadline of the call being served where that is sooner."""
    call = current_call.get()
    if call is None or call.deadline is None:
        return end
    return call.deadline if end is None else min(end, call.deadline)
