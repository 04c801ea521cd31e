"""Compilation that a stop of the program does not have to wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lpml


def in_background(function: Callable[..., object], *args: Any) -> None:
    """Runs a function that nothing can interrupt in a thread, and waits until it has returned.

    Raises:
      ProgramStopped: the program is stopping; the function goes on, and nobody waits for it.
      Exception: what the function raised.
    """
    changed = lpml.context().clock.condition()

    def wake(_: object) -> None:
        with changed:
            changed.notify_all()

    future = lpml.future(function, *args)
    future.add_done_callback(wake)
    with changed:
        changed.wait_for(future.done)
    future.result()
