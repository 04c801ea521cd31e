"""Runs the methods of a service as their kind says: one at a time, concurrently, or batched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

from lpml.clock import Clock, Scope, check_call
from lpml.errors import CallTimeout
from lpml.service import Interface, MethodSpec
from lpml.wire.batching import Batcher

_QUICK = 0.0003  # seconds of a call that may run in the thread of the loop
_BLOCKED = 0.005  # seconds of one that should not have
_LOOKS = 50  # at a turn that nobody has who lives, until it is freed
_GRUDGE = 10_000  # quick calls until a method that blocked is trusted again


@dataclass(frozen=True)
class DispatcherStatistics:
    """Calls that ended so far, over the wire and in the process."""

    calls: int
    errors: int


@final
class Handler:
    """One method of one service."""

    __slots__ = (
        "batcher",
        "concurrent",
        "method",
        "name",
        "plain",
        "quick",
        "simple",
        "spec",
        "stream",
        "whole",
    )

    def __init__(
        self, name: str, method: Callable[..., Any], spec: MethodSpec, clock: Clock
    ) -> None:
        self.name = name
        self.method = method
        self.spec = spec
        self.stream = spec.stream
        self.concurrent = spec.kind == "concurrent"
        self.quick = 0  # calls in a row that took next to no time; < 0: one of them blocked
        self.plain = spec.kind == "serial" and not spec.stream
        self.whole = False  # what it returns is sent, even if the caller could fetch it
        self.simple = spec.kind != "batched" and not spec.stream
        self.batcher = Batcher(method, spec, clock) if spec.kind == "batched" else None

    def took(self, seconds: float) -> None:
        """One call took so long."""
        if seconds < _QUICK:
            self.quick += 1
        elif seconds < _BLOCKED:
            self.quick = min(self.quick, 0)
        else:
            self.quick = -_GRUDGE


@final
class Dispatcher:
    """Serves the public methods of one object.

    Args:
      service: the object.
      interface: its methods, and the kind of each.
      scope: the context of the node; `lpml.context()` in a method.
      node: the node's name, for messages.
    """

    def __init__(self, service: object, interface: Interface, scope: Scope, node: str) -> None:
        self.interface = interface
        self.scope = scope
        self.node = node
        self.handlers: Mapping[str, Handler] = {
            name: Handler(name, getattr(service, name), spec, scope.clock)
            for name, spec in interface.methods.items()
        }
        self.all_serial = all(spec.kind == "serial" for spec in interface.methods.values())
        self.wanted: Callable[[], object] | None = None  # who waits for the serial turn
        self.turn = threading.Lock()  # held while a serial method runs
        self.holder = 0  # the thread of this process that took it to call the node itself
        self._counting = threading.Lock()
        self._calls = 0
        self.serial_calls = 0  # of those that were counted by who had the turn
        self._errors = 0

    def renew(self, scope: Scope) -> None:
        """What is behind the methods was replaced: from now on they run as code of `scope`."""
        for handler in self.handlers.values():
            if handler.batcher is not None:
                handler.batcher = Batcher(handler.method, handler.spec, scope.clock)
        self.scope = scope

    def statistics(self) -> DispatcherStatistics:
        """Counts so far."""
        return DispatcherStatistics(self._calls + self.serial_calls, self._errors)

    def count(self, error: bool) -> None:
        """One call ended."""
        with self._counting:
            self._calls += 1
            self._errors += error

    def take_turn(self) -> threading.Lock:
        """Takes the turn of the serial methods, within the deadline of the current call.

        Returns:
          What is to be given to `end_turn`.

        Raises:
          CallTimeout, CallCancelled: the call may not wait longer.
        """
        clock = self.scope.clock
        while True:
            turn, left = self.turn, clock.remaining(None)
            if turn.acquire(False) or turn.acquire(timeout=0.1 if left is None else min(0.1, left)):
                if turn is self.turn:
                    self.holder = threading.get_ident()
                    return turn
                turn.release()  # it was given up while we waited
                continue
            check_call(clock.time())
            if left == 0:
                raise CallTimeout(f"{self.node} was busy with another call until the deadline")

    def free_turn(self) -> None:
        """Frees the turn if it was taken by a thread that was interrupted, and has ended with it.

        A call that waits for the next attempt has it by right.
        """
        pause = threading.Event()
        for _ in range(_LOOKS):  # whoever takes it just now has it before we may say that
            alive = {thread.ident for thread in threading.enumerate()}
            if not self.turn.locked() or self.holder in alive:
                return
            pause.wait(0.001)
        self.turn = threading.Lock()

    def end_turn(self, turn: threading.Lock) -> None:
        """Gives the turn back."""
        self.holder = 0
        turn.release()
        wanted = self.wanted
        if wanted is not None:
            wanted()
