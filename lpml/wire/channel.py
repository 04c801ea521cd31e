"""The client's side of a connection: many threads call, and whoever waits reads for all."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import threading
import weakref
from collections import deque
from functools import partial
from time import monotonic
from typing import Any, TypeAlias, final

from lpml.clock import current_call
from lpml.errors import CallCancelled, ProtocolError
from lpml.wire import frames
from lpml.wire.codec import Encoded, decode
from lpml.wire.frames import CALL, ERROR, HEADER, HEADER_SIZE, REPLY, TABLE, Decoder, Frame, Payload
from lpml.wire.futures import RAW, Future, release
from lpml.wire.memory import File
from lpml.wire.parcel import Content, Packed, Published, opened, pack, unpack
from lpml.wire.segments import Receiver, Sender
from lpml.wire.transfer import ROOM, send_with_files, take_files

Arguments: TypeAlias = "bytes | Encoded | Published"
Arrived: TypeAlias = "tuple[int, Payload | Content]"
"""kind, and the payload with what it refers to"""

_RECEIVE = 1 << 16
_DO_NOT_WAIT = int(socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))
_PATIENCE = 0.25  # seconds for which the kernel waits before we look at deadlines again
_LINGER = 0.2  # seconds that an idle reader thread stays for more to attend to


class _Late(Exception):
    """The deadline passed before anything of a message could be sent."""


@final
class Channel:
    """One connection to one node, shared by the threads of this process.

    There is no thread of its own on the way of a synchronous call: of those who wait, one (the
    leader) reads and completes everybody's futures; when it has its own, another takes the lead.
    Where somebody is to be called back, a reader thread waits like any other, while it must.

    Args:
      connection: a connected blocking socket.
      node: the peer, for messages.
      caller: who we are; sent in the hello.
    """

    def __init__(self, connection: socket.socket, node: str, caller: str) -> None:
        self.node = node
        self.broken: str = ""  # why no more calls are possible
        self._socket = connection
        self._decoder = Decoder()
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._ids = itertools.count(1)
        self._futures: dict[int, Future[Any]] = {}  # {id: pending call}
        self._inboxes: dict[int, Inbox] = {}  # {id: open stream}
        self._writing = threading.Lock()
        self._reading = threading.Lock()  # held by the leader
        self._followers: dict[Any, None] = {}  # latches of those who wait and do not lead
        self._attending = threading.Lock()
        self._reader = False
        self._reader_latch: Any = None
        self._later: deque[bytes] = deque()  # frames that go with the next message
        self._unsent = b""  # the rest of one of them
        self._to_call_back: deque[Future[Any]] = deque()
        this: weakref.ref[Channel] = weakref.ref(self)
        self._sender = Sender(partial(_tell, this, frames.FORGET))
        self._receiver = Receiver(partial(_tell, this, frames.RELEASE))
        seconds = int(_PATIENCE)
        micros = int((_PATIENCE - seconds) * 1e6)
        patience = struct.pack("ll", seconds, micros)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        self._send(frames.hello(caller))
        _channels.add(self)

    # Calls.

    def start(
        self,
        name: bytes,
        flags: int,
        encoded: bytes | Encoded | Published,
        timeout: float | None,
        method: Any,
    ) -> Future[Any]:
        """Sends a call and returns its future.

        Raises:
          NodeUnavailable: the connection is broken.
        """
        call = next(self._ids) & 0xFFFFFFFF
        if timeout is None:
            future: Future[Any] = Future(self, method, call)
            seconds = frames.FOREVER
        else:
            future = Future(self, method, call, monotonic() + timeout)
            seconds = timeout
        packed = pack((CALL, flags, len(name), call, seconds), name, encoded, self._sender)
        self._futures[call] = future
        if self.broken:
            self._futures.pop(call, None)
            raise method.gone(self.broken)
        try:
            self._send(packed, future.deadline)
        except OSError as error:
            self._break(f"{self.node} is gone ({error.strerror or error})")
        except _Late:
            if isinstance(packed, Packed):
                self._sender.lose(packed.segment)
            self._expire(future)
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
        if self.broken:
            self._futures.pop(call, None)
            raise method.gone(self.broken)
        try:
            self._send(message, future.deadline)
        except OSError as error:
            self._break(f"{self.node} is gone ({error.strerror or error})")
        except _Late:
            self._expire(future)
        if self._reading.acquire(False):
            end = future.deadline
            try:
                reply = self._read(end, call)
                while reply is True and future.pending:
                    reply = self._read(end, call)
            except CallCancelled:
                future.cancel()
                raise
            finally:
                self._reading.release()
                if self._followers:
                    self._hand_on()
            if isinstance(reply, bytes):
                try:
                    return decode(reply)
                except Exception as error:
                    raise method.unreadable(error) from error
        return future.result()

    def open(
        self,
        name: bytes,
        flags: int,
        encoded: bytes | Encoded | Published,
        timeout: float | None,
        method: Any,
    ) -> Inbox:
        """Sends the call of a stream and returns where its items will arrive."""
        call = next(self._ids) & 0xFFFFFFFF
        seconds = frames.FOREVER if timeout is None else timeout
        packed = pack((frames.CALL, flags, len(name), call, seconds), name, encoded, self._sender)
        inbox = self._inboxes[call] = Inbox(self, method, call)
        if self.broken:
            self._inboxes.pop(call, None)
            raise method.gone(self.broken)
        try:
            self._send(packed)
        except OSError as error:
            self._break(f"{self.node} is gone ({error.strerror or error})")
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
            self.tell_soon(frames.header(0, frames.CANCEL, call=inbox.call))
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
            if self._reading.acquire(False):
                self._lead(future, end)
            while future.pending and not self._late(end):
                self._follow(future, end)
        except CallCancelled:
            future.cancel()
            raise
        if future.pending and last is not None:
            self._expire(future)
        return not future.pending

    def cancel(self, future: Future[Any]) -> None:
        """Tells the node that nobody waits any more."""
        if self._futures.pop(future.call, None) is not None and future.call > 0:
            self.tell_soon(frames.header(0, frames.CANCEL, call=future.call))
        future.call_back()

    def attend(self, future: Future[Any]) -> None:
        """Somebody wants to be called back: a thread reads while nobody else does."""
        if not future.pending:
            future.call_back()
            return
        with self._attending:
            if not self._reader:
                self._reader = True
                latch = self._reader_latch = threading.Lock()
                latch.acquire()
                threading.Thread(
                    target=self._attend, args=(latch,), name="lpml-reader", daemon=True
                ).start()
            else:
                release(self._reader_latch)

    def decode(self, future: Any, raw: Arrived) -> Any:
        """The value of a reply, or an exception as the caller should see it."""
        kind, payload = raw
        try:
            value = decode(payload) if type(payload) is bytes else unpack(payload)
        except ProtocolError:
            raise
        except Exception as error:
            raise future.method.unreadable(error) from error
        if kind in (REPLY, frames.ITEM):
            return value
        raise future.method.remote(*value)

    def tell_later(self, frame: bytes) -> None:
        """Sends a frame with the next message."""
        self._later.append(frame)

    def tell_soon(self, frame: bytes) -> None:
        """Sends a frame now if that needs no waiting, else with the next message.

        Takes no lock that may be held, so the garbage collector may call it anywhere.
        """
        self._later.append(frame)
        while self._later and not self.broken and self._writing.acquire(False):
            try:
                self._flush_later(wait=False)
            except BlockingIOError:
                return
            except OSError as error:
                self._break(f"{self.node} is gone ({error.strerror or error})")
            finally:
                self._writing.release()

    def close(self, reason: str) -> None:
        """Closes the connection; pending calls fail with `reason`."""
        self._break(reason)

    def __del__(self) -> None:
        self._socket.close()
        self._sender.close()

    # Waiting.

    @staticmethod
    def _late(end: float | None) -> bool:
        return end is not None and monotonic() >= end

    def _lead(self, future: Future[Any], end: float | None) -> None:
        """Reads for everybody until `future` is done. Called with `_reading` held."""
        try:
            while future.pending and self._read(end):
                pass
        finally:
            self._reading.release()
            if self._followers:
                self._hand_on()

    def _follow(self, future: Future[Any], end: float | None) -> None:
        """Waits until the future is done or the lead is free, and then leads."""
        latch = threading.Lock()
        latch.acquire()
        if not future.add_latch(latch):
            return
        self._followers[latch] = None
        try:
            if self._reading.acquire(False):
                self._followers.pop(latch, None)
                self._lead(future, end)
            else:
                left = _PATIENCE if end is None else min(_PATIENCE, end - monotonic())
                if not latch.acquire(timeout=max(0.0, left)):
                    _check_caller()
        finally:
            self._followers.pop(latch, None)
            if self._followers and not self._reading.locked():
                self._hand_on()  # the lead may have been meant for us

    def _hand_on(self) -> None:
        for latch in list(self._followers):
            self._followers.pop(latch, None)
            release(latch)
            return

    def _expire(self, future: Future[Any]) -> None:
        if future.fail(future.method.late()):
            self.cancel(future)

    def _attend(self, latch: Any) -> None:
        """The reader thread: leads if nobody does, calls back, ends when nobody asks."""
        while True:
            while self._to_call_back:
                self._to_call_back.popleft().call_back()
            asked = [f for f in list(self._futures.values()) if f.called_back]
            if asked:
                self._await_any(latch, asked)
            elif not latch.acquire(timeout=_LINGER):
                with self._attending:
                    if not self._to_call_back and not any(
                        f.called_back for f in list(self._futures.values())
                    ):
                        self._reader = False
                        return

    def _await_any(self, latch: Any, asked: list[Future[Any]]) -> None:
        self._followers[latch] = None
        deadlines = [f.deadline for f in asked if f.deadline is not None]
        end = min(deadlines, default=None)
        if self._reading.acquire(False):
            self._followers.pop(latch, None)
            try:
                while not self._to_call_back and not latch.acquire(False) and self._read(end):
                    pass
            finally:
                self._reading.release()
                if self._followers:
                    self._hand_on()
        else:
            latch.acquire(timeout=-1 if end is None else max(0.0, end - monotonic()))
            self._followers.pop(latch, None)
        for future in asked:
            if future.pending and future.deadline is not None and self._late(future.deadline):
                self._expire(future)

    # Reading and writing.

    def _read(self, end: float | None, call: int = 0) -> bool | bytes:
        """Reads once and completes what came; `False` if nothing came until `end`.

        If all that came is the reply to `call`, its body is returned and nothing is completed.
        """
        if self.broken:
            return False
        try:
            if end is not None:
                left = end - monotonic()
                if left < _PATIENCE and not self._readable(max(0.0, left)):
                    return False
            decoder = self._decoder
            target = decoder.target() if decoder.big is not None else None
            into = self._buffer if target is None else target
            count, ancillary, cut, _ = self._socket.recvmsg_into((into,), ROOM)
            if ancillary or cut:
                take_files(ancillary, cut, self._receiver)
        except (BlockingIOError, InterruptedError):
            _check_caller()
            return not self._late(end)
        except ProtocolError as error:
            self._break(f"{self.node} sent what is no message: {error}")
            return False
        except OSError:
            self._break(f"{self.node} is gone: it closed the connection")
            return False
        if count == 0:
            self._break(f"{self.node} is gone: it closed the connection")
            return False
        try:
            head = decoder.single(into, count) if call else None
            if head is not None and head[1] == REPLY and head[4] == call:
                self._futures.pop(call, None)
                return bytes(into[HEADER_SIZE:count])
            arrived = decoder.feed(into[:count]) if target is None else decoder.filled(count)
            for frame in arrived:
                self._handle(frame)
        except ProtocolError as error:
            self._break(f"{self.node} sent what is no message: {error}")
        return True

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _handle(self, frame: Frame) -> None:
        kind, flags, _, call, _, payload = frame
        content = opened(flags, payload, 0, self._receiver) if flags & TABLE else payload
        if kind in (REPLY, ERROR):
            future = self._futures.pop(call, None)
            if future is not None:
                future.complete((kind, content), RAW)
                if future.called_back:
                    self._call_back(future)
                return
        if kind in (frames.ITEM, frames.END, ERROR):
            inbox = self._inboxes.get(call)
            if inbox is not None:
                inbox.frames.append((kind, content))
                if kind != frames.ITEM:
                    self._inboxes.pop(call, None)
                self._arrived(inbox)
        elif kind == frames.RELEASE:
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
                self._call_back(future)

    def _call_back(self, future: Future[Any]) -> None:
        self._to_call_back.append(future)
        with self._attending:
            if self._reader:
                release(self._reader_latch)

    def _send(self, message: bytes | Packed, end: float | None = None) -> None:
        """Sends a message, reading meanwhile if the socket is full.

        Raises:
          _Late: nothing could be sent until `end`.
        """
        with self._writing:
            if self._later or self._unsent:
                self._flush_later(wait=True)
            if isinstance(message, bytes):
                try:
                    done = self._socket.send(message, _DO_NOT_WAIT)
                except BlockingIOError:
                    done = 0
                if done != len(message):
                    self._transmit(message, done, (), end)
            else:
                self._transmit(message.data, 0, message.files, end)
        while self._later and self._writing.acquire(False):  # came meanwhile, and found it taken
            try:
                self._flush_later(wait=True)
            finally:
                self._writing.release()

    def _transmit(
        self, data: bytes | memoryview, done: int, files: tuple[File, ...], end: float | None
    ) -> None:
        """Sends what is left after the first `done` bytes."""
        total, data = len(data), memoryview(data)
        try:
            while True:
                try:
                    if files and not done:
                        done = send_with_files(self._socket, data, files, _DO_NOT_WAIT)
                    else:
                        done += self._socket.send(data[done:], _DO_NOT_WAIT)
                    if done == total:
                        return
                except BlockingIOError:
                    self._make_room()
                    if self._late(end):
                        raise _Late from None
        finally:
            if 0 < done < total:  # half a message is out: nothing can follow it
                self._break(f"the connection to {self.node} was cut within a message")

    def _flush_later(self, wait: bool) -> None:
        """Sends what `tell_soon` left. Called with `_writing` held."""
        while self._unsent or self._later:
            if not self._unsent:
                self._unsent = self._later.popleft()
            try:
                sent = self._socket.send(self._unsent, _DO_NOT_WAIT)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                if not wait:
                    raise
                self._make_room()

    def _make_room(self) -> None:
        """The socket is full: reads meanwhile, or the peer could wait for us as we for it."""
        poll = select.poll()
        lead = self._reading.acquire(False)
        try:
            events = select.POLLOUT | (select.POLLIN if lead else 0)
            poll.register(self._socket.fileno(), events)
            ready = poll.poll(None if lead else 20)
            if lead and ready and ready[0][1] & select.POLLIN:
                self._read(None)
        finally:
            if lead:
                self._reading.release()
                if self._followers:
                    self._hand_on()

    def _break(self, reason: str) -> None:
        """No more calls: fails all that are pending, at once."""
        self.broken = self.broken or reason
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        while self._futures:
            try:
                _, future = self._futures.popitem()
            except KeyError:
                break
            future.fail(future.method.gone(self.broken))
            if future.called_back:
                self._call_back(future)
        self._inboxes.clear()
        self._sender.close()

    def forget(self) -> None:
        """After a fork: the connection is the parent's."""
        self.broken = "the process was forked; connections are not shared"
        self._socket.close()
        self._futures.clear()
        self._inboxes.clear()
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._attending, self._reader = threading.Lock(), False


@final
class Inbox:
    """What arrived of one stream and was not taken yet."""

    def __init__(self, channel: Channel, method: Any, call: int) -> None:
        self.channel = channel
        self.method = method
        self.call = call
        self.frames: deque[Arrived] = deque()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _check_caller() -> None:
    """Raises if the call in which this thread waits for another was cancelled."""
    call = current_call.get()
    if call is not None and call.cancelled:
        raise CallCancelled("the call that made this one was cancelled")


def _tell(channel: weakref.ref[Channel], kind: int, segment: int) -> None:
    """Goes with the next message. Takes no lock: the garbage collector may call it."""
    to = channel()
    if to is not None:
        to.tell_later(frames.header(0, kind, call=segment))


def _after_fork() -> None:
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_after_fork)
