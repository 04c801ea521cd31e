"""The sending half of a client's connection: whole messages, one at a time, by any thread."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TypeAlias, final

from lpml.wire.memory import File
from lpml.wire.parcel import Packed
from lpml.wire.parts import Parts
from lpml.wire.sockets import Connection
from lpml.wire.transfer import send_with_files

MakeRoom: TypeAlias = Callable[["float | None"], None]
"""Called where the socket is full: returns when it may not be any more, or at a deadline."""

_DO_NOT_WAIT = int(socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0))


class Late(Exception):
    """The deadline passed before anything of a message could be sent."""


@final
class Outlet:
    """Sends messages whole and in order. Thread-safe.

    Args:
      connection: a connection; it is never waited for except through `MakeRoom`.
    """

    def __init__(self, connection: Connection) -> None:
        self._socket = connection
        self._lock = threading.Lock()  # held while a message is sent
        self._later: deque[bytes] = deque()  # frames that go with the next message
        self._unsent = b""  # the rest of one of them
        self.cut = False
        """Whether half a message was sent; nothing can follow it."""

    def send(self, message: bytes | Packed, end: float | None, make_room: MakeRoom) -> None:
        """Sends a message.

        Raises:
          Late: nothing of it could be sent until `end`.
          OSError: the connection is gone, and the message was not sent, or not the whole of it.
        """
        with self._lock:
            if self._later or self._unsent:
                self._send_later(make_room)
            if isinstance(message, bytes):
                try:
                    done = self._socket.send(message, _DO_NOT_WAIT)
                except BlockingIOError:
                    done = 0
                if done != len(message):
                    self._finish(message, done, (), end, make_room)
            else:
                self._finish_packed(message, end, make_room)
        while self._later and self._lock.acquire(False):  # came meanwhile, and found it taken
            try:
                self._send_later(make_room)
            except OSError:  # the message itself was sent; whoever reads sees the end
                return
            finally:
                self._lock.release()

    def add(self, frame: bytes) -> None:
        """Sends a frame with the next message."""
        self._later.append(frame)

    def add_soon(self, frame: bytes) -> None:
        """Sends a frame now if that needs no waiting, else with the next message.

        Takes no lock that may be held, so the garbage collector may call it anywhere.

        Raises:
          OSError: the connection is gone.
        """
        self._later.append(frame)
        while self._later and self._lock.acquire(False):
            try:
                self._send_later(None)
            except BlockingIOError:
                return
            finally:
                self._lock.release()

    def forget(self) -> None:
        """After a fork: nobody holds the lock here."""
        self._lock = threading.Lock()

    def _finish_packed(self, message: Packed, end: float | None, make_room: MakeRoom) -> None:
        data = message.data
        if not isinstance(data, Parts):
            self._finish(data, 0, message.files, end, make_room)
            return
        total = len(data)
        try:
            while data:
                try:
                    data.send(self._send_now)
                except BlockingIOError:
                    make_room(end)
                    if end is not None and monotonic() >= end:
                        raise Late from None
        finally:
            self._check_cut(total - len(data), total)

    def _send_now(self, data: memoryview) -> int:
        return self._socket.send(data, _DO_NOT_WAIT)

    def _check_cut(self, done: int, total: int) -> None:
        owed = getattr(self._socket, "owed", False)
        self.cut = self.cut or 0 < done < total or (owed and done < total)

    def _finish(
        self,
        data: bytes | memoryview,
        done: int,
        files: tuple[File, ...],
        end: float | None,
        make_room: MakeRoom,
    ) -> None:
        """Sends what is left after the first `done` bytes."""
        total, data = len(data), memoryview(data)
        try:
            while done < total:
                try:
                    if files and not done:
                        done = send_with_files(self._socket, data, files, _DO_NOT_WAIT)
                    else:
                        done += self._socket.send(data[done:], _DO_NOT_WAIT)
                except BlockingIOError:
                    make_room(end)
                    if end is not None and monotonic() >= end:
                        raise Late from None
        finally:
            self._check_cut(done, total)

    def _send_later(self, make_room: MakeRoom | None) -> None:
        """Sends what was added. Called with the lock held."""
        while self._unsent or self._later:
            if not self._unsent:
                self._unsent = self._later.popleft()
            try:
                sent = self._socket.send(self._unsent, _DO_NOT_WAIT)
                self._unsent = self._unsent[sent:]
            except BlockingIOError:
                if make_room is None:
                    raise
                make_room(None)
