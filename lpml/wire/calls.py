"""future, acall, stream, broadcast, first: over a client, or over a plain object in a test."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, Concatenate, ParamSpec, TypeVar, final

from lpml.errors import CallTimeout
from lpml.wire.client import Method, RemoteMethod
from lpml.wire.futures import Future as Future
from lpml.wire.futures import release
from lpml.wire.parcel import publish
from lpml.wire.streams import Stream as Stream
from lpml.wire.threads import future_in_thread, take_in_thread

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def future(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Starts a call and returns at once.

    Args:
      method: a method of a client, or any function: that one runs in a thread.
      args, kwargs: its arguments; they may be changed when this has returned.

    Raises:
      CallError: the arguments cannot be sent.
      NodeUnavailable: nobody answers at the node's address.

    Example:
      >>> future(pow, 2, 10).result()
      1024
    """
    if isinstance(method, Method) and not method.streams:
        started: Future[R] = method.start(args, kwargs)
        return started
    return future_in_thread(method, args, kwargs)


async def acall(method: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a method without blocking the event loop. Cancelling the task cancels the call.

    Example:
      >>> import asyncio
      >>> asyncio.run(acall(pow, 2, 10))
      1024
    """
    return await future(method, *args, **kwargs)


def stream(method: Callable[P, Iterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
    """The items that a generator method yields, as they come.

    The node works at most a few items ahead of the reader.

    Args:
      method: a generator method of a client, or any function that returns an iterable.

    Example:
      >>> with stream(range, 3) as items:
      ...     list(items)
      [0, 1, 2]
    """
    if isinstance(method, Method) and method.streams:
        return method.open(args, kwargs)
    return Stream(_PlainItems(method(*args, **kwargs)))


def is_remote(method: Callable[..., Any]) -> bool:
    """Whether calls of a method go over a connection, so that `future` needs no thread for them."""
    return isinstance(method, RemoteMethod)


def broadcast(
    group: Iterable[S],
    method: Callable[Concatenate[S, P], R],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> list[Future[R]]:
    """Calls a method of each member of a group; the arguments are serialised once.

    Args:
      group: clients (or plain objects) of one service.
      method: the method as the class has it, such as `Worker.set_params`.

    Returns:
      A future for each member, in order; that of a member that is gone has failed already.

    Raises:
      CallError: the arguments cannot be sent.

    Example:
      >>> [f.result() for f in broadcast(["a", "b"], str.upper)]
      ['A', 'B']
    """
    bound = [getattr(member, method.__name__) for member in group]
    remote = [each for each in bound if isinstance(each, RemoteMethod)]
    if len(remote) < 2:
        return [future(each, *args, **kwargs) for each in bound]
    prepared = publish(remote[0].encode(args, kwargs))
    return [
        each.send(prepared, keywords=bool(kwargs))
        if isinstance(each, RemoteMethod)
        else future(each, *args, **kwargs)
        for each in bound
    ]


def first(k: int, futures: Iterable[Future[R]], *, timeout: float | None = None) -> list[Future[R]]:
    """Waits for the first `k` of several futures; the others go on.

    Args:
      k: how many, at least 0 and at most all.
      futures: of any calls.
      timeout: seconds; `None` = until the deadlines of the calls.

    Returns:
      `k` futures that have ended, well or not, in the order in which they ended.

    Raises:
      ValueError: `k` is more than there are futures, or less than 0.
      CallTimeout: fewer than `k` ended in time.
    """
    futures = list(futures)
    if not 0 <= k <= len(futures):
        raise ValueError(f"first({k}) of {len(futures)} futures: give 0 to {len(futures)}")
    finished = _Finished(k)
    for each in futures:
        each.add_done_callback(finished.add)
    if not finished.wait(timeout):
        raise CallTimeout(
            f"{len(finished.futures)} of {len(futures)} calls ended within {timeout} s, and "
            f"{k} were asked for"
        )
    return finished.futures[:k]


@final
class _Finished:
    """Futures in the order in which they ended."""

    def __init__(self, wanted: int) -> None:
        self.futures: list[Future[Any]] = []
        self._wanted = wanted
        self._latch = threading.Lock()
        self._latch.acquire()

    def add(self, future: Future[Any]) -> None:
        self.futures.append(future)
        if len(self.futures) >= self._wanted:
            release(self._latch)

    def wait(self, timeout: float | None) -> bool:
        end = None if timeout is None else monotonic() + timeout
        while len(self.futures) < self._wanted:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                return False
            self._latch.acquire(timeout=-1 if left is None else left)
        return True


@final
class _PlainItems:
    """The items of any iterable of this process."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterator = iter(iterable)
        self._ended = False

    def take(self) -> Any:
        if self._ended:
            raise StopIteration
        return next(self._iterator)

    def take_soon(self) -> Awaitable[Any]:
        return take_in_thread(self.take)

    def close(self) -> None:
        self._ended = True
        end = getattr(self._iterator, "close", None)
        if end is not None:
            end()
