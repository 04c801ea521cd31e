"""What is still to come over a client's connection: replies of calls, and items of streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import chain, repeat
from typing import Any, TypeAlias, final

from lpml.errors import CallTimeout, NodeUnavailable, ProtocolError
from lpml.wire.codec import decode
from lpml.wire.frames import ERROR, ITEM, REPLY, Payload
from lpml.wire.futures import RAW, Future
from lpml.wire.parcel import Content, unpack

Arrived: TypeAlias = "tuple[int, Payload | Content]"
"""kind, and the payload with what it refers to"""


def value_of(method: Any, arrived: Arrived, deadline: float | None = None) -> Any:
    """What arrived for a call, or an exception as its caller should see it.

    Args:
      method: that was called.
      arrived: a reply, an item or an error.
      deadline: of the call, if it may be sent again.
    """
    kind, payload = arrived
    try:
        value = decode(payload) if type(payload) is bytes else unpack(payload)
    except ProtocolError:
        raise
    except CallTimeout:
        raise method.late() from None
    except NodeUnavailable as error:  # of a value that was to be fetched
        raise method.gone(str(error), deadline, pending=True) from None
    except Exception as error:
        raise method.unreadable(error) from error
    if kind in (REPLY, ITEM):
        return value
    raise method.remote(*value)


@final
class Inbox:
    """What arrived of one stream and was not taken yet."""

    def __init__(self, method: Any, call: int) -> None:
        self.method = method
        self.call = call
        self.frames: deque[Arrived] = deque()


@final
class Unanswered:
    """The calls and streams of one connection that have not ended. Does no I/O; thread-safe.

    Each step is one operation on a dictionary, so no lock is taken.

    Args:
      call_back: called with each future that has ended and of which somebody is to be told.
    """

    def __init__(self, call_back: Callable[[Future[Any]], object]) -> None:
        self.futures: dict[int, Future[Any]] = {}
        """`{id: pending call}`, and `{-id: wait for an item}`; whoever calls adds to it."""
        self.number = chain.from_iterable(repeat(range(1, 1 << 32))).__next__
        """`number()`: the id of one more call."""
        self._inboxes: dict[int, Inbox] = {}  # {id: open stream}
        self._call_back = call_back

    def asked(self) -> list[Future[Any]]:
        """The futures of which somebody is to be called back."""
        return [future for future in list(self.futures.values()) if future.called_back]

    def open(self, inbox: Inbox) -> None:
        """The call of a stream is about to be sent."""
        self._inboxes[inbox.call] = inbox

    def expect(self, inbox: Inbox, future: Future[Any]) -> None:
        """`future` is to end when something has arrived for a stream, or will never."""
        self.futures[future.call] = future
        if inbox.frames or inbox.call not in self._inboxes:
            self._item_arrived(inbox)

    def leave(self, inbox: Inbox) -> bool:
        """Nobody wants more of a stream; says whether it was open."""
        if self._inboxes.pop(inbox.call, None) is None:
            return False
        self._item_arrived(inbox)
        return True

    def arrived(self, kind: int, call: int, content: Payload | Content) -> None:
        """A reply, an item, the end of a stream or an error came."""
        if kind in (REPLY, ERROR):
            future = self.futures.pop(call, None)
            if future is not None:
                future.complete((kind, content), RAW)
                if future.called_back:
                    self._call_back(future)
                return
        inbox = self._inboxes.get(call)
        if inbox is not None and kind != REPLY:
            inbox.frames.append((kind, content))
            if kind != ITEM:
                self._inboxes.pop(call, None)
            self._item_arrived(inbox)

    def fail(self, reason: str, again: bool) -> list[Future[Any]]:
        """Nothing comes any more: all that are pending fail, and every stream ends.

        Args:
          again: whether calls that may be sent again are to be; they do not fail then.

        Returns:
          Those that are to be sent again.
        """
        lost: list[Future[Any]] = []
        while self.futures:
            try:
                _, future = self.futures.popitem()
            except KeyError:
                break
            if again and future.again is not None:
                lost.append(future)
                continue
            future.fail(future.method.gone(reason, future.deadline, pending=again))
            if future.called_back:
                self._call_back(future)
        self._inboxes.clear()
        return lost

    def forget(self, reason: str) -> None:
        """After a fork: they are the parent's, and fail here. Nobody is called back for it."""
        for future in self.futures.values():
            future.fail(future.method.gone(reason))
        self.futures.clear()
        self._inboxes.clear()

    def _item_arrived(self, inbox: Inbox) -> None:
        future = self.futures.pop(-inbox.call, None)
        if future is not None:
            future.complete(None)
            if future.called_back:
                self._call_back(future)
