"""Lets another process run just before this one would wait for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import final

_DEAR = 0.002  # seconds; a turn that took longer went to somebody who computes
_REST = 500  # occasions that are then let pass


def _nothing() -> None:
    """There is no sched_yield on this system."""


_yield: Callable[[], None] = getattr(os, "sched_yield", _nothing)


@final
class Courtesy:
    """Gives the processor away where the process that is waited for may be ready to run on it.

    To wait and to be woken costs tens of microseconds of both; where several clients and a
    server share processors, a turn given away saves that half of the time. Beside a process that
    computes, a turn is dear: then no more are given for a while.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = 0

    def give(self) -> None:
        """Gives one turn away, unless turns are dear."""
        if self._rest:
            self._rest -= 1
            return
        since = monotonic()
        _yield()
        if monotonic() - since > _DEAR:
            self._rest = _REST
