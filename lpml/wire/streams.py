"""The items of a generator method, as they come."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, Generic, Protocol, TypeVar, final

from lpml.clock import call_timeout
from lpml.errors import NodeUnavailable
from lpml.wire import frames
from lpml.wire.channel import Channel
from lpml.wire.futures import FAILED
from lpml.wire.unanswered import Inbox, value_of

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """Where a stream's items come from."""

    def take(self) -> T_co:
        """The next item; waits for it. StopIteration at the end."""
        ...

    def take_soon(self) -> Awaitable[T_co]:
        """The same without blocking. StopAsyncIteration at the end."""
        ...

    def close(self) -> None:
        """No more is wanted. Idempotent; the garbage collector may call it."""
        ...


@final
class Stream(Generic[T]):
    """An iterator, plain and asynchronous, over what a generator method yields.

    The method runs at most a few items ahead of the reader. Leaving a `with` block, `close`, or
    dropping the stream ends the generator at the node.
    """

    def __init__(self, items: Items[T]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self._items.take()

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        return await self._items.take_soon()

    def close(self) -> None:
        """Ends the generator, wherever it is. Idempotent."""
        self._items.close()

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(self, *args: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._items.close()


@final
class RemoteItems:
    """The items that arrive in an inbox."""

    def __init__(self, channel: Channel, inbox: Inbox) -> None:
        self._channel = channel
        self._inbox = inbox
        self._ended = False
        self._taken = 0

    def take(self) -> Any:
        inbox = self._inbox
        while not self._ended:
            if inbox.frames:
                return self._next()
            self._check()
            arrival = self._channel.expect(inbox, call_timeout())
            self._channel.wait(arrival, None)
            self._raise(arrival)
        raise StopIteration

    async def take_soon(self) -> Any:
        inbox = self._inbox
        while not self._ended:
            if inbox.frames:
                try:
                    return self._next()
                except StopIteration:
                    break
            self._check()
            await self._channel.expect(inbox, call_timeout())
        raise StopAsyncIteration

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._channel.leave(self._inbox)
            self._inbox.frames.clear()

    def _next(self) -> Any:
        inbox = self._inbox
        frame = inbox.frames.popleft()
        if frame[0] == frames.ITEM:
            self._taken += 1
            if self._taken >= frames.WINDOW // 2:
                credit = frames.header(0, frames.CREDIT, extra=self._taken, call=inbox.call)
                self._channel.tell(credit)
                self._taken = 0
            return value_of(inbox.method, frame)
        self._ended = True
        if frame[0] == frames.END:
            raise StopIteration
        return value_of(inbox.method, frame)  # raises

    def _check(self) -> None:
        """Nothing has arrived; can anything still?"""
        if self._channel.broken and not self._inbox.frames:
            self._ended = True
            error: NodeUnavailable = self._inbox.method.gone(self._channel.broken)
            raise error

    def _raise(self, arrival: Any) -> None:
        error = arrival.exception() if arrival.state == FAILED else None
        if error is not None:
            self.close()
            raise error
