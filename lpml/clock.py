"""Time and waiting: the one clock through which nodes, calls and tests see time pass.

Code that runs in a node never calls `time.sleep` or `time.time`; it asks the clock of its
context. So a launcher or a test can replace time (`lpml.testing.VirtualClock`), and every wait
ends when the program stops, when the caller's deadline passes, or when the call is cancelled.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextvars import ContextVar
from typing import Protocol, final

from lpml.errors import CallCancelled, CallTimeout, ProgramStopped

DEFAULT_CALL_TIMEOUT = 120.0
"""Seconds that a call may take where nothing else was said (`lpml.deadline`)."""


@final
class Call:
    """The call that is being served, or the bounds set by `deadline`, in this thread or task."""

    __slots__ = ("_cancelled", "deadline", "parent")

    def __init__(self, deadline: float | None, parent: Call | None = None) -> None:
        self.deadline = deadline  # in the clock's time; None = never
        self.parent = parent
        self._cancelled = False

    def cancel(self) -> None:
        """Marks the call; whoever waits in it is woken by `Clock.wake`."""
        self._cancelled = True

    @property
    def cancelled(self) -> bool:
        return self._cancelled or (self.parent is not None and self.parent.cancelled)


current_call: ContextVar[Call | None] = ContextVar("lpml_call", default=None)


class Condition(Protocol):
    """A condition variable with the clock's sense of time. Its lock is reentrant."""

    def __enter__(self) -> bool: ...
    def __exit__(self, *args: object) -> None: ...

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Waits, with the lock released, until `predicate()` holds.

        Args:
          predicate: called with the lock held.
          timeout: seconds; `None` = until the call's deadline.

        Returns:
          Whether the predicate held in time.

        Raises:
          ProgramStopped: the program is stopping.
          CallTimeout: the deadline of the call being served passed.
          CallCancelled: the caller cancelled.
        """
        ...

    def notify_all(self) -> None:
        """Makes everyone who waits look at their predicate again. The lock must be held."""
        ...


_clocks: weakref.WeakSet[Clock] = weakref.WeakSet()
_enlisting = threading.Lock()


def enlist(clock: Clock) -> None:
    """Makes `wake_all` reach a clock. The last act of the constructor of each kind of clock."""
    with _enlisting:
        _clocks.add(clock)


def wake_all() -> None:
    """Makes every waiter of this process look again at its call, whatever its clock."""
    with _enlisting:
        clocks = list(_clocks)
    for clock in clocks:
        clock.wake()


class Clock(ABC):
    """Time and waiting of one node."""

    @abstractmethod
    def time(self) -> float:
        """Seconds since an arbitrary start; never goes backwards."""

    @abstractmethod
    def wall_time(self) -> float:
        """Seconds since 1970, for people and log files."""

    @abstractmethod
    def condition(self) -> Condition:
        """A new condition variable of this clock."""

    @abstractmethod
    def wait(self, seconds: float | None) -> bool:
        """Waits for `seconds` (`None` = for ever), or less if the program stops; says if it does.

        Raises:
          CallTimeout, CallCancelled: as `Condition.wait_for`.
        """

    @abstractmethod
    def stop(self) -> None:
        """The program is stopping: ends every wait, now and later."""

    @abstractmethod
    def wake(self) -> None:
        """Makes every waiter look again at its predicate and at its call."""

    @property
    @abstractmethod
    def stopping(self) -> bool:
        """Whether `stop` was called."""

    @property
    def waiting_threads(self) -> Collection[int]:
        """The identities of the threads that wait on this clock, where it keeps count of them."""
        return ()

    def check(self) -> None:
        """Raises what a wait would raise now: ProgramStopped, CallTimeout or CallCancelled."""
        if self.stopping:
            raise ProgramStopped("the program is stopping")
        check_call(self.time())

    def remaining(self, timeout: float | None = None) -> float | None:
        """Seconds that a wait may last: `timeout` or what the call's deadline leaves, if less."""
        call = current_call.get()
        if call is None or call.deadline is None:
            return timeout
        left = max(0.0, call.deadline - self.time())
        return left if timeout is None else min(timeout, left)


def check_call(now: float) -> None:
    """Raises CallTimeout or CallCancelled if the current call may not go on at time `now`."""
    call = current_call.get()
    if call is None:
        return
    if call.cancelled:
        raise CallCancelled("the caller cancelled this call")
    if call.deadline is not None and now >= call.deadline:
        raise CallTimeout("the deadline of this call passed while it waited")


@final
class _RealCondition:
    def __init__(self, clock: RealClock) -> None:
        self._clock = clock
        self._condition = threading.Condition(threading.RLock())

    def __enter__(self) -> bool:
        return self._condition.__enter__()

    def __exit__(self, *args: object) -> None:
        self._condition.release()

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        clock = self._clock
        end = None if timeout is None else clock.time() + timeout
        while not predicate():
            clock.check()
            left = None if end is None else end - clock.time()
            if left is not None and left <= 0:
                return False
            clock.waiting.add(me := threading.get_ident())
            try:
                self._condition.wait(clock.remaining(left))
            finally:
                clock.waiting.discard(me)
        return True

    def notify_all(self) -> None:
        self._condition.notify_all()

    def wake(self) -> None:
        """Notifies without waiting for the lock, which the caller of `wake` need not hold.

        Whoever wakes a clock may hold another condition of it; to wait here for this one would
        be a deadlock when a second thread does the same the other way round.
        """
        if self._condition.acquire(blocking=False):
            self._notify_and_release()
        else:
            threading.Thread(target=self._wake_later, name="lpml-wake", daemon=True).start()

    def _wake_later(self) -> None:
        self._condition.acquire()
        self._notify_and_release()

    def _notify_and_release(self) -> None:
        try:
            self._condition.notify_all()
        finally:
            self._condition.release()


@final
class RealClock(Clock):
    """The machine's own time."""

    def __init__(self) -> None:
        self._stopping = False
        self._lock = threading.Lock()
        self._conditions: weakref.WeakSet[_RealCondition] = weakref.WeakSet()
        self.waiting: set[int] = set()  # threads, by their identity
        self._idle = self._register()
        enlist(self)

    def time(self) -> float:
        return time.monotonic()

    def wall_time(self) -> float:
        return time.time()

    def condition(self) -> Condition:
        return self._register()

    def wait(self, seconds: float | None) -> bool:
        try:
            with self._idle:
                self._idle.wait_for(lambda: self._stopping, seconds)
        except ProgramStopped:
            pass
        return self._stopping

    def stop(self) -> None:
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        with self._lock:
            conditions = list(self._conditions)
        for condition in conditions:
            condition.wake()

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def waiting_threads(self) -> Collection[int]:
        return self.waiting

    def _register(self) -> _RealCondition:
        condition = _RealCondition(self)
        with self._lock:
            self._conditions.add(condition)
        return condition


class Scope(Protocol):
    """Whose code is running: a node's context, seen from below."""

    @property
    def clock(self) -> Clock: ...


current_scope: ContextVar[Scope | None] = ContextVar("lpml_scope", default=None)
_process_scope: list[Scope] = []  # at most one: the node of a process that holds just one
_process_clock = RealClock()


def set_process_scope(scope: Scope | None) -> None:
    """Makes `scope` that of every thread of this process that has none of its own."""
    _process_scope[:] = [] if scope is None else [scope]


def find_scope() -> Scope | None:
    """The scope of the code that is running, or `None` outside any node."""
    scope = current_scope.get()
    return scope if scope is not None else (_process_scope[0] if _process_scope else None)


def current_clock() -> Clock:
    """The clock of the node whose code is running, or the machine's."""
    scope = find_scope()
    return _process_clock if scope is None else scope.clock


@contextlib.contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Bounds every call and wait in the block to `seconds` from now; `None` = no bound.

    Never extends the deadline of the call that is being served: what a method calls must answer
    before the method's own caller gives up.

    Example:
      >>> with deadline(5.0):
      ...     pass  # client.method() raises CallTimeout after five seconds
    """
    if seconds is not None and not seconds >= 0:
        raise ValueError(f"deadline({seconds!r}): give seconds of at least 0, or None")
    outer = current_call.get()
    end = None if seconds is None else current_clock().time() + seconds
    if outer is not None and outer.deadline is not None:
        end = outer.deadline if end is None else min(end, outer.deadline)
    token = current_call.set(Call(end, outer))
    try:
        yield
    finally:
        current_call.reset(token)


def call_timeout() -> float | None:
    """Seconds that a call started now may take; `None` = for ever."""
    call = current_call.get()
    if call is None:
        return DEFAULT_CALL_TIMEOUT
    if call.deadline is None:
        return None
    return max(0.0, call.deadline - current_clock().time())
