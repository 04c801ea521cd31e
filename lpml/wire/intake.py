"""What a server does with what arrives: a call runs at once, or is handed to the executor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

from lpml.clock import Call, Clock
from lpml.errors import ProtocolError, closest
from lpml.service import MethodSpec
from lpml.wire import frames
from lpml.wire.dispatch import Dispatcher, Handler
from lpml.wire.executor import Executor, failure
from lpml.wire.frames import CALL, HEADER_SIZE, TABLE, Frame
from lpml.wire.parcel import opened
from lpml.wire.session import Job, Session
from lpml.wire.shared import FIND, find
from lpml.wire.shifts import Shifts

_TRUSTED = 8  # quick calls in a row after which a method of a mixed service runs in the loop too


@final
class Intake:
    """Takes what the sessions of one server decoded. Used by the thread that is the loop.

    Args:
      dispatcher: of the object that is served.
      executor: runs what does not run at once.
      shifts: told when this thread runs calls.
      finds: whether readers on other hosts may fetch the values that they were told of.
    """

    def __init__(
        self, dispatcher: Dispatcher, executor: Executor, shifts: Shifts, *, finds: bool
    ) -> None:
        self._dispatcher = dispatcher
        self._executor = executor
        self._shifts = shifts
        self._clock = dispatcher.scope.clock
        self._by_name = {name.encode(): each for name, each in dispatcher.handlers.items()}
        if finds:
            self._by_name[FIND.encode()] = _finder(self._clock)

    def run_now(
        self, session: Session, head: tuple[int, int, int, int, int, float], data: memoryview
    ) -> bool:
        """Runs a plain call where it arrived, if it is its turn; says whether."""
        size, _, _, length, identity, seconds = head
        at = HEADER_SIZE + length
        handler = self._by_name.get(bytes(data[HEADER_SIZE:at]))
        if handler is None or not handler.simple:
            return False
        executor, dispatcher = self._executor, self._dispatcher
        if not dispatcher.all_serial and handler.quick < _TRUSTED:
            return False
        if session.caller is None or identity in session.jobs:
            return False
        turn, serial = dispatcher.turn, handler.plain
        if serial and (executor.queue or not turn.acquire(False)):
            return False
        try:
            self._shifts.work()
            call = Call(None if seconds < 0 else self._clock.time() + seconds)
            job = session.jobs[identity] = Job(session, identity, handler, call)
            # A copy: while this call runs, another may take the loop and the buffer with it.
            executor.run_now(job, bytes(data[at : HEADER_SIZE + size]))
        finally:
            if serial:
                turn.release()
            self._shifts.rest()
        if serial and executor.queue:  # put there by who took the loop meanwhile
            executor.drain()
        return True

    def take(self, session: Session, arrived: Iterable[Frame]) -> None:
        """Frames arrived.

        Raises:
          ProtocolError: the client may not send one of them.
        """
        for frame in arrived:
            if frame[0] == CALL and session.caller is not None:
                self._call(session, frame)
            else:
                self._heed(session, frame)

    def _heed(self, session: Session, frame: Frame) -> None:
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
        name = bytes(payload[:length])
        receiver = session.lending.receiver
        content = opened(flags, payload, length, receiver) if flags & TABLE else payload
        handler = self._by_name.get(name)
        if handler is None:
            session.send(failure(identity, self._no_method(name.decode(errors="replace"))))
            return
        if identity in session.jobs:
            raise ProtocolError(f"a call of {handler.name!r} has the id of another")
        call = Call(None if seconds < 0 else self._clock.time() + seconds)
        job = Job(session, identity, handler, call, flags, content, length)
        session.jobs[identity] = job
        self._executor.start(job)

    def _no_method(self, name: str) -> AttributeError:
        node, known = self._dispatcher.node, list(self._dispatcher.handlers)
        return AttributeError(f"{node} has no method {name!r}" + closest(name, known))


def _finder(clock: Clock) -> Handler:
    """The method by which readers on other hosts fetch the values that they were told of."""
    finder = Handler(FIND, find, MethodSpec("concurrent", idempotent=True), clock)
    finder.simple, finder.whole = False, True  # it takes time: not in the thread of the loop
    return finder
