"""Serves the public methods of an object: one at a time, concurrent or batched."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, final

from lpml.clock import Call, Clock
from lpml.errors import ProtocolError, closest
from lpml.service import MethodSpec
from lpml.wire import frames
from lpml.wire.courtesy import Courtesy
from lpml.wire.dispatch import Dispatcher, Handler
from lpml.wire.executor import Executor, failure
from lpml.wire.frames import CALL, HEADER_SIZE, TABLE, Frame, Payload
from lpml.wire.parcel import opened
from lpml.wire.poller import Poller
from lpml.wire.pool import Pool
from lpml.wire.session import Job, Session
from lpml.wire.shared import FIND, find
from lpml.wire.sockets import Connection, check_peer
from lpml.wire.transfer import ROOM, take_files

if TYPE_CHECKING:
    from lpml.wire.doorman import Doorman
    from lpml.wire.tls import Identity

Remote: TypeAlias = "tuple[socket.socket, Identity]"
_TICK = 0.05  # seconds that a call may run in the loop's thread before another takes the loop
_TICK_MIXED = 0.01  # the same where the service has methods that may block
_TRUSTED = 8  # quick calls in a row after which a method of such a service runs there too
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
        self._clock = dispatcher.scope.clock
        self._by_name = {name.encode(): each for name, each in dispatcher.handlers.items()}
        if remote is not None:
            self._by_name[FIND.encode()] = _finder(self._clock)
        self._inline = dispatcher.all_serial
        self._tick = _TICK if self._inline else _TICK_MIXED
        self._pool = Pool(f"lpml-{dispatcher.node}")
        self._executor = Executor(dispatcher, self._pool)
        self._sessions: dict[int, Session] = {}  # {descriptor: session}
        self._pending: deque[Session] = deque()
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._threads: list[threading.Thread] = []
        self._courtesy = Courtesy()
        self._closed = False
        self._bytes_in = 0
        self._bytes_out = 0  # of closed sessions
        # which thread is the loop
        self._role = threading.Lock()
        self._owner = 0
        self._rounds = 0
        self._executing = False
        self._watched = False
        self._kick = threading.Lock()
        self._kick.acquire()

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
        with self._role:
            if self._closed:
                return
            self._closed = True
        if self._doorman is not None:
            self._doorman.close()
        for session in list(self._sessions.values()):
            session.close()  # first, so that what is pending is unavailable and not cancelled
        self._dispatcher.scope.clock.wake()
        self._poller.wake()
        with contextlib.suppress(RuntimeError):
            self._kick.release()
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
        while not self._closed:
            self._loop()
            self._spare()

    def _as_spare(self) -> None:
        self._executor.enter()
        while not self._closed:
            self._spare()
            self._loop()

    def _spare(self) -> None:
        """Returns when the loop has been busy with one thing for a tick."""
        while not self._closed:
            self._kick.acquire()  # nothing to watch until the loop says so
            while not self._closed:
                rounds = self._rounds
                self._kick.acquire(timeout=self._tick)
                if self._rounds != rounds:
                    continue
                with self._role:
                    if self._executing and self._rounds == rounds:
                        self._owner = threading.get_ident()
                        self._watched = False  # who was the loop must be told to watch us
                        return
                self._watched = False
                if not self._executing:
                    break
                self._watched = True

    def _loop(self) -> None:
        """Serves until the spare has taken over."""
        me = threading.get_ident()
        with self._role:
            if self._owner == 0:
                self._owner = me
        executor, sessions, wait = self._executor, self._sessions, self._poller.wait
        queue = executor.queue
        while not self._closed:
            with self._role:
                if self._owner != me:
                    return
                self._executing = False
            if len(sessions) > 1:  # with one caller, all it sent is answered
                self._courtesy.give()
            events = wait()
            if self._closed:
                return
            self._rounds += 1
            if self._pending:
                events += [(session.fd, 0) for session in self._take_pending()]
            for fd, _ in events:
                session = sessions.get(fd)
                if session is not None:
                    self._receive(session)
                    if session.pending():
                        self._pending.append(session)
                        self._poller.wake()
                    if self._owner != me:
                        return  # a call lasted; who took the loop sees the other events
                elif not self._poller.woken(fd):
                    self._accept()
            if queue and self._inline:
                self._executing = True
                if not self._watched:
                    self._be_watched()
                executor.drain()

    def _take_pending(self) -> list[Session]:
        """Those of whom something came in a piece with what was read: no event will tell."""
        found = [self._pending.popleft() for _ in range(len(self._pending))]
        return [each for each in found if self._sessions.get(each.fd) is each]

    def _be_watched(self) -> None:
        """This thread runs calls from now on; wakes the spare."""
        self._watched = True
        with contextlib.suppress(RuntimeError):
            self._kick.release()

    # Connections.

    def _accept(self) -> None:
        for _ in range(64):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if not self._closed:
                    _warn("%s cannot accept a caller: %s", self._dispatcher.node, error)
                return
            try:
                check_peer(connection)
            except (ProtocolError, OSError) as error:
                _warn("%s refused a connection: %s", self._dispatcher.node, error)
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
            if head is not None and head[1] == CALL and self._run_now(session, head, into):
                return
            arrived = decoder.feed(into[:count]) if target is None else decoder.filled(count)
            for frame in arrived:
                if frame[0] == CALL and session.caller is not None:
                    self._call(session, frame)
                else:
                    self._handle(session, frame)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._refuse(session, error)
        except OSError:
            self._end(session)
        except Exception as error:  # a fault of ours must not end the server
            _warn("%s closed %s: %r", self._dispatcher.node, session.caller, error)
            self._end(session)

    def _run_now(
        self, session: Session, head: tuple[int, int, int, int, int, float], data: memoryview
    ) -> bool:
        """Runs a plain call where it arrived, if it is its turn; says whether."""
        size, _, _, length, identity, seconds = head
        at = HEADER_SIZE + length
        handler = self._by_name.get(bytes(data[HEADER_SIZE:at]))
        if handler is None or not handler.simple:
            return False
        if not self._inline and handler.quick < _TRUSTED:
            return False
        if session.caller is None or identity in session.jobs:
            return False
        executor, turn, serial = self._executor, self._dispatcher.turn, handler.plain
        if serial and (executor.queue or not turn.acquire(False)):
            return False
        try:
            self._executing = True
            if not self._watched:
                self._be_watched()
            call = Call(None if seconds < 0 else self._clock.time() + seconds)
            job = session.jobs[identity] = Job(session, identity, handler, call)
            # A copy: while this call runs, another may take the loop and the buffer with it.
            executor.run_now(job, bytes(data[at : HEADER_SIZE + size]))
        finally:
            if serial:
                turn.release()
            with self._role:  # from here on this thread reads sockets, if it still is the loop
                if self._owner == threading.get_ident():
                    self._executing = False
        if serial and executor.queue:  # put there by who took the loop meanwhile
            executor.drain()
        return True

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

    # Frames.

    def _handle(self, session: Session, frame: Frame) -> None:
        kind, flags, extra, identity, _, payload = frame
        if session.caller is None:
            session.greet(frames.read_hello(frame), flags)
        elif kind == frames.CANCEL:
            job = session.jobs.get(identity)
            if job is not None:
                job.call.cancel()
                self._executor.cancelled(job)
                self._dispatcher.scope.clock.wake()
        elif kind == frames.CREDIT:
            job = session.jobs.get(identity)
            if job is not None:
                self._executor.credit(job, extra)
        else:
            session.lending.heard(kind, identity, payload)

    def _call(self, session: Session, frame: Frame) -> None:
        _, flags, length, identity, seconds, payload = frame
        handler = self._by_name.get(bytes(payload[:length]))
        content = (
            opened(flags, payload, length, session.lending.receiver) if flags & TABLE else payload
        )
        if handler is None:
            handler = self._find(session, payload, length, identity)
            if handler is None:
                return
        if identity in session.jobs:
            raise ProtocolError(f"a call of {handler.name!r} has the id of another")
        call = Call(None if seconds < 0 else self._clock.time() + seconds)
        job = Job(session, identity, handler, call, flags, content, length)
        session.jobs[identity] = job
        self._executor.start(job)

    def _find(
        self, session: Session, payload: Payload, length: int, identity: int
    ) -> Handler | None:
        """The method with a name that was not found at once; tells the client if there is none."""
        name = bytes(payload[:length])
        handler = self._by_name.get(name)
        if handler is None:
            node, known = self._dispatcher.node, list(self._dispatcher.handlers)
            words = f"{node} has no method {name.decode(errors='replace')!r}"
            session.send(
                failure(
                    identity, AttributeError(words + closest(name.decode(errors="replace"), known))
                )
            )
        return handler


def _finder(clock: Clock) -> Handler:
    """The method by which readers on other hosts fetch the values that they were told of."""
    finder = Handler(FIND, find, MethodSpec("concurrent", idempotent=True), clock)
    finder.simple, finder.whole = False, True  # it takes time: not in the thread of the loop
    return finder


def _warn(message: str, *args: object) -> None:
    import logging

    logging.getLogger("lpml.wire").warning(message, *args)
