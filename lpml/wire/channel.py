"""The client's side of a connection: many threads call, and whoever waits reads for all."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, final

from lpml.errors import ProtocolError
from lpml.wire import frames
from lpml.wire.attendant import Attendant
from lpml.wire.codec import Encoded, decode
from lpml.wire.courtesy import Courtesy
from lpml.wire.frames import CALL, END, ERROR, HEADER, ITEM, REPLY, TABLE, Frame
from lpml.wire.futures import Future
from lpml.wire.inlet import Inlet
from lpml.wire.lead import Lead
from lpml.wire.lending import Lending
from lpml.wire.outlet import Late, Outlet
from lpml.wire.parcel import Packed, Published, opened, pack
from lpml.wire.references import Reference, can_fetch
from lpml.wire.retrying import send_again
from lpml.wire.sockets import Address, Connection
from lpml.wire.unanswered import Arrived, Inbox, Unanswered, value_of
from lpml.wire.waiting import wait, wait_for_room

Arguments: TypeAlias = "bytes | Encoded | Published"


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
        self.lead = Lead()
        self._outlet = Outlet(connection)
        self._attendant = Attendant()
        self._unanswered = Unanswered(self._attendant.call_back)
        self._courtesy = Courtesy()
        fetches = can_fetch() and not isinstance(connection, socket.socket)
        told = partial(_reference, address, self._outlet) if fetches else None
        self._lending = Lending(connection, self._outlet.add, told)
        self._inlet = Inlet(connection, self._lending.receiver)
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
        call, sender = self._unanswered.number(), self._lending.sender
        end = None if timeout is None else monotonic() + timeout
        future: Future[Any] = Future(self, method, call, end)
        seconds = frames.FOREVER if timeout is None else timeout
        packed = pack((CALL, flags, len(name), call, seconds), name, encoded, sender)
        if method.idempotent:
            future.again = flags, encoded
        self._unanswered.futures[call] = future
        if not self._send(packed, end, call):
            if isinstance(packed, Packed) and sender is not None:
                sender.lose(packed.segment)
            self.expire(future)
        return future

    def call(self, name: bytes, body: bytes, timeout: float | None, method: Any) -> Any:
        """A plain call and its result: `start` and `result`, with less between.

        Where nobody else uses the connection, the reply is read and decoded where it is.
        """
        call = self._unanswered.number()
        end = None if timeout is None else monotonic() + timeout
        future: Future[Any] = Future(self, method, call, end)
        seconds = frames.FOREVER if timeout is None else timeout
        size = len(name) + len(body)
        message = HEADER.pack(size, CALL, 0, len(name), call, seconds) + name + body
        self._unanswered.futures[call] = future
        try:
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
        call = self._unanswered.number()
        seconds = frames.FOREVER if timeout is None else timeout
        packed = pack((CALL, flags, len(name), call, seconds), name, encoded, self._lending.sender)
        inbox = Inbox(method, call)
        self._unanswered.open(inbox)
        self._send(packed, None)
        return inbox

    def expect(self, inbox: Inbox, timeout: float | None) -> Future[Any]:
        """A future that is done when something has arrived for a stream, or will never."""
        end = None if timeout is None else monotonic() + timeout
        future: Future[Any] = Future(self, inbox.method, -inbox.call, end)
        self._unanswered.expect(inbox, future)
        return future

    def leave(self, inbox: Inbox) -> None:
        """Nobody wants more of a stream. May be called by the garbage collector."""
        if self._unanswered.leave(inbox):
            self.tell(frames.header(0, frames.CANCEL, call=inbox.call))

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
        if self._lending.sender is not None:
            self._lending.sender.close()

    # What futures and those who wait for them need.

    def wait(self, future: Future[Any], timeout: float | None) -> bool:
        """Reads, or waits for who reads, until the future is done; for `timeout` at most."""
        return wait(self, future, timeout)

    def expire(self, future: Future[Any]) -> None:
        """The deadline of a call passed."""
        if future.fail(future.method.late()):
            self.cancel(future)

    def asked(self) -> list[Future[Any]]:
        """The pending futures of which somebody is to be called back."""
        return self._unanswered.asked()

    def cancel(self, future: Future[Any]) -> None:
        """Tells the node that nobody waits any more."""
        if self._unanswered.futures.pop(future.call, None) is not None and future.call > 0:
            self.tell(frames.header(0, frames.CANCEL, call=future.call))
        future.call_back()

    def attend(self, future: Future[Any]) -> None:
        """Somebody wants to be called back: a thread reads while nobody else does."""
        if not future.pending:
            future.call_back()
            return
        self._attendant.attend(self)

    def decode(self, future: Future[Any], raw: Arrived) -> Any:
        """The value of a reply, or an exception as the caller should see it."""
        return value_of(future.method, raw, future.deadline)

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
                self._unanswered.futures.pop(call, None)
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
        content = opened(flags, payload, 0, self._lending.receiver) if flags & TABLE else payload
        if kind in (REPLY, ERROR, ITEM, END):
            self._unanswered.arrived(kind, call, content)
        elif kind == frames.REFUSED:
            self._break(f"{self.node} refused the connection: {bytes(payload).decode()}")
        else:
            self._lending.heard(kind, call, payload)

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
            ours = self._unanswered.futures.pop(call, None)
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
        wait_for_room(self, self._socket.fileno(), end)
        if self.broken:
            raise OSError(self.broken)

    def _break(self, reason: str, again: bool = True) -> None:
        """No more calls: all that are pending fail at once, or are sent again if they may be."""
        self.broken = self.broken or reason
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        lost = self._unanswered.fail(self.broken, again)
        if lost:
            send_again(lost, self.broken)

    def forget(self) -> None:
        """After a fork: the connection is the parent's."""
        self.broken = "the process was forked; connections are not shared"
        self._socket.close()
        self._unanswered.forget(self.broken)
        self.lead = Lead()
        self._outlet.forget()
        self._attendant.forget()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _reference(owner: Address, outlet: Outlet, identity: bytes) -> Reference:
    return Reference(owner, identity, partial(_tell_fetched, outlet))


def _tell_fetched(outlet: Outlet, identity: bytes) -> None:
    """Goes soon, so that the owner need not keep the value. Takes no lock, as `tell`."""
    with contextlib.suppress(OSError):  # the owner is gone
        outlet.add_soon(frames.header(len(identity), frames.FETCHED) + identity)


def _after_fork() -> None:
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork)
