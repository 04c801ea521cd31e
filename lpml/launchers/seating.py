"""Where processes come that somebody else starts, such as the engine of a cluster.

Each comes to a socket (`seats.occupy`), says which process of the program it is, and is given what
a fork is given: the socket to its launcher, its spec and its listeners. To the launcher it looks as
if a forkserver had forked it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from lpml import wire
from lpml.errors import ProtocolError
from lpml.launchers import pipes, system
from lpml.wire.sockets import check_peer
from lpml.wire.waker import Waker

SOCKET = "seats.sock"
"""The socket to come to, in the socket folder of the run."""
_GRACE = 0.5  # seconds that a process has to be gone, where its engine ends it


@final
@dataclass(eq=False)
class _Seat:
    """One attempt of one process."""

    key: str
    attempt: int
    given: list[int] = field(default_factory=list)  # descriptors for it, until it has come
    connection: socket.socket | None = None
    inbox: pipes.Inbox | None = None
    pid: int = 0
    code: int | None = None  # as it said before it left
    signalled: int = 0  # the last signal that was sent to it
    over: bool = False


@final
class Seats:
    """The socket to come to, and who has come. Has the interface of a forkserver's process.

    Args:
      folder: the socket folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._listener = wire.listen(folder / SOCKET)
        self._listener.setblocking(False)
        self.socket, self._out = socket.socketpair()
        self.inbox = pipes.Inbox(self.socket)
        self._lock = threading.Lock()
        self._seats: dict[str, _Seat] = {}  # by key: the last attempt
        self._early: dict[tuple[str, int], _Seat] = {}  # came before they were asked for
        self._closed = False
        self._waker = Waker()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="lpml-seats", daemon=True)
        self._thread.start()

    # What a launcher asks of it.

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """`fork`: somebody will come for these descriptors. `signal`: sends signals to it."""
        if message["what"] == "fork":
            self._expect(message["key"], message["attempt"], [os.dup(fd) for fd in fds])
        elif message["what"] == "signal":
            self._signal(message["key"], message["numbers"])

    def rouse(self) -> None:
        """It is part of this process."""

    @property
    def last_words(self) -> str:
        """It prints nothing."""
        return ""

    def refuse(self, key: str, attempt: int, why: str) -> None:
        """The process will never come, or is gone; `why` is told if nobody knew it before."""
        with self._lock:
            seat = self._seats.get(key)
            if seat is None or seat.attempt != attempt:
                return
            if not seat.pid:
                self._end(seat, why)

    def close(self) -> bool:
        """Waits a moment until every process that has come is gone, and kills what is left."""
        with self._lock:
            self._closed = True
            seats = [*self._seats.values(), *self._early.values()]
            for seat in seats:
                _close(seat.given)
        self._waker.wake()
        self._thread.join(5.0)
        _wait_for(seats, _GRACE)
        for seat in seats:
            _kill(seat, signal.SIGKILL)
            if seat.connection is not None:
                seat.connection.close()
        _wait_for(seats, _GRACE)
        for each in (self._listener, self.socket, self._out, self._waker):
            each.close()
        self._selector.close()
        return True

    def discard(self) -> None:
        """As `close`."""
        self.close()

    # What is said to the launcher. With the lock.

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            pipes.send(self._out, message)

    def _expect(self, key: str, attempt: int, fds: list[int]) -> None:
        with self._lock:
            came = self._early.pop((key, attempt), None)
            seat = came or _Seat(key, attempt)
            seat.given = fds
            self._seats[key] = seat
            if came is not None:
                self._give(seat)

    def _signal(self, key: str, numbers: Sequence[int]) -> None:
        with self._lock:
            seat = self._seats[key]
            if not seat.pid and signal.SIGKILL in numbers:
                self._end(seat, "it was ended before its process had started")
                return
            for number in numbers:
                if number != signal.SIGCONT:
                    seat.signalled = number
                if number == signal.SIGKILL:
                    _kill_soon(seat)
                else:
                    _kill(seat, number)

    def _give(self, seat: _Seat) -> None:
        assert seat.connection is not None
        with contextlib.suppress(OSError):  # who reads will see that it is gone
            pipes.send(seat.connection, {"what": "go"}, seat.given)
        _close(seat.given)
        self._tell({"what": "forked", "key": seat.key, "pid": seat.pid})

    def _end(self, seat: _Seat, how: str = "") -> None:
        if seat.over:
            return
        seat.over = True
        _close(seat.given)
        if seat.connection is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(seat.connection)
            seat.connection.close()
        if self._seats.get(seat.key) is not seat:
            self._early.pop((seat.key, seat.attempt), None)
            return
        if not seat.pid:
            self._tell({"what": "refused", "key": seat.key, "why": how})
            return
        if seat.code is None:
            _kill(seat, signal.SIGKILL)  # with all that it has started
        code = seat.code if seat.code is not None else -seat.signalled or None
        self._tell(
            {
                "what": "exited",
                "key": seat.key,
                "pid": seat.pid,
                "code": code,
                "at": time.monotonic(),
                "peak": 0,
            }
        )

    # Who comes and goes.

    def _serve(self) -> None:
        while True:
            ready = self._selector.select()
            with self._lock:
                if self._closed:
                    return
                for key, _ in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fileobj is not self._waker:
                        self._hear(key.data)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
            check_peer(connection)
        except (OSError, ProtocolError):
            return
        seat = _Seat("", 0, connection=connection, inbox=pipes.Inbox(connection))
        self._selector.register(connection, selectors.EVENT_READ, seat)

    def _hear(self, seat: _Seat) -> None:
        inbox = seat.inbox
        if inbox is None or seat.over:
            return
        for message in inbox.read():
            if message["what"] == "here":
                self._seat(seat, message)
            else:
                seat.code = message["code"]
        if inbox.ended or seat.code is not None:
            known = self._seats.get(seat.key)
            self._end(known if known is not None and known.pid == seat.pid else seat)

    def _seat(self, seat: _Seat, message: dict[str, Any]) -> None:
        seat.key, seat.attempt, seat.pid = message["key"], message["attempt"], message["pid"]
        wanted = self._seats.get(seat.key)
        if wanted is None or wanted.attempt < seat.attempt:
            self._early[seat.key, seat.attempt] = seat
        elif wanted.attempt == seat.attempt and not wanted.over:
            seat.given, self._seats[seat.key] = wanted.given, seat
            self._give(seat)
        else:  # it is too late
            self._end(seat)


def _kill(seat: _Seat, number: int) -> None:
    if seat.pid:
        if number == signal.SIGKILL:
            with contextlib.suppress(OSError):
                os.killpg(seat.pid, number)
        system.kill(seat.pid, number)


def _kill_soon(seat: _Seat) -> None:
    """Who started the process ends it too, and takes it ill if we do that first."""

    def kill() -> None:
        if not seat.over:
            _kill(seat, signal.SIGKILL)

    timer = threading.Timer(_GRACE, kill)
    timer.name, timer.daemon = "lpml-kill", True
    timer.start()


def _wait_for(seats: list[_Seat], timeout: float) -> None:
    end, pause = time.monotonic() + timeout, threading.Event()
    while any(map(_is_left, seats)) and time.monotonic() < end:
        pause.wait(0.01)


def _is_left(seat: _Seat) -> bool:
    return bool(seat.pid) and system.process_state(seat.pid) not in ("", "Z")


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
