"""The places of a table's items: a column for everything that is known of an item, and the keys.

A slot is used again when its item is gone; the key says which item is meant, so that an old key
finds nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np

from lpml.nodes.replay.signature import Array, Bools, Floats, Ints


class Known(NamedTuple):
    """What is known of some items, `[B]` each."""

    keys: Ints
    starts: Ints
    lengths: Ints
    times: Ints
    priorities: Floats


@final
class Slots:
    """`size` places, all free at first."""

    def __init__(self, size: int) -> None:
        self._size = size
        # All columns of a slot share a cache line: drawn at random, an item costs one miss.
        self._lines = integers = np.zeros((size, 8), np.int64)
        floats = integers.view(np.float64)
        self._keys = integers[:, 0]  # slot + size * generation; -1 - key = gone
        self.ages = integers[:, 1]
        """Count insertions."""
        self.starts = integers[:, 2]
        """First rows of the windows."""
        self.lengths = integers[:, 3]
        """Of the windows, in steps."""
        self.times = integers[:, 4]
        """How often each was sampled."""
        self.priorities = floats[:, 5]
        self.weights = floats[:, 6]
        """As the selector weighs them."""
        self._keys[:] = -1
        self._free = np.empty(size, np.int64)  # a stack of slots used before
        self._num_free = 0
        self._used = 0

    def take(self, count: int) -> Ints:
        """`count` slots, with new keys and never sampled; those that were freed last come first."""
        again = min(count, self._num_free)
        self._num_free -= again
        fresh = np.arange(self._used, self._used + count - again)
        slots = np.concatenate([self._free[self._num_free : self._num_free + again], fresh])
        self._used += len(fresh)
        keys = slots.copy()
        keys[:again] = self._size - 1 - self._keys[slots[:again]]  # the next one of the slot
        self._keys[slots] = keys
        self.times[slots] = 0
        return slots

    def free(self, slots: Ints) -> None:
        """The items of `slots` are gone."""
        self._keys[slots] = -1 - self._keys[slots]
        self._free[self._num_free : self._num_free + len(slots)] = slots
        self._num_free += len(slots)

    def find(self, keys: Array) -> tuple[Ints, Bools]:
        """The slots that keys name, and whether their items are still there."""
        keys = np.asarray(keys, np.int64)
        slots = keys % self._size
        return slots, (keys >= 0) & (self._keys[slots] == keys)

    def read(self, slots: Ints) -> Known:
        """What is known of the items of `slots`, as it is now."""
        columns = self._lines.take(slots, axis=0).T.copy()
        return Known(columns[0], columns[2], columns[3], columns[4], columns[5].view(np.float64))

    def age_of(self, slot: int) -> int:
        """When the item of a slot was inserted; -1 = there is none."""
        return int(self.ages[slot]) if self._keys[slot] >= 0 else -1

    def keys(self, slots: Ints) -> Ints:
        """The keys of the items of `slots`."""
        return self._keys[slots]

    def save(self) -> dict[str, Any]:
        """All that was ever used, as arrays and scalars."""
        used = self._used
        columns = {name: column[:used].copy() for name, column in self._columns().items()}
        return {**columns, "used": used, "free": self._free[: self._num_free].copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""
        self._used = used = int(state["used"])
        for name, column in self._columns().items():
            column[:used] = state[name]
        self._keys[used:] = -1
        self._num_free = len(state["free"])
        self._free[: self._num_free] = state["free"]

    def _columns(self) -> dict[str, Any]:
        return {
            "keys": self._keys,
            "ages": self.ages,
            "starts": self.starts,
            "lengths": self.lengths,
            "priorities": self.priorities,
            "weights": self.weights,
            "times": self.times,
        }
