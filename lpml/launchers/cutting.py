"""A node's part in a checkpoint: holds its loop, shuts its door, hands over its state.

Orders come from the launcher's `cuts`, one after another; each is answered. What is asked of a
node, and in which order, is said there.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, final

from lpml.context import Context, entered
from lpml.launchers.cutorder import CutOrder
from lpml.launchers.local import Door

_LOOK = 0.001  # seconds between two looks
_TRIES = 5  # at a state of which nothing was journaled since
_STUCK = 0.1  # seconds in one call after which a loop is taken to wait for others
_STUCK_STATELESS = 0.5  # no restore takes back what such a loop did before: be sure that it waits
_CALLING = (f"{os.sep}lpml{os.sep}wire{os.sep}", f"{os.sep}lpml{os.sep}clock.py")


@final
class Cutting:
    """Carries out the orders of one node.

    Args:
      context: of the node.
      door: of the node.
      stateful: whether the node has state to save.
      answer: called with the order and the answer, in a thread of its own.
    """

    def __init__(
        self,
        context: Context,
        door: Door,
        answer: Callable[[CutOrder, str], object],
        *,
        stateful: bool,
    ) -> None:
        self._context = context
        self._door = door
        self._answer = answer
        self._stuck = _STUCK if stateful else _STUCK_STATELESS
        self._released = threading.Event()
        self._working = threading.Lock()  # one order after another
        self._call: FrameType | None = None  # in which the loop waits for others
        self._copy: Any = None

    def order(self, order: CutOrder) -> None:
        """Begins to carry out an order; returns at once."""
        if order.what == "release":
            self.release()
        else:
            self._released.clear()
        threading.Thread(target=self._work, args=(order,), name="lpml-cut", daemon=True).start()

    def release(self) -> None:
        """Whatever is held goes on."""
        self._released.set()
        self._door.let_in()
        self._context.safe_points.release()

    def _work(self, order: CutOrder) -> None:
        with self._working:
            try:
                answer = self._carry_out(order)
            except Exception as error:
                answer = f"{type(error).__name__}: {error}"
            if order.what != "release" and self._released.is_set():
                self.release()  # it came while the order was carried out
        if answer:
            self._answer(order, answer)

    def _carry_out(self, order: CutOrder) -> str:
        if order.what == "hold":
            return self._hold(monotonic() + order.patience)
        if order.what == "shut":
            return self._shut(monotonic() + order.patience)
        if order.what == "save":
            return self._save(order.number)
        return self._write(order)

    def _hold(self, end: float) -> str:
        points = self._context.safe_points
        points.hold()
        self._call, since, looks = None, 0.0, 0
        while not points.held and not self._released.wait(_LOOK):
            call, now = _call_of(points.loop), monotonic()
            if call is None or call is not self._call:
                self._call, since, looks = call, now, 0
            elif now - since > self._stuck and looks > self._stuck / _LOOK / 5:
                return "calling"
            looks += 1  # time alone says nothing: where the machine stood still, nobody could go on
            if now > end:
                return "busy"
        self._call = None
        return "held"

    def _shut(self, end: float) -> str:
        self._door.let_nobody_in()
        while (inside := self._door.busy_calls()) and not self._released.wait(_LOOK):
            if monotonic() > end:
                return f"a call of {', '.join(inside)} goes on, and does not wait on its clock"
        return "quiet"

    def _save(self, number: int) -> str:
        points = self._context.safe_points
        if self._call is not None and _call_of(points.loop) is not self._call:
            return "its loop went on, since a call that it waited in was answered"
        if self._released.is_set():
            return "it was released"
        from lpml.record import trees

        journal = self._context.journal_file
        with entered(self._context):
            for _ in range(_TRIES):
                written = 0 if journal is None else journal.written
                copy = trees.copied(self._door.service.save())
                # A call inside that waits on the clock may wake, and journal.
                if journal is None or journal.turn(number, written):
                    self._copy = copy
                    return "copied"
        return "its state changed each time that it was saved"

    def _write(self, order: CutOrder) -> str:
        self._call = None
        copy, self._copy = self._copy, None
        if copy is None or not order.path:
            return ""
        from lpml.record import trees

        trees.save(Path(order.path), copy)
        return "written"


def _call_of(thread: int | None) -> FrameType | None:
    """The frame of lpml in which a thread waits for others, or `None` if it does other things."""
    frame = sys._current_frames().get(thread) if thread is not None else None
    if frame is None:
        return None
    found = None
    while frame is not None:
        name = frame.f_code.co_filename
        if any(part in name for part in _CALLING):
            found = frame
        elif found is not None or not name.endswith("threading.py"):
            break
        frame = frame.f_back
    return found
