"""The items of a table in the order in which they were inserted."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from lpml.nodes.replay.signature import Ints


@final
class InsertionOrder:
    """Slots `[0, capacity)` in order of insertion; any may leave.

    A ring of twice the capacity. A slot that leaves makes a hole (-1); holes are squeezed out
    before they are the majority, so drawing by trial hits a slot at least every other time.
    """

    def __init__(self, capacity: int) -> None:
        self._ring = np.full(2 * capacity + 1, -1, np.int64)
        self._place = np.zeros(capacity, np.int64)  # of a slot in the ring
        self._head = 0  # places count up for ever; the ring is indexed modulo its length
        self._tail = 0
        self.size = 0

    def append(self, slots: Ints) -> None:
        """`slots` are the newest."""
        count = len(slots)
        if self._tail + count - self._head > len(self._ring):
            self._squeeze()
        places = np.arange(self._tail, self._tail + count)
        self._ring[places % len(self._ring)] = slots
        self._place[slots] = places
        self._tail += count
        self.size += count

    def remove(self, slots: Ints) -> None:
        """`slots` leave; each must be there, once."""
        self._ring[self._place[slots] % len(self._ring)] = -1
        self.size -= len(slots)
        if self.size == 0:
            self._head = self._tail
            return
        if self._ring[self._head % len(self._ring)] < 0:
            self._skip_oldest(len(slots) + 64)
        if self._ring[(self._tail - 1) % len(self._ring)] < 0:
            self._skip_newest(len(slots) + 64)
        if self._tail - self._head > 2 * self.size + 64:
            self._squeeze()

    def oldest(self, count: int) -> Ints:
        """The `count` oldest slots, oldest first."""
        return self._first(count)[:count]

    def newest(self, count: int) -> Ints:
        """The `count` newest slots, newest first."""
        width = count
        while True:
            low = max(self._head, self._tail - width)
            slots = self._ring[np.arange(self._tail - 1, low - 1, -1) % len(self._ring)]
            slots = slots[slots >= 0]
            if len(slots) >= count or low == self._head:
                return slots[:count]
            width *= 2

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        """`count` slots, uniformly, with replacement."""
        slots = self._draw(count, rng)
        while slots.min() < 0:
            holes = np.flatnonzero(slots < 0)
            slots[holes] = self._draw(len(holes), rng)
        return slots

    def _draw(self, count: int, rng: np.random.Generator) -> Ints:
        """Places of the ring, uniformly to within 2**-53, in a third of the time of `integers`."""
        places = (rng.random(count) * (self._tail - self._head)).astype(np.int64)
        places += self._head % len(self._ring)
        return self._ring.take(places, mode="wrap")

    def all(self) -> Ints:
        """Every slot, oldest first."""
        slots = self._ring[np.arange(self._head, self._tail) % len(self._ring)]
        return slots[slots >= 0]

    def save(self) -> dict[str, Any]:
        """The ring with its holes: later draws depend on them."""
        ring = self._ring[np.arange(self._head, self._tail) % len(self._ring)]
        return {"ring": ring, "head": self._head}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""
        ring = np.asarray(state["ring"])
        self._head = int(state["head"])
        self._tail = self._head + len(ring)
        places = np.arange(self._head, self._tail)
        self._ring[places % len(self._ring)] = ring
        live = ring >= 0
        self._place[ring[live]] = places[live]
        self.size = int(live.sum())

    def _first(self, count: int) -> Ints:
        width = count
        while True:
            high = min(self._tail, self._head + width)
            slots = self._ring[np.arange(self._head, high) % len(self._ring)]
            slots = slots[slots >= 0]
            if len(slots) >= count or high == self._tail:
                return slots
            width *= 2

    def _skip_oldest(self, stretch: int) -> None:
        """Moves the head over holes, a stretch at a time; some slot is there."""
        while True:
            live = self._ring[np.arange(self._head, self._head + stretch) % len(self._ring)] >= 0
            if live.any():
                self._head += int(live.argmax())
                return
            self._head += stretch

    def _skip_newest(self, stretch: int) -> None:
        """Moves the tail back over holes; some slot is there."""
        while True:
            places = np.arange(self._tail - 1, self._tail - 1 - stretch, -1)
            live = self._ring[places % len(self._ring)] >= 0
            if live.any():
                self._tail -= int(live.argmax())
                return
            self._tail -= stretch

    def _squeeze(self) -> None:
        slots = self.all()
        self._tail = self._head + len(slots)
        places = np.arange(self._head, self._tail)
        self._ring[places % len(self._ring)] = slots
        self._place[slots] = places
