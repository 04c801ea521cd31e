"""Sends calls again whose node went away: those that may be sent twice.

The future of such a call stays what it is; only what it waits for changes.
"""

from __future__ import annotations

import os
import threading
from time import monotonic
from typing import Any, final

from lpml.errors import NodeUnavailable
from lpml.wire.futures import Future
from lpml.wire.pool import Pool

_pool = Pool("lpml-retry", linger=0.5)
os.register_at_fork(after_in_child=_pool.forget)


def send_again(futures: list[Future[Any]], reason: str) -> None:
    """Sends the calls of these futures to whoever answers at the address of their node now.

    Returns at once. Where nobody does, they fail with `reason`.
    """
    for future in futures:
        future.move(_again)
    _pool.submit(_send, futures, reason)


def _send(futures: list[Future[Any]], reason: str) -> None:
    for future in futures:
        if not future.pending:
            continue
        try:
            following = future.method.send_again(*future.again, future.deadline)
        except NodeUnavailable:  # it has ended for good; what the caller saw of that says more
            _fail(future, future.method.gone(reason))
        except BaseException as error:
            _fail(future, error)
        else:
            _follow(future, following)


def _follow(future: Future[Any], following: Future[Any]) -> None:
    def settle(following: Future[Any]) -> None:
        try:
            future.complete(following.result())
        except BaseException as error:
            future.fail(error)
        future.call_back()

    following.add_done_callback(settle)


def _fail(future: Future[Any], error: BaseException) -> None:
    future.fail(error)
    future.call_back()


@final
class _Again:
    """The source of futures whose calls were sent again."""

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        latch = threading.Lock()
        latch.acquire()
        if timeout == 0 or not future.add_latch(latch):
            return not future.pending
        ends = [monotonic() + timeout] if timeout is not None else []
        ends += [future.deadline] if future.deadline is not None else []
        latch.acquire(timeout=max(0.0, min(ends) - monotonic()) if ends else -1)
        if future.pending and future.deadline is not None and monotonic() >= future.deadline:
            _fail(future, future.method.late())
        return not future.pending

    def cancel(self, future: Future[Any]) -> None:
        future.call_back()

    def attend(self, future: Future[Any]) -> None:
        if not future.pending:
            future.call_back()

    def decode(self, future: Future[Any], raw: Any) -> Any:
        raise NotImplementedError


_again = _Again()
