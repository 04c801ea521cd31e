"""Sends new priorities to a replay while the learner goes on."""

from __future__ import annotations

from collections import deque
from typing import Any, final

import lpml
from lpml.nodes.replay import AbstractReplay

_OUTSTANDING = 4


@final
class PriorityWriter:
    """Writes priorities to a table; a few batches of them may be on their way.

    Args:
      replay: where to; `None` = nowhere.
      table: which.
      wait: until each batch has arrived.
    """

    def __init__(self, replay: AbstractReplay | None, table: str, *, wait: bool) -> None:
        self._replay = replay
        self._table = table
        self._wait = wait
        self._under_way: deque[lpml.Future[int]] = deque()

    @property
    def wanted(self) -> bool:
        """Whether there is a replay."""
        return self._replay is not None

    def send(self, keys: Any, priorities: Any) -> None:
        """Starts to write; raises what went wrong with earlier batches."""
        if self._replay is None:
            return
        if self._wait:
            self._replay.update_priorities(self._table, keys, priorities)
            return
        while self._under_way and (
            len(self._under_way) >= _OUTSTANDING or self._under_way[0].done()
        ):
            self._under_way.popleft().result()
        self._under_way.append(
            lpml.future(self._replay.update_priorities, self._table, keys, priorities)
        )

    def flush(self) -> None:
        """Waits until all have arrived."""
        while self._under_way:
            self._under_way.popleft().result()
