"""Futures of functions that run in a thread of this process."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, final

from lpml.clock import Call, call_timeout, current_call, current_clock, wake_all
from lpml.wire.futures import Future
from lpml.wire.pool import Pool

_LINGER = 0.5  # seconds that an idle thread stays

_pool = Pool("lpml-future", _LINGER)
os.register_at_fork(after_in_child=_pool.forget)


@final
class _InThread:
    """The source of one future: a function that runs in a thread of the pool."""

    def __init__(self, call: Call) -> None:
        self._call = call

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        latch = threading.Lock()
        latch.acquire()
        if timeout == 0 or not future.add_latch(latch):
            return not future.pending
        end = None if timeout is None else monotonic() + timeout
        latch.acquire(timeout=-1 if end is None else max(0.0, end - monotonic()))
        return not future.pending

    def cancel(self, future: Future[Any]) -> None:
        self._call.cancel()
        wake_all()  # the function may wait on the clock of any node
        future.call_back()

    def attend(self, future: Future[Any]) -> None:
        if not future.pending:
            future.call_back()

    def decode(self, future: Future[Any], raw: Any) -> Any:
        raise NotImplementedError


def future_in_thread(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Future[Any]:
    """Calls the function in a thread, in a copy of the caller's context."""
    timeout = call_timeout()
    deadline = None if timeout is None else current_clock().time() + timeout
    call = Call(deadline, current_call.get())
    name = getattr(function, "__qualname__", None) or str(function)
    future: Future[Any] = Future(_InThread(call), name)
    context = contextvars.copy_context()
    context.run(current_call.set, call)

    def run() -> None:
        try:
            if not call.cancelled:
                future.complete(context.run(function, *args, **kwargs))
        except BaseException as error:
            future.fail(error)
        future.call_back()

    _pool.submit(run)
    return future


async def take_in_thread(take: Callable[[], Any]) -> Any:
    """The next item of an iterator, taken in a thread. StopAsyncIteration at the end."""
    end = object()

    def step() -> Any:
        try:
            return take()
        except StopIteration:
            return end

    item = await future_in_thread(step, (), {})
    if item is end:
        raise StopAsyncIteration
    return item
