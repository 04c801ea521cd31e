"""Which item makes room when a table is full: the oldest, or the one of lowest priority."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from lpml.nodes.replay.order import InsertionOrder
from lpml.nodes.replay.signature import Floats, Ints


class Victims(NamedTuple):
    """What leaves so that new items fit."""

    slots: Ints
    """Of items that are in the table."""
    survivors: Ints | None
    """Which of the new items stay, as indices; `None` = all."""


class Evictor(ABC):
    """The state of a remover in one table."""

    @abstractmethod
    def note(self, slots: Ints, priorities: Floats, ages: Ints) -> None:
        """Items came or changed; `ages` count insertions."""

    @abstractmethod
    def make_room(self, room: int, priorities: Floats, age: int) -> Victims:
        """What leaves when new items come one after another and `room` more would fit.

        Args:
          room: free slots.
          priorities: of the new items, in order.
          age: of the first new item.
        """


class AbstractRemover(ABC):
    """Which item makes room when a table is full."""

    @abstractmethod
    def evictor(self, order: InsertionOrder, age_of: Callable[[int], int]) -> Evictor:
        """The state for a table; `age_of(slot)` is -1 where no item is."""


@final
@dataclass(frozen=True)
class Oldest(AbstractRemover):
    """The item that was inserted first."""

    def evictor(self, order: InsertionOrder, age_of: Callable[[int], int]) -> Evictor:
        del age_of
        return _OldestEvictor(order)


@final
@dataclass(frozen=True)
class LowestPriority(AbstractRemover):
    """The item of lowest priority; of several, the oldest."""

    def evictor(self, order: InsertionOrder, age_of: Callable[[int], int]) -> Evictor:
        return _LowestEvictor(order, age_of)


@final
class _OldestEvictor(Evictor):
    def __init__(self, order: InsertionOrder) -> None:
        self._order = order

    def note(self, slots: Ints, priorities: Floats, ages: Ints) -> None:
        del slots, priorities, ages

    def make_room(self, room: int, priorities: Floats, age: int) -> Victims:
        del age
        count = min(max(0, len(priorities) - room), self._order.size)
        dropped = max(0, len(priorities) - room - count)
        survivors = np.arange(dropped, len(priorities)) if dropped else None
        return Victims(self._order.oldest(count), survivors)


@final
class _LowestEvictor(Evictor):
    """A heap of (priority, age, slot). An entry is out of date when a later one was noted."""

    def __init__(self, order: InsertionOrder, age_of: Callable[[int], int]) -> None:
        self._order = order
        self._age_of = age_of
        self._heap: list[tuple[float, int, int]] = []
        self._latest: dict[int, float] = {}  # {slot: priority}

    def note(self, slots: Ints, priorities: Floats, ages: Ints) -> None:
        values = zip(priorities.tolist(), ages.tolist(), slots.tolist(), strict=True)
        for priority, age, slot in values:
            self._latest[slot] = priority
            heapq.heappush(self._heap, (priority, age, slot))
        if len(self._heap) > 4 * self._order.size + 64:
            self._heap = list({entry for entry in self._heap if self._is_current(entry)})
            heapq.heapify(self._heap)

    def make_room(self, room: int, priorities: Floats, age: int) -> Victims:
        victims: list[int] = []
        fresh: list[tuple[float, int, int]] = []  # new items that are still in
        for index, priority in enumerate(priorities.tolist()):
            if room > 0:
                room -= 1
            else:
                lowest = self._peek(set(victims))
                if fresh and (lowest is None or fresh[0] < lowest):
                    heapq.heappop(fresh)
                elif lowest is not None:
                    victims.append(heapq.heappop(self._heap)[2])
            heapq.heappush(fresh, (priority, age + index, index))
        survivors = np.array(sorted(index for _, _, index in fresh), np.int64)
        whole = len(survivors) == len(priorities)
        return Victims(np.array(victims, np.int64), None if whole else survivors)

    def _is_current(self, entry: tuple[float, int, int]) -> bool:
        priority, age, slot = entry
        return self._age_of(slot) == age and self._latest.get(slot) == priority

    def _peek(self, gone: set[int]) -> tuple[float, int, int] | None:
        while self._heap and (self._heap[0][2] in gone or not self._is_current(self._heap[0])):
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None
