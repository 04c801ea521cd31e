"""Serves the public methods of an object: one at a time, concurrent or batched."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from time import monotonic
from typing import final

from lpml.clock import Call
from lpml.errors import ProtocolError, closest
from lpml.wire import frames
from lpml.wire.dispatch import Dispatcher
from lpml.wire.executor import Executor, failure
from lpml.wire.frames import Frame
from lpml.wire.parcel import opened
from lpml.wire.poller import Poller
from lpml.wire.pool import Pool
from lpml.wire.session import Job, Session
from lpml.wire.sockets import check_peer

_TICK = 0.05  # seconds that a call may run in the loop's thread before another takes the loop
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
    """

    def __init__(self, dispatcher: Dispatcher, listener: socket.socket) -> None:
        self._dispatcher = dispatcher
        self._listener = listener
        self._poller = Poller()
        self._pool = Pool(f"lpml-{dispatcher.node}")
        self._executor = Executor(dispatcher, self._pool)
        self._sessions: dict[int, Session] = {}  # {descriptor: session}
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._threads: list[threading.Thread] = []
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
                self._kick.acquire(timeout=_TICK)
                if self._rounds != rounds:
                    continue
                with self._role:
                    if self._executing and self._rounds == rounds:
                        self._owner = threading.get_ident()
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
        executor = self._executor
        while not self._closed:
            with self._role:
                self._executing = False
                if self._owner != me:
                    return
            events = self._poller.wait()
            if self._closed:
                return
            self._rounds += 1
            for fd, _ in events:
                session = self._sessions.get(fd)
                if session is not None:
                    self._receive(session)
                elif fd == self._listener.fileno():
                    self._accept()
            if executor.queue:
                self._executing = True
                if not self._watched:
                    self._watched = True
                    with contextlib.suppress(RuntimeError):
                        self._kick.release()
                executor.drain()

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
            session = Session(connection, self._poller)
            self._sessions[session.fd] = session
            self._poller.register(session.fd)

    def _receive(self, session: Session) -> None:
        session.flush()
        try:
            target = session.decoder.target()
            into = self._buffer if target is None else target
            count = session.receive(into)
            if count == 0:
                session.decoder.close()
                self._end(session)
                return
            self._bytes_in += count
            if target is None:
                arrived = session.decoder.feed(into[:count])
            else:
                arrived = session.decoder.filled(count)
            for frame in arrived:
                self._handle(session, frame)
        except BlockingIOError:
            return
        except ProtocolError as error:
            self._refuse(session, error)
        except OSError:
            self._end(session)

    def _refuse(self, session: Session, error: ProtocolError) -> None:
        caller = session.caller or "a connection that said no hello"
        _warn("%s closed %s: %s", self._dispatcher.node, caller, error)
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
        kind, flags, extra, identity, seconds, payload = frame
        if kind == frames.CALL and session.caller is not None:
            self._call(session, frame)
        elif session.caller is None:
            session.caller = frames.read_hello(frame)
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
            session.memory(kind, identity, payload)

    def _call(self, session: Session, frame: Frame) -> None:
        _, flags, length, identity, seconds, payload = frame
        dispatcher = self._dispatcher
        name = bytes(payload[:length]).decode(errors="replace")
        handler = dispatcher.handlers.get(name)
        if identity in session.jobs or length > len(payload):
            raise ProtocolError(f"a call of {name!r} with an id that is in use, or cut off")
        content = opened(flags, payload, length, session.receiver)
        if handler is None:
            words = f"{dispatcher.node} has no method {name!r}"
            error = AttributeError(words + closest(name, list(dispatcher.handlers)))
            session.send(failure(identity, error))
            return
        deadline = None if seconds < 0 else dispatcher.scope.clock.time() + seconds
        job = Job(session, identity, handler, Call(deadline), flags, content, length)
        session.jobs[identity] = job
        self._executor.start(job)


def _warn(message: str, *args: object) -> None:
    import logging

    logging.getLogger("lpml.wire").warning(message, *args)
