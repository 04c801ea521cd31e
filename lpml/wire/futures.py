"""The outcome of a call that is still to come."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, final

from lpml.errors import CallCancelled, CallTimeout

R = TypeVar("R")

PENDING, DONE, RAW, FAILED = range(4)

_changing = threading.Lock()  # held for the few lines in which a future changes


def _after_fork() -> None:
    global _changing
    _changing = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)


class Source(Protocol):
    """What a future waits for: a connection, or a thread."""

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Waits until the future is done or for `timeout` seconds; says whether it is done."""
        ...

    def cancel(self, future: Future[Any]) -> None:
        """Nobody wants the outcome any more; the future is done already."""
        ...

    def attend(self, future: Future[Any]) -> None:
        """Somebody is to be called back: see to it that the future is done without a waiter."""
        ...

    def decode(self, future: Future[Any], raw: Any) -> Any:
        """The value of a future that was completed with raw data, or an exception raised."""
        ...


@final
class Future(Generic[R]):
    """The outcome of a call made by `lpml.future`. Safe to use from several threads."""

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_latches",
        "_source",
        "_state",
        "_value",
        "again",
        "call",
        "deadline",
        "method",
    )

    def __init__(
        self, source: Source, method: Any, call: int = 0, deadline: float | None = None
    ) -> None:
        self._source = source
        self._state = PENDING
        self._value: Any = None  # or the exception, if it failed
        self._callbacks: list[Callable[[Future[R]], object]] | None = None
        self._latches: list[Any] | None = None
        self.method = method
        self.again: Any = None  # what is sent once more if the node goes away
        self.call = call
        self.deadline = deadline

    def __repr__(self) -> str:
        state = ("pending", "done", "done", "failed")[self._state]
        return f"<Future of {self.method}: {state}>"

    def result(self, timeout: float | None = None) -> R:
        """What the method returned; waits for it.

        Args:
          timeout: seconds; `None` = until the deadline of the call.

        Raises:
          CallTimeout: not done in time. If it was `timeout` that passed, the call goes on.
          CallCancelled: it was cancelled.
          RemoteError, NodeUnavailable: as the call itself raises.
        """
        if self._state == PENDING and not self._source.wait(self, timeout):
            raise CallTimeout(
                f"{self.method} has no result after {timeout} s; the call goes on: wait again, "
                "or cancel it"
            )
        return self._outcome()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or `None` if it returned; waits as `result`."""
        if self._state == PENDING and not self._source.wait(self, timeout):
            raise CallTimeout(f"{self.method} has no result after {timeout} s; the call goes on")
        if self._state == RAW:
            with contextlib.suppress(Exception):
                self._outcome()
        failed: BaseException | None = self._value if self._state == FAILED else None
        return failed

    def done(self) -> bool:
        """Whether the call has ended, one way or another. Does not block."""
        return self._state != PENDING or self._source.wait(self, 0.0)

    def cancel(self) -> bool:
        """Gives the call up: drops it where it waits and tells it where it runs.

        Returns:
          Whether the future is cancelled now; `False` if the call had ended before.
        """
        if self.fail(CallCancelled(f"the call of {self.method} was cancelled")):
            self._source.cancel(self)
        return self.cancelled()

    def cancelled(self) -> bool:
        """Whether `cancel` came in time."""
        return self._state == FAILED and type(self._value) is CallCancelled

    def add_done_callback(self, function: Callable[[Future[R]], object]) -> None:
        """Calls `function(self)` when the call has ended: at once if it has.

        Until then it is called in a thread of lpml; it should be quick.
        """
        with _changing:
            if self._state == PENDING:
                self._callbacks = [*(self._callbacks or ()), function]
                pending = True
            else:
                pending = False
        if pending:
            self._source.attend(self)
        else:
            function(self)

    def __await__(self) -> Generator[Any, None, R]:
        if not self.done():
            import asyncio

            loop = asyncio.get_running_loop()
            waiter: asyncio.Future[None] = loop.create_future()

            def wake() -> None:
                if not waiter.done():
                    waiter.set_result(None)

            def call_soon(_: Future[R]) -> None:
                with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                    loop.call_soon_threadsafe(wake)

            self.add_done_callback(call_soon)
            try:
                yield from waiter
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._outcome()

    # What follows is for the sources of futures.

    @staticmethod
    def failed(method: Any, error: BaseException) -> Future[Any]:
        """A future that has failed before it began."""
        future: Future[Any] = Future(_NoSource(), method)
        future.fail(error)
        return future

    def complete(self, value: Any, state: int = DONE) -> bool:
        """Ends the future with a value (or raw data); says whether it was pending."""
        with _changing:
            if self._state != PENDING:
                return False
            self._value = value
            self._state = state
            latches, self._latches = self._latches, None
        if latches:
            for latch in latches:
                release(latch)
        return True

    def fail(self, error: BaseException) -> bool:
        """Ends the future with an exception; says whether it was pending."""
        with _changing:
            if self._state != PENDING:
                return False
            self._value = error
            self._state = FAILED
            latches, self._latches = self._latches, None
        if latches:
            for latch in latches:
                release(latch)
        return True

    @property
    def source(self) -> Source:
        """What it waits for."""
        return self._source

    def move(self, source: Source) -> None:
        """It waits for something else from now on."""
        self._source = source

    @property
    def pending(self) -> bool:
        """Whether it has not ended, without looking whether it could."""
        return self._state == PENDING

    @property
    def state(self) -> int:
        """PENDING, DONE, RAW or FAILED."""
        return self._state

    @property
    def called_back(self) -> bool:
        """Whether somebody is to be called back."""
        return self._callbacks is not None

    def add_latch(self, latch: threading.Lock) -> bool:
        """Releases `latch` when the future ends; `False` if it has."""
        with _changing:
            if self._state != PENDING:
                return False
            self._latches = [*(self._latches or ()), latch]
            return True

    def call_back(self) -> None:
        """Calls back whoever asked, once."""
        with _changing:
            callbacks, self._callbacks = self._callbacks, None
        for function in callbacks or ():
            try:
                function(self)
            except Exception:
                import logging

                logging.getLogger("lpml").exception("a callback of %r raised", self)

    def _outcome(self) -> R:
        if self._state == RAW:
            with _changing:
                raw, still_raw = self._value, self._state == RAW
            if still_raw:
                self._decode(raw)
        if self._state == FAILED:
            raise self._value
        result: R = self._value
        return result

    def _decode(self, raw: Any) -> None:
        try:
            value, state = self._source.decode(self, raw), DONE
        except BaseException as error:
            value, state = error, FAILED
        with _changing:  # two threads may ask at once; one outcome counts
            if self._state == RAW:
                self._value, self._state = value, state


@final
class _NoSource:
    """Of a future that is never pending."""

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        return True

    def cancel(self, future: Future[Any]) -> None:
        """Nothing is under way."""

    def attend(self, future: Future[Any]) -> None:
        future.call_back()

    def decode(self, future: Future[Any], raw: Any) -> Any:
        return raw


def release(latch: Any) -> None:
    """Opens a latch, which may be open already."""
    with contextlib.suppress(RuntimeError):
        latch.release()
