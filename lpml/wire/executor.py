"""Carries out the calls that arrived at a server, and sends what comes of them."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from functools import partial
from time import monotonic
from typing import Any, final

from lpml.clock import current_call, current_scope
from lpml.errors import CallCancelled, CallTimeout
from lpml.wire import frames
from lpml.wire.batching import Batcher, Place
from lpml.wire.codec import SIMPLE, culprit, decode, dumps, encode
from lpml.wire.dispatch import Dispatcher
from lpml.wire.frames import HEADER
from lpml.wire.outgoing import here
from lpml.wire.parcel import Packed, pack, unpack
from lpml.wire.pool import Pool
from lpml.wire.session import Job, Session

_NO_KEYWORDS: dict[str, Any] = {}
_PATIENCE = 0.0005  # seconds that a reply may wait for others to be sent with it


def failure(identity: int, error: BaseException, text: str = "") -> bytes | Packed:
    """The message that a call raised `error`."""
    head = (frames.ERROR, 0, 0, identity, frames.FOREVER)
    try:
        return pack(head, b"", encode((error, text)), None)
    except Exception:  # it holds what cannot be sent: say it in words
        words = RuntimeError(f"{type(error).__qualname__}: {error}")
        return pack(head, b"", encode((words, text)), None)


@final
class Executor:
    """Runs jobs by the kind of their method. Serial ones are queued for `drain`."""

    def __init__(self, dispatcher: Dispatcher, pool: Pool) -> None:
        self._dispatcher = dispatcher
        self._time = dispatcher.scope.clock.time
        self._count = dispatcher.count
        self._pool = pool
        self._inline = dispatcher.all_serial
        self._flow = threading.Lock()  # held while a stream is parked or resumed
        self.queue: deque[Job] = deque()  # serial jobs, in order of arrival

    def enter(self) -> None:
        """Makes this thread one of the node."""
        current_scope.set(self._dispatcher.scope)

    def start(self, job: Job) -> None:
        """A call arrived."""
        handler = job.handler
        if handler.batcher is not None:
            self._join_batch(job, handler.batcher)
        else:
            self._put(job)

    def credit(self, job: Job, count: int) -> None:
        """The client took `count` items of a stream."""
        with self._flow:
            job.credits += count
            resumed, job.parked = job.parked, False
        if resumed:
            self._put(job)

    def cancelled(self, job: Job) -> None:
        """The client gave the call up; a stream that waits for it is closed."""
        self.credit(job, 1)

    def abandon(self, session: Session) -> None:
        """The connection is gone."""
        for job in list(session.jobs.values()):
            self.cancelled(job)

    def _put(self, job: Job) -> None:
        if job.handler.concurrent:
            self._pool.submit(self._run_concurrent, job)
        else:
            self.queue.append(job)
            if not self._inline:
                self._pool.submit(self._drain_in_pool)

    # Serial methods.

    def _drain_in_pool(self) -> None:
        self.enter()
        self.drain()

    def drain(self) -> None:
        """Runs queued jobs if nobody else does; returns with the queue empty or taken."""
        queue, turn = self.queue, self._dispatcher.turn
        while queue and turn.acquire(False):
            try:
                self._drain_locked()
            finally:
                turn.release()

    def run_now(self, job: Job, body: bytes) -> None:
        """Runs a plain job in the thread of the loop; with the turn, if it is serial.

        The same as `_step`, with less between the bytes of a call and those of its reply.
        """
        handler = job.handler
        since = 0.0 if self._inline else monotonic()
        token = current_call.set(job.call)
        here.sender = job.session.lending.sender
        message: bytes | Packed
        try:
            result = handler.method(*decode(body))
            if type(result) in SIMPLE:
                reply = dumps(result, 5)
                message = HEADER.pack(len(reply), frames.REPLY, 0, 0, job.id, -1.0) + reply
            else:
                message = self._success(job, frames.REPLY, result)
            if handler.concurrent:
                self._count(False)
            else:
                self._dispatcher.serial_calls += 1
        except BaseException as error:
            message = self._failed(job, error)
        here.sender = None
        current_call.reset(token)
        session = job.session
        session.jobs.pop(job.id, None)
        session.send(message)
        if not self._inline:
            handler.took(monotonic() - since)

    def _drain_locked(self) -> None:
        queue = self.queue
        job = queue.popleft()
        if not queue:  # the common case: one call, one reply
            message, more = self._step(job)
            job.session.send(message)
            if more and self._may_go_on(job):
                queue.append(job)
            return
        touched: dict[Session, None] = {}
        since = monotonic()
        while True:
            message, more = self._step(job)
            job.session.put(message)
            touched[job.session] = None
            if more and self._may_go_on(job):
                queue.append(job)  # others have their turn between two items of a stream
            if not queue or monotonic() - since > _PATIENCE:
                for session in touched:
                    session.flush()
                touched.clear()
                if not queue:
                    return
                since = monotonic()
            job = queue.popleft()

    # One call, in whatever thread.

    def _run_concurrent(self, job: Job) -> None:
        self.enter()
        while True:
            message, more = self._step(job)
            job.session.send(message)
            del message
            if not more or not self._may_go_on(job):
                return

    def _step(self, job: Job) -> tuple[bytes | Packed, bool]:
        """Runs a call, or a stream up to its next item: what is to be sent, and is there more."""
        handler = job.handler
        token = current_call.set(job.call)
        try:
            if handler.stream:
                return self._advance(job)
            since = monotonic()
            args, kwargs = self._arguments(job)
            here.sender = job.session.lending.sender
            result = handler.method(*args, **kwargs)
            handler.took(monotonic() - since)
            del args, kwargs  # so that their segment is given back with the reply
            message = self._success(job, frames.REPLY, result)
            self._count(False)
            job.session.jobs.pop(job.id, None)
            return message, False
        except BaseException as error:
            job.session.jobs.pop(job.id, None)
            return self._failed(job, error), False
        finally:
            here.sender = None
            current_call.reset(token)

    def _arguments(self, job: Job) -> tuple[Any, Any]:
        call = job.call
        payload, job.payload = job.payload, b""
        if call.cancelled:
            raise CallCancelled("cancelled before it began")
        if call.deadline is not None and self._time() >= call.deadline:
            raise CallTimeout(f"{self._dispatcher.node} was busy until the call's deadline")
        if type(payload) is bytes:
            value = decode(memoryview(payload)[job.arguments_at :])
        else:
            value = unpack(payload, job.arguments_at)
        return value if job.flags & frames.KEYWORDS else (value, _NO_KEYWORDS)

    def _success(self, job: Job, kind: int, result: Any) -> bytes | Packed:
        head = (kind, 0, 0, job.id, frames.FOREVER)
        announced = None if job.handler.whole else job.session.lending.announced
        try:
            return pack(head, b"", encode(result), job.session.lending.sender, announced)
        except Exception as error:
            raise TypeError(
                f"{job.handler.name} returned {culprit(result)}, which cannot be sent: {error}"
            ) from None

    def _failed(self, job: Job, error: BaseException) -> bytes | Packed:
        self._dispatcher.count(error=True)
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:
            trace = trace.tb_next  # ours says nothing to the caller
        text = "".join(traceback.format_exception(type(error), error, trace))
        error.__traceback__ = None  # its frames hold the arguments
        return failure(job.id, error, text)

    # Streams.

    def _advance(self, job: Job) -> tuple[bytes | Packed, bool]:
        session = job.session
        try:
            if job.call.cancelled:
                raise CallCancelled("the stream was closed")
            if job.generator is None:
                args, kwargs = self._arguments(job)
                job.generator = iter(job.handler.method(*args, **kwargs))
                del args, kwargs
                with self._flow:
                    job.credits += frames.WINDOW
            item = next(job.generator)
            return self._success(job, frames.ITEM, item), True
        except StopIteration:
            session.jobs.pop(job.id, None)
            self._dispatcher.count(error=False)
            return frames.header(0, frames.END, call=job.id), False
        except BaseException as error:
            return self._end_stream(job, error), False

    def _may_go_on(self, job: Job) -> bool:
        """An item was sent. If the client has taken too few, the stream is parked."""
        with self._flow:
            job.credits -= 1
            job.parked = job.credits <= 0 and not job.call.cancelled
            return not job.parked

    def _end_stream(self, job: Job, error: BaseException) -> bytes | Packed:
        generator, job.generator = job.generator, None
        job.session.jobs.pop(job.id, None)
        try:
            if generator is not None:
                generator.close()
        except BaseException as second:
            error = second
        return self._failed(job, error)

    # Batched methods.

    def _join_batch(self, job: Job, batcher: Batcher) -> None:
        try:
            args, kwargs = self._arguments(job)
        except BaseException as error:
            job.session.jobs.pop(job.id, None)
            job.session.send(self._failed(job, error))
            return
        lead = partial(self._pool.submit, self._lead, batcher)
        batcher.add(Place(args, kwargs, job.call, lead, partial(self._finish, job)))

    def _lead(self, batcher: Batcher) -> None:
        self.enter()
        batcher.lead(self._dispatcher.take_turn, self._dispatcher.end_turn)

    def _finish(self, job: Job, place: Place) -> None:
        job.session.jobs.pop(job.id, None)
        place.arguments = ((), {})
        if place.error is None:
            try:
                message = self._success(job, frames.REPLY, place.result)
                self._count(False)
            except BaseException as unsendable:
                message = self._failed(job, unsendable)
        else:
            message = self._failed(job, place.error)
        job.session.send(message)
