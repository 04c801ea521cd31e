"""Which items a sample takes: uniform, prioritised, first, last, or slices of long items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.order import InsertionOrder
from lpml.nodes.replay.signature import Floats, Ints
from lpml.nodes.replay.sum_tree import SumTree

Remaining: TypeAlias = Callable[[Ints], Ints] | None


class Drawn(NamedTuple):
    """Slots `[k]` with the probability of each draw, and where in the item a slice begins."""

    slots: Ints
    probabilities: Floats
    offsets: Ints | None = None


class Selector(ABC):
    """The state of a sampler in one table. All methods take slots of items."""

    @property
    @abstractmethod
    def uses_priorities(self) -> bool:
        """Whether priorities change what is drawn."""

    @abstractmethod
    def weigh(self, priorities: Floats, lengths: Ints) -> Floats:
        """What decides how often items of these priorities and lengths are drawn; 0 = never."""

    @abstractmethod
    def set(self, slots: Ints, weights: Floats) -> None:
        """Items came or changed."""

    @abstractmethod
    def remove(self, slots: Ints) -> None:
        """Items left."""

    @abstractmethod
    def draw(self, count: int, rng: np.random.Generator, remaining: Remaining) -> Drawn:
        """At most `count` draws, at least one; some item has a positive weight.

        Args:
          count: of draws.
          rng: advanced.
          remaining: how often given slots may still be drawn (`None` = without end). Whoever draws
            at random may draw more than that; the table takes back what is too much.
        """


class AbstractSampler(ABC):
    """How a table is sampled."""

    @abstractmethod
    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        """The state for a table of `capacity` slots whose items stand in `order`."""


@final
@dataclass(frozen=True)
class Uniform(AbstractSampler):
    """Every item with the same probability, with replacement."""

    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        del capacity
        return _Plain(order, "draw")


@final
@dataclass(frozen=True)
class Fifo(AbstractSampler):
    """The oldest item, until it leaves; with `max_times_sampled=1`, a queue."""

    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        del capacity
        return _Plain(order, "oldest")


@final
@dataclass(frozen=True)
class Lifo(AbstractSampler):
    """The newest item, until it leaves; with `max_times_sampled=1`, a stack."""

    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        del capacity
        return _Plain(order, "newest")


@final
@dataclass(frozen=True)
class Prioritised(AbstractSampler):
    """Items in proportion to a power of their priority, with replacement.

    `P(i) = p_i^exponent / sum_j p_j^exponent`, in float64; an item of priority 0 is never drawn.

    Args:
      exponent: how much priorities matter; 0.6 is customary, 0 draws items of positive priority
        uniformly.

    Reference: Schaul, Quan, Antonoglou, Silver, "Prioritized Experience Replay" (2016), eq. (1).
    """

    exponent: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < float("inf"):
            raise UsageError(f"Prioritised(exponent={self.exponent}): give a number of at least 0")

    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        del order
        return _Weighted(capacity, self.exponent, None)


@final
@dataclass(frozen=True)
class Slices(AbstractSampler):
    """Stretches of `length` successive steps, each with the same probability, out of long items.

    For items of varying length, such as whole episodes; an item shorter than `length` is never
    drawn. The table's view is `Sequences(length)`.
    """

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError(f"Slices(length={self.length}): give a length of at least 1")

    def selector(self, capacity: int, order: InsertionOrder) -> Selector:
        del order
        return _Weighted(capacity, 0.0, self.length)


@final
class _Plain(Selector):
    """Draws by insertion alone; keeps nothing itself."""

    def __init__(self, order: InsertionOrder, rule: str) -> None:
        self._order = order
        self._rule = rule

    @property
    def uses_priorities(self) -> bool:
        return False

    def weigh(self, priorities: Floats, lengths: Ints) -> Floats:
        del lengths
        return np.ones(len(priorities))

    def set(self, slots: Ints, weights: Floats) -> None:
        del slots, weights

    def remove(self, slots: Ints) -> None:
        del slots

    def draw(self, count: int, rng: np.random.Generator, remaining: Remaining) -> Drawn:
        if self._rule == "draw":
            slots = self._order.draw(count, rng)
            return Drawn(slots, np.full(count, 1.0 / self._order.size))
        ends = self._order.oldest if self._rule == "oldest" else self._order.newest
        if remaining is None:
            slots = np.repeat(ends(1), count)
        else:
            slots = ends(count)
            slots = np.repeat(slots, remaining(slots))[:count]
        return Drawn(slots, np.ones(len(slots)))


@final
class _Weighted(Selector):
    """Draws in proportion to weights."""

    def __init__(self, capacity: int, exponent: float, length: int | None) -> None:
        self._tree = SumTree(capacity)
        self._exponent = exponent
        self._length = length

    @property
    def uses_priorities(self) -> bool:
        return self._length is None

    def weigh(self, priorities: Floats, lengths: Ints) -> Floats:
        if self._length is not None:
            return np.maximum(lengths - self._length + 1, 0).astype(np.float64)
        if self._exponent == 1:
            return priorities
        return np.where(priorities > 0, priorities**self._exponent, 0.0)

    def set(self, slots: Ints, weights: Floats) -> None:
        self._tree.set(slots, weights)

    def remove(self, slots: Ints) -> None:
        self._tree.set(slots, np.zeros(len(slots)))

    def draw(self, count: int, rng: np.random.Generator, remaining: Remaining) -> Drawn:
        del remaining
        total = self._tree.total
        slots = self._tree.find(rng.random(count) * total)
        weights = self._tree.get(slots)
        if self._length is None:
            return Drawn(slots, weights / total)
        offsets: Any = (rng.random(count) * weights).astype(np.int64)
        return Drawn(slots, np.full(count, 1.0 / total), offsets)
