"""Gathers the calls of a batched method and serves them by one call."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any, final

from lpml.clock import Call, Clock, current_call
from lpml.errors import CallCancelled, CallTimeout, ProgramStopped
from lpml.service import MethodSpec, call_batch


@final
class Place:
    """One caller's place in a batch.

    Args:
      args, kwargs: of the call.
      call: its deadline and cancellation.
      lead: called when this place must lead a batch: some thread must call `Batcher.lead` soon.
      finish: called when `result` or `error` is there.
    """

    __slots__ = ("arguments", "call", "error", "finish", "lead", "result")

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        call: Call,
        lead: Callable[[], object],
        finish: Callable[[Place], object],
    ) -> None:
        self.arguments = (args, kwargs)
        self.call = call
        self.lead = lead
        self.finish = finish
        self.result: Any = None
        self.error: BaseException | None = None


@final
class Batcher:
    """The calls of one batched method that wait to be served together.

    Whoever finds the batch empty leads it: waits for others, serves all, and hands the lead to
    the first that came too late.
    """

    def __init__(self, method: Callable[..., Any], spec: MethodSpec, clock: Clock) -> None:
        owner = getattr(method, "__self__", None)
        inner: Any = inspect.unwrap(getattr(method, "__func__", method))
        self._method = inner if owner is None else inner.__get__(owner)
        self._spec = spec
        self._clock = clock
        self._changed = clock.condition()
        self._waiting: list[Place] = []
        self._led = False

    def add(self, place: Place) -> None:
        """Takes a place. Returns at once, after `place.lead` if nobody leads."""
        with self._changed:
            self._waiting.append(place)
            lead, self._led = not self._led, True
            if self._full():
                self._changed.notify_all()
        if lead:
            place.lead()

    def lead(
        self, turn: Callable[[], threading.Lock], end: Callable[[threading.Lock], object]
    ) -> None:
        """Waits until the batch is full or its time is over, and serves it.

        Args:
          turn: takes the turn of the serial methods; `end` gives it back.
        """
        token = current_call.set(None)  # the leader's own deadline is not that of the others
        try:
            batch = self._gather()
            taken = turn()
            try:
                self._serve(batch)
            finally:
                end(taken)
        finally:
            current_call.reset(token)
        with self._changed:
            following = self._waiting[0] if self._waiting else None
            self._led = following is not None
        for place in batch:
            place.finish(place)
        if following is not None:
            following.lead()

    def _full(self) -> bool:
        return len(self._waiting) >= self._spec.max_size

    def _gather(self) -> list[Place]:
        try:
            with self._changed:
                self._changed.wait_for(self._full, self._spec.timeout)
        except ProgramStopped:
            pass  # serve who is here
        with self._changed:
            size = self._spec.max_size
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
        return batch

    def _serve(self, batch: list[Place]) -> None:
        """Calls the method once; each place gets its row, or all get the exception."""
        now = self._clock.time()
        wanted = []
        for place in batch:
            if place.call.cancelled:
                place.error = CallCancelled("cancelled before its batch was served")
            elif place.call.deadline is not None and now >= place.call.deadline:
                place.error = CallTimeout("its deadline passed before its batch was served")
            else:
                wanted.append(place)
        if not wanted:
            return
        try:
            arguments = [place.arguments for place in wanted]
            for place, row in zip(
                wanted, call_batch(self._method, arguments, self._spec), strict=True
            ):
                place.result = row
        except BaseException as error:
            for place in wanted:
                place.error = error
