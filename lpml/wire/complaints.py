"""Warnings about who knocks: whoever does must not fill our logs."""

from __future__ import annotations

import logging
from time import monotonic
from typing import final

PAUSE = 0.1  # seconds until the next attempt where nobody can be accepted
_QUIET = 1.0  # seconds between two warnings
_log = logging.getLogger("lpml.wire")


@final
class Complaints:
    """Those of one node; the ones that are left out are counted in the next. For one thread."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._unsaid = 0
        self._next = 0.0

    def say(self, what: str, why: object) -> None:
        """Warns that the node `what`: `why`; if the last time was a while ago."""
        self._unsaid += 1
        if monotonic() >= self._next:
            self._next = monotonic() + _QUIET
            more = f" (and {self._unsaid - 1} before it)" if self._unsaid > 1 else ""
            self._unsaid = 0
            _log.warning("%s %s: %s%s", self._node, what, why, more)
