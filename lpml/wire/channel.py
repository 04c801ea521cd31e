"""The client's side of a connection: many threads call, and whoever waits reads for all."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import weakref
from collections import deque
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, final

from lpml.errors import CallCancelled, CallTimeout, NodeUnavailable, ProtocolError
from lpml.wire import frames
from lpml.wire.attendant import Attendant
from lpml.wire.codec import Encoded, decode
from lpml.wire.courtesy import Courtesy
from lpml.wire.frames import CALL, ERROR, HEADER, REPLY, TABLE, Frame, Payload
from lpml.wire.futures import RAW, Future
from lpml.wire.inlet import Inlet
from lpml.wire.lead import Lead, closed_latch
from lpml.wire.outlet import Late, Outlet
from lpml.wire.parcel import Content, Packed, Published, opened, pack, unpack
from lpml.wire.patience import PATIENCE, check_caller
from lpml.wire.references import Reference, can_fetch
from lpml.wire.retrying import send_again
from lpml.wire.segments import Receiver, Sender
from lpml.wire.sockets import Address, Connection

Arguments: TypeAlias = "bytes | Encoded | Published"
Arrived: TypeAlias = "tuple[int, Payload | Content]"
"""kind, and the payload with what it refers to"""


class Unsent(Exception):
    """The connection broke before the whole of a call was sent, so nobody has executed it."""

    def __init__(self, reason: str, deadline: float | None) -> None:
        super().__init__(reason)
        self.deadline = deadline


@final
class Channel:
    """One connection to one node, shared by the threads of this process.

    There is no thread of its own on the way of a synchronous call: of those who wait, one (the
    leader) reads and completes everybody's futures; when it has its own, another takes the lead.
    Where somebody is to be called back, a reader thread waits like any other, while it must.

    Args:
      connection: a blocking connection.
      node: the peer, for messages.
      caller: who we are; sent in the hello.
      address: where the peer is reached.
    """

    def __init__(
        self, connection: Connection, node: str, caller: str, address: Address = ""
    ) -> None:
        self.node = node
        self.broken: str = ""  # why no more calls are possible
        self._socket = connection
        self._ids = itertools.count(1)
        self._futures: dict[int, Future[Any]] = {}  # {id: pending call}
        self._inboxes: dict[int, Inbox] = {}  # {id: open stream}
        self.lead = Lead()
        self._outlet = Outlet(connection)
        self._attendant = Attendant()
        self._courtesy = Courtesy()
        # Descriptors travel only within a host.
        local = isinstance(connection, socket.socket)
        self._sender = Sender(partial(_tell, self._outlet, frames.FORGET)) if local else None
        fetches = not local and can_fetch()
        fetched = partial(_tell_fetched, self._outlet)
        self._receiver = Receiver(
            partial(_tell, self._outlet, frames.RELEASE),
            (lambda identity: Reference(address, identity, fetched)) if fetches else None,
        )
        self._inlet = Inlet(connection, self._receiver)
        self._outlet.send(frames.hello(caller, frames.FETCHES * fetches), None, self._make_room)
        _channels.add(self)

    # Calls.

    def start(
        self,
        name: bytes,
        flags: int,
        encoded: Arguments,
        timeout: float | None,
        method: Any,
    ) -> Future[Any]:
        """Sends a call and returns its future. One that is idempotent outlives this connection.

        Raises:
          Unsent: the connection is broken.
        """
        call = next(self._ids) & 0xFFFFFFFF
        if timeout is None:
            future: Future[Any] = Future(self, method, call)
            seconds = frames.FOREVER
        else:
            future = Future(self, method, call, monotonic() + timeout)
            seconds = timeout
        packed = pack((CALL, flags, len(name), call, seconds), name, encoded, self._sender)
        if method.idempotent:
            future.again = flags, encoded
        self._futures[call] = future
        if not self._send(packed, future.deadline, call):
            if isinstance(packed, Packed) and self._sender is not None:
                self._sender.lose(packed.segment)
            self.expire(future)
        return future

    def call(self, name: bytes, body: bytes, timeout: float | None, method: Any) -> Any:
        """A plain call and its result: `start` and `result`, with less between.

        Where nobody else uses the connection, the reply is read and decoded where it is.
        """
        call = next(self._ids) & 0xFFFFFFFF
        if timeout is None:
            future: Future[Any] = Future(self, method, call)
            timeout = frames.FOREVER
        else:
            future = Future(self, method, call, monotonic() + timeout)
        size = len(name) + len(body)
        message = HEADER.pack(size, CALL, 0, len(name), call, timeout) + name + body
        self._futures[call] = future
        try:
            end = future.deadline
            if not self._send(message, end, call):
                self.expire(future)
            reply: bool | bytes = False
            self._courtesy.give()
            if self.lead.take(False):
                try:
                    reply = self.read(end, call)
                    while reply is True and future.pending:
                        reply = self.read(end, call)
                finally:
                    self.lead.give()
        except BaseException:
            future.cancel()
            raise
        if not isinstance(reply, bytes):
            return future.result()
        try:
            return decode(reply)
        except Exception as error:
            raise method.unreadable(error) from error

    def open(
        self,
        name: bytes,
        flags: int,
        encoded: Arguments,
        timeout: float | None,
        method: Any,
    ) -> Inbox:
        """Sends the call of a stream and returns where its items will arrive."""
        call = next(self._ids) & 0xFFFFFFFF
        seconds = frames.FOREVER if timeout is None else timeout
        packed = pack((frames.CALL, flags, len(name), call, seconds), name, encoded, self._sender)
        inbox = self._inboxes[call] = Inbox(self, method, call)
        self._send(packed, None)
        return inbox

    def expect(self, inbox: Inbox, timeout: float | None) -> Future[Any]:
        """A future that is done when something has arrived for a stream, or will never."""
        end = None if timeout is None else monotonic() + timeout
        future: Future[Any] = Future(self, inbox.method, -inbox.call, end)
        self._futures[future.call] = future
        if inbox.frames or inbox.call not in self._inboxes:
            self._arrived(inbox)
        return future

    def leave(self, inbox: Inbox) -> None:
        """Nobody wants more of a stream. May be called by the garbage collector."""
        if self._inboxes.pop(inbox.call, None) is not None:
            self.tell(frames.header(0, frames.CANCEL, call=inbox.call))
            self._arrived(inbox)

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Reads, or waits for who reads, until the future is done; for `timeout` at most."""
        end = None if timeout is None else monotonic() + timeout
        last = future.deadline
        if last is not None and (end is None or last <= end):
            end = last
        else:
            last = None  # not the deadline of the call is what ends this wait
        try:
            if self.lead.take(False):
                self._read_until(future, end)
            while future.pending and not self._late(end):
                if future.source is not self:  # it was sent again, over another connection
                    return future.source.wait(
                        future, None if timeout is None or end is None else end - monotonic()
                    )
                self._follow(future, end)
        except CallCancelled:
            future.cancel()
            raise
        if future.pending and last is not None:
            self.expire(future)
        return not future.pending

    def cancel(self, future: Future[Any]) -> None:
        """Tells the node that nobody waits any more."""
        if self._futures.pop(future.call, None) is not None and future.call > 0:
            self.tell(frames.header(0, frames.CANCEL, call=future.call))
        future.call_back()

    def attend(self, future: Future[Any]) -> None:
        """Somebody wants to be called back: a thread reads while nobody else does."""
        if not future.pending:
            future.call_back()
            return
        self._attendant.attend(self)

    def decode(self, future: Any, raw: Arrived) -> Any:
        """The value of a reply, or an exception as the caller should see it."""
        kind, payload = raw
        try:
            value = decode(payload) if type(payload) is bytes else unpack(payload)
        except ProtocolError:
            raise
        except CallTimeout:
            raise future.method.late() from None
        except NodeUnavailable as error:  # of a value that was to be fetched
            end = getattr(future, "deadline", None)
            raise future.method.gone(str(error), end, pending=True) from None
        except Exception as error:
            raise future.method.unreadable(error) from error
        if kind in (REPLY, frames.ITEM):
            return value
        raise future.method.remote(*value)

    def tell(self, frame: bytes) -> None:
        """Sends a frame soon. May be called by the garbage collector."""
        if not self.broken:
            try:
                self._outlet.add_soon(frame)
            except OSError as error:
                self._break(f"{self.node} is gone ({error.strerror or error})")

    def close(self, reason: str) -> None:
        """Closes the connection; pending calls fail with `reason`."""
        self._break(reason, again=False)

    def __del__(self) -> None:
        self._socket.close()
        if self._sender is not None:
            self._sender.close()

    # Waiting.

    @staticmethod
    def _late(end: float | None) -> bool:
        return end is not None and monotonic() >= end

    def _read_until(self, future: Future[Any], end: float | None) -> None:
        """Reads for everybody until `future` is done. Called with the lead."""
        try:
            while future.pending and self.read(end):
                pass
        finally:
            self.lead.give()

    def _follow(self, future: Future[Any], end: float | None) -> None:
        """Waits until the future is done or the lead is free, and then leads."""
        latch = closed_latch()
        if not future.add_latch(latch):
            return
        if self.lead.take_or_join(latch):
            self._read_until(future, end)
            return
        try:
            left = PATIENCE if end is None else min(PATIENCE, end - monotonic())
            if not latch.acquire(timeout=max(0.0, left)):
                check_caller()
        finally:
            self.lead.leave(latch)

    def expire(self, future: Future[Any]) -> None:
        """The deadline of a call passed."""
        if future.fail(future.method.late()):
            self.cancel(future)

    def asked(self) -> list[Future[Any]]:
        """The pending futures of which somebody is to be called back."""
        return [future for future in list(self._futures.values()) if future.called_back]

    # Reading and writing.

    def read(self, end: float | None, call: int = 0) -> bool | bytes:
        """Reads once and completes what came; `False` if nothing came until `end`.

        If all that came is the reply to `call`, its body is returned and nothing is completed.
        """
        if self.broken:
            return False
        try:
            came = self._inlet.read(end, call)
            if isinstance(came, bytes):
                self._futures.pop(call, None)
                return came
            if came is None:
                return False
            for frame in came:
                self._handle(frame)
        except ProtocolError as error:
            self._break(f"{self.node} sent what is no message: {error}")
        except OSError:
            self._break(f"{self.node} is gone: it closed the connection")
        return not self.broken

    def _handle(self, frame: Frame) -> None:
        kind, flags, _, call, _, payload = frame
        content = opened(flags, payload, 0, self._receiver) if flags & TABLE else payload
        if kind in (REPLY, ERROR):
            future = self._futures.pop(call, None)
            if future is not None:
                future.complete((kind, content), RAW)
                if future.called_back:
                    self._attendant.call_back(future)
                return
        if kind in (frames.ITEM, frames.END, ERROR):
            inbox = self._inboxes.get(call)
            if inbox is not None:
                inbox.frames.append((kind, content))
                if kind != frames.ITEM:
                    self._inboxes.pop(call, None)
                self._arrived(inbox)
        elif kind == frames.RELEASE and self._sender is not None:
            self._sender.given_back(call)
        elif kind == frames.FORGET:
            self._receiver.forget(call)
        elif kind == frames.REFUSED:
            self._break(f"{self.node} refused the connection: {bytes(payload).decode()}")

    def _arrived(self, inbox: Inbox) -> None:
        future = self._futures.pop(-inbox.call, None)
        if future is not None:
            future.complete(None)
            if future.called_back:
                self._attendant.call_back(future)

    def _send(self, message: bytes | Packed, end: float | None, call: int = 0) -> bool:
        """Sends a message; `False` if nothing of it could be sent until `end`.

        If the connection is broken or breaks, whatever is pending fails.

        Raises:
          Unsent: it is, and the message is the call of this number.
        """
        try:
            if self.broken:
                raise OSError(self.broken)
            self._outlet.send(message, end, self._make_room)
        except OSError as error:
            ours = self._futures.pop(call, None)
            self._break(f"{self.node} is gone ({error.strerror or error})")
            if ours is not None:
                raise Unsent(self.broken, ours.deadline) from None
        except Late:
            return False
        finally:
            if self._outlet.cut:
                self._break(f"the connection to {self.node} was cut within a message")
        return True

    def _make_room(self, end: float | None) -> None:
        """The socket is full: reads meanwhile, or the peer could wait for us as we for it."""
        poll = select.poll()
        lead = self.lead.take(False)
        try:
            poll.register(self._socket.fileno(), select.POLLOUT | (select.POLLIN if lead else 0))
            left = PATIENCE if end is None else min(PATIENCE, end - monotonic())
            if not lead:
                left = min(left, 0.02)  # the lead may become free, and then we must read
            ready = poll.poll(max(0.0, left) * 1000)
            if lead and ready and ready[0][1] & select.POLLIN:
                self.read(None)
        finally:
            if lead:
                self.lead.give()
        if self.broken:
            raise OSError(self.broken)

    def _break(self, reason: str, again: bool = True) -> None:
        """No more calls: all that are pending fail at once, or are sent again if they may be."""
        self.broken = self.broken or reason
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        lost: list[Future[Any]] = []
        while self._futures:
            try:
                _, future = self._futures.popitem()
            except KeyError:
                break
            if again and future.again is not None:
                lost.append(future)
                continue
            future.fail(future.method.gone(self.broken, future.deadline, pending=again))
            if future.called_back:
                self._attendant.call_back(future)
        self._inboxes.clear()
        if lost:
            send_again(lost, self.broken)

    def forget(self) -> None:
        """After a fork: the connection is the parent's."""
        self.broken = "the process was forked; connections are not shared"
        self._socket.close()
        self._futures.clear()
        self._inboxes.clear()
        self.lead = Lead()
        self._outlet.forget()
        self._attendant.forget()


@final
class Inbox:
    """What arrived of one stream and was not taken yet."""

    def __init__(self, channel: Channel, method: Any, call: int) -> None:
        self.channel = channel
        self.method = method
        self.call = call
        self.frames: deque[Arrived] = deque()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _tell(outlet: Outlet, kind: int, segment: int) -> None:
    """Goes with the next message. Takes no lock: the garbage collector may call it."""
    outlet.add(frames.header(0, kind, call=segment))


def _tell_fetched(outlet: Outlet, identity: bytes) -> None:
    """Goes soon, so that the owner need not keep the value. As `_tell`, takes no lock."""
    with contextlib.suppress(OSError):  # the owner is gone
        outlet.add_soon(frames.header(len(identity), frames.FETCHED) + identity)


def _after_fork() -> None:
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork)
