"""Serves the public methods of an object: one at a time, concurrent or batched."""

from __future__ import annotations

import select
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

from lpml.errors import ProtocolError
from lpml.wire.complaints import PAUSE, Complaints
from lpml.wire.courtesy import Courtesy
from lpml.wire.dispatch import Dispatcher
from lpml.wire.executor import Executor
from lpml.wire.frames import CALL
from lpml.wire.intake import Intake
from lpml.wire.poller import Poller
from lpml.wire.pool import Pool
from lpml.wire.session import Session
from lpml.wire.shifts import Shifts
from lpml.wire.sockets import Connection, check_peer
from lpml.wire.transfer import ROOM, take_files

if TYPE_CHECKING:
    from lpml.wire.doorman import Doorman
    from lpml.wire.tls import Identity

Remote: TypeAlias = "tuple[socket.socket, Identity]"
_TICK = 0.05  # seconds that a call may run in the loop's thread before another takes the loop
_TICK_MIXED = 0.01  # the same where the service has methods that may block
_RECEIVE = 1 << 16


@dataclass(frozen=True)
class ServerStatistics:
    """What a server has done so far."""

    calls: int
    errors: int
    in_flight: int
    connections: int
    bytes_in: int
    bytes_out: int


@final
class Server:
    """Serves one dispatcher on one listening socket, from `start` to `close`.

    One thread waits for all sockets and, where every method is serial, runs the calls itself. A
    second thread is a spare: it takes the loop over when a call lasts, so that cancellations,
    new connections and other methods never wait for a slow one. Concurrent and batched methods
    run in threads of a pool.

    Args:
      dispatcher: of the object that is served.
      listener: a Unix socket, for callers of this host.
      remote: a TCP socket for members of the run on other hosts, and what we are in that run.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        listener: socket.socket,
        remote: Remote | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._listener = listener
        self._doorman = None if remote is None else self._hire(*remote)
        self._poller = Poller()
        self._inline = dispatcher.all_serial
        self._shifts = Shifts(_TICK if self._inline else _TICK_MIXED)
        self._pool = Pool(f"lpml-{dispatcher.node}")
        self._executor = Executor(dispatcher, self._pool)
        self._intake = Intake(dispatcher, self._executor, self._shifts, finds=remote is not None)
        self._sessions: dict[int, Session] = {}  # {descriptor: session}
        self._pending: deque[Session] = deque()
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._threads: list[threading.Thread] = []
        self._courtesy = Courtesy()
        self._complaints = Complaints(dispatcher.node)
        self._bytes_in = 0
        self._bytes_out = 0  # of closed sessions

    def start(self) -> None:
        """Begins to serve; returns at once."""
        self._listener.setblocking(False)
        self._poller.register(self._listener.fileno())
        self._dispatcher.wanted = self._poller.wake
        for role in (self._as_loop, self._as_spare):
            name = f"lpml-{self._dispatcher.node}"
            thread = threading.Thread(target=role, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        if self._doorman is not None:
            self._doorman.start()

    def _hire(self, listener: socket.socket, identity: Identity) -> Doorman:
        from lpml.wire.doorman import Doorman
        from lpml.wire.tls import context_of

        context = context_of(identity, server=True)
        return Doorman(self._dispatcher.node, listener, context, self._admit)

    def statistics(self) -> ServerStatistics:
        """Counts so far."""
        served = self._dispatcher.statistics()
        sessions = list(self._sessions.values())
        return ServerStatistics(
            calls=served.calls,
            errors=served.errors,
            in_flight=sum(len(session.jobs) for session in sessions),
            connections=len(sessions),
            bytes_in=self._bytes_in,
            bytes_out=self._bytes_out + sum(session.bytes_out for session in sessions),
        )

    def close(self) -> None:
        """Stops serving: cancels what runs and closes every connection. Idempotent.

        Callers whose calls are pending get `NodeUnavailable`.
        """
        if not self._shifts.close():
            return
        if self._doorman is not None:
            self._doorman.close()
        for session in list(self._sessions.values()):
            session.close()  # first, so that what is pending is unavailable and not cancelled
        self._dispatcher.scope.clock.wake()
        self._poller.wake()
        me = threading.current_thread()
        for thread in self._threads:
            if thread is not me:
                thread.join(1.0)
        self._dispatcher.wanted = None
        self._pool.close()
        for session in list(self._sessions.values()):
            self._end(session)
        self._listener.close()
        self._poller.close()

    # The two roles. A thread that loses the loop becomes the spare.

    def _as_loop(self) -> None:
        self._executor.enter()
        while not self._shifts.closed:
            self._loop()
            self._shifts.watch()

    def _as_spare(self) -> None:
        self._executor.enter()
        while not self._shifts.closed:
            self._shifts.watch()
            self._loop()

    def _loop(self) -> None:
        """Serves until the spare has taken over."""
        executor, sessions, wait = self._executor, self._sessions, self._poller.wait
        queue, shifts = executor.queue, self._shifts
        shifts.begin()
        while not shifts.closed and shifts.rest():
            if len(sessions) > 1:  # with one caller, all it sent is answered
                self._courtesy.give()
            events = wait()
            if shifts.closed:
                return
            shifts.come_round()
            if self._pending:
                events += [(session.fd, 0) for session in self._take_pending()]
            for fd, _ in events:
                session = sessions.get(fd)
                if session is not None:
                    self._receive(session)
                    if session.pending():
                        self._pending.append(session)
                        self._poller.wake()
                    if not shifts.is_mine():
                        return  # a call lasted; who took the loop sees the other events
                elif not self._poller.woken(fd):
                    self._accept()
            if queue and self._inline:
                shifts.work()
                executor.drain()

    def _take_pending(self) -> list[Session]:
        """Those of whom something came in a piece with what was read: no event will tell."""
        found = [self._pending.popleft() for _ in range(len(self._pending))]
        return [each for each in found if self._sessions.get(each.fd) is each]

    # Connections.

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._shifts.closed:
                    self._complaints.say("cannot accept a caller", error)
                    # No descriptors are left, and the listener stays ready.
                    select.select([], [], [], PAUSE)
                return
            try:
                check_peer(connection)
            except (ProtocolError, OSError) as error:
                self._complaints.say("refused a connection", error)
                connection.close()
                continue
            self._admit(connection)

    def _admit(self, connection: Connection) -> None:
        """A peer that has proved who it is. From any thread."""
        session = Session(connection, self._poller)
        self._sessions[session.fd] = session
        self._poller.register(session.fd)

    def _receive(self, session: Session) -> None:
        if session.unsent:
            session.flush()
        decoder = session.decoder
        try:
            target = decoder.target() if decoder.big is not None else None
            into = self._buffer if target is None else target
            count, ancillary, cut, _ = session.socket.recvmsg_into((into,), ROOM)
            if ancillary or cut:
                take_files(ancillary, cut, session.lending.receiver)
            if count == 0:
                decoder.close()
                self._end(session)
                return
            self._bytes_in += count
            head = decoder.single(into, count)
            if head is not None and head[1] == CALL and self._intake.run_now(session, head, into):
                return
            arrived = decoder.feed(into[:count]) if target is None else decoder.filled(count)
            self._intake.take(session, arrived)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._refuse(session, error)
        except OSError:
            self._end(session)
        except Exception as error:  # a fault of ours must not end the server
            _warn("%s closed %s: %r", self._dispatcher.node, session.caller, error)
            self._end(session)

    def _refuse(self, session: Session, error: ProtocolError) -> None:
        caller = session.caller or "a connection that said no hello"
        _warn("%s closed %s: %s", self._dispatcher.node, caller, error)
        self._sessions.pop(session.fd, None)
        session.refuse(str(error))
        self._end(session)

    def _end(self, session: Session) -> None:
        self._sessions.pop(session.fd, None)
        self._bytes_out += session.bytes_out
        running = bool(session.jobs)
        session.close()
        self._executor.abandon(session)
        if running:
            self._dispatcher.scope.clock.wake()


def _warn(message: str, *args: object) -> None:
    import logging

    logging.getLogger("lpml.wire").warning(message, *args)
