"""Keeps samples and inserts in proportion, as a state machine: what may happen now, and why not.

With `diff = inserts * samples_per_insert - samples`, an insert may happen while the table is
smaller than `min_size` or `diff + samples_per_insert <= max_diff`; k samples may happen while the
table has at least `min_size` items and `diff - k >= min_diff`. These are Reverb's inequalities.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.signature import Floats


class Bounds(NamedTuple):
    """What a limiter enforces."""

    min_size: int
    samples_per_insert: float
    min_diff: float
    max_diff: float


class AbstractLimiter(ABC):
    """In which proportion a table may be filled and sampled."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """What is enforced."""

    @property
    def loses_nothing(self) -> bool:
        """Whether items must never make room for others before they were sampled."""
        return False

    def faults(self, max_size: int, max_times_sampled: int | None) -> list[str]:
        """Why a table of this size could never satisfy the limiter; empty if it can."""
        bounds = self.bounds
        times = math.inf if max_times_sampled is None else max_times_sampled
        if bounds.min_size > max_size:
            fault = (
                f"{self} waits for {bounds.min_size} items, the table holds at most {max_size}; "
                "lower the one or raise the other"
            )
            return [fault]
        if not math.isinf(bounds.max_diff) and times < bounds.samples_per_insert:
            fault = (
                f"{self} asks for {bounds.samples_per_insert:g} samples of each item, "
                f"max_times_sampled is {max_times_sampled}; lower the one or raise the other"
            )
            return [fault]
        return []


@final
@dataclass(frozen=True)
class MinSize(AbstractLimiter):
    """Samples wait until the table holds `min_size` items; inserts never wait."""

    min_size: int = 1

    def __post_init__(self) -> None:
        if self.min_size < 1:
            raise UsageError(f"MinSize({self.min_size}): give a number of items of at least 1")

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.min_size, 1.0, -math.inf, math.inf)


@final
@dataclass(frozen=True)
class SamplesPerInsert(AbstractLimiter):
    """Each inserted item is sampled `ratio` times on average, give or take.

    Samples count items: one update per inserted item with batches of 32 is a ratio of 32.

    Args:
      ratio: samples per insert.
      min_size: samples wait until the table holds so many items.
      tolerance: by how many samples the two sides may run apart, in either direction;
        `None` = a tenth of `ratio * min_size`, and at least 2 * max(1, ratio). A batch cannot be
        larger than about twice that.

    Raises:
      UsageError: a number is out of range, or a tolerance so small that both sides could wait
        for each other.
    """

    ratio: float
    min_size: int = 1
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.ratio < math.inf or self.min_size < 1:
            raise UsageError(f"{self}: give a ratio above 0 and a min_size of at least 1")
        if not self.error >= max(1.0, self.ratio):
            raise UsageError(
                f"{self}: with a tolerance below {max(1.0, self.ratio):g} samples and inserts can "
                "wait for each other for ever; raise it"
            )

    @property
    def error(self) -> float:
        """The tolerance in samples."""
        if self.tolerance is not None:
            return self.tolerance
        return max(0.1 * self.ratio * self.min_size, 2 * max(1.0, self.ratio))

    @property
    def bounds(self) -> Bounds:
        middle = self.ratio * self.min_size
        return Bounds(self.min_size, self.ratio, middle - self.error, middle + self.error)


@final
@dataclass(frozen=True)
class Queue(AbstractLimiter):
    """Inserts wait while `size` items wait to be sampled; for tables that sample each item once."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UsageError(f"Queue({self.size}): give a number of items of at least 1")

    @property
    def bounds(self) -> Bounds:
        return Bounds(1, 1.0, 0.0, float(self.size))

    @property
    def loses_nothing(self) -> bool:
        return True

    def faults(self, max_size: int, max_times_sampled: int | None) -> list[str]:
        if self.size > max_size:
            fault = (
                f"{self} lets {self.size} items wait, the table holds at most {max_size}; "
                "lower the one or raise the other"
            )
            return [fault]
        if max_times_sampled != 1:
            return [f"{self} needs max_times_sampled=1, not {max_times_sampled}"]
        return []


@final
class RateLimiter:
    """The counters behind a limiter. No clock, no lock."""

    def __init__(self, limiter: AbstractLimiter) -> None:
        self._enforce(limiter)
        self.inserts = 0
        self.samples = 0
        self._base = 0.0  # diff when the limiter was set
        self._base_inserts = 0
        self._base_samples = 0

    @property
    def limiter(self) -> AbstractLimiter:
        """What is enforced now."""
        return self._limiter

    @property
    def diff(self) -> float:
        """How many samples the inserts are ahead."""
        inserts = self.inserts - self._base_inserts
        samples = self.samples - self._base_samples
        return self._base + inserts * self._bounds.samples_per_insert - samples

    def insertable(self, size: int, wanted: int) -> int:
        """How many of `wanted` items may be inserted now into a table of `size` items."""
        bounds = self._bounds
        if math.isinf(bounds.max_diff):
            return wanted
        ahead = math.floor((bounds.max_diff - self.diff) / bounds.samples_per_insert + 1e-9)
        return max(0, min(wanted, max(bounds.min_size - size, ahead)))

    def samplable(self, size: int, count: int) -> bool:
        """Whether `count` samples may be taken now from a table of `size` items."""
        return size >= self._bounds.min_size and self.diff - count >= self._bounds.min_diff - 1e-9

    def why_no_insert(self, size: int) -> str:
        """Why an insert has to wait, in a few words."""
        return (
            f"inserts are {self.diff:g} samples ahead, {self._bounds.max_diff:g} allowed by "
            f"{self._limiter} (size {size}); it waits for samples"
        )

    def why_no_sample(self, size: int, count: int) -> str:
        """Why `count` samples have to wait, in a few words."""
        if size < self._bounds.min_size:
            return f"{size} of the {self._bounds.min_size} items that {self._limiter} waits for"
        return (
            f"inserts are {self.diff:g} samples ahead, {self._bounds.min_diff + count:g} needed by "
            f"{self._limiter} for {count} more (size {size}); it waits for inserts"
        )

    def change(self, limiter: AbstractLimiter, size: int) -> None:
        """Enforces `limiter` from now on, as if all had been in proportion so far."""
        self._enforce(limiter)
        bounds = self._bounds
        counted = size if limiter.loses_nothing else min(size, bounds.min_size)
        self._base = counted * bounds.samples_per_insert
        self._base_inserts, self._base_samples = self.inserts, self.samples

    def _enforce(self, limiter: AbstractLimiter) -> None:
        self._limiter = limiter
        self._bounds = bounds = limiter.bounds
        whole = all(float(value).is_integer() for value in bounds[1:])
        slack = bounds.max_diff - bounds.min_diff - bounds.samples_per_insert + (1 if whole else 0)
        self.largest_batch = max(1.0, slack)
        """The largest batch that does not have to wait for ever."""

    def save(self) -> dict[str, Any]:
        """The counters, and what is enforced, in numbers."""
        names = ("inserts", "samples", "_base", "_base_inserts", "_base_samples")
        counters = {name.strip("_"): getattr(self, name) for name in names}
        return {**counters, "limiter": _to_numbers(self._limiter)}

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""
        self._enforce(_from_numbers(state["limiter"]))
        self.inserts = int(state["inserts"])
        self.samples = int(state["samples"])
        self._base = float(state["base"])
        self._base_inserts = int(state["base_inserts"])
        self._base_samples = int(state["base_samples"])


_KINDS: tuple[type[AbstractLimiter], ...] = (MinSize, SamplesPerInsert, Queue)


def _to_numbers(limiter: AbstractLimiter) -> Floats:
    """The place in `_KINDS`, then the fields; `None` is nan."""
    fields = [getattr(limiter, field.name) for field in dataclasses.fields(limiter)]  # type: ignore[arg-type]
    numbers = [math.nan if value is None else float(value) for value in fields]
    return np.array([_KINDS.index(type(limiter)), *numbers])


def _from_numbers(numbers: Floats) -> AbstractLimiter:
    kind, *fields = np.asarray(numbers).tolist()
    values = [None if math.isnan(v) else int(v) if v.is_integer() else v for v in fields]
    return _KINDS[int(kind)](*values)
