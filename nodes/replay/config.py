"""What a table is declared to be, and why it could not work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.limiter import AbstractLimiter, MinSize
from lpml.nodes.replay.removers import AbstractRemover, Oldest
from lpml.nodes.replay.samplers import AbstractSampler, Slices, Uniform
from lpml.nodes.replay.signature import Array, Floats, signature_of
from lpml.nodes.replay.views import AbstractView, Sequences, Steps

_LARGEST = 1e100  # priorities: their sum over any table stays finite


@final
@dataclass(frozen=True)
class TableConfig:
    """What a table holds and how it behaves.

    Args:
      name: of the table.
      signature: of one step: a step, or its tree of `jax.ShapeDtypeStruct`. Tables of the same
        signature share their steps.
      max_size: items; then `remover` decides which one makes room.
      view: how an item is read.
      sampler: which items a sample takes.
      remover: which item makes room.
      limiter: in which proportion the table is filled and sampled.
      max_times_sampled: how often an item is sampled before it leaves; `None` = without end.
      max_steps: stored steps; when they run out, items make room for them too. `None` = enough
        for `max_size` items, unless they leave in an unusual order.
      folder: keeps the steps in memory-mapped files there, for tables larger than main memory.
      seed: of the table's own random numbers.

    Raises:
      UsageError: the table could never be sampled or filled, or its parts do not fit.
    """

    name: str
    signature: Any = field(repr=False)
    max_size: int
    view: AbstractView = field(default_factory=Steps)
    sampler: AbstractSampler = field(default_factory=Uniform)
    remover: AbstractRemover = field(default_factory=Oldest)
    limiter: AbstractLimiter = field(default_factory=MinSize)
    max_times_sampled: int | None = None
    max_steps: int | None = None
    folder: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "signature", signature_of(self.signature))
        for name in ("max_size", "max_times_sampled", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"table {self.name!r}: {name}={value}; give at least 1")
        self.view.check(self.signature)
        if isinstance(self.sampler, Slices) and self.view != Sequences(self.sampler.length):
            raise UsageError(
                f"table {self.name!r}: {self.sampler} needs the view "
                f"Sequences({self.sampler.length}), not {self.view}"
            )
        for fault in self.limiter.faults(self.max_size, self.max_times_sampled):
            raise UsageError(f"table {self.name!r} could never be sampled: {fault}")
        if self.max_steps is not None and self.max_steps < self.view.rows:
            raise UsageError(
                f"table {self.name!r}: max_steps={self.max_steps} holds not even one item of "
                f"{self.view.rows} steps; raise it"
            )

    @property
    def steps(self) -> int:
        """Stored steps that the table needs room for."""
        if self.max_steps is not None:
            return self.max_steps
        per_item = 1.25 if self.view.rows <= 16 else self.view.rows
        return int(self.max_size * per_item) + 16 * self.view.rows + 8192

    def check_priorities(self, priorities: Array, count: int) -> Floats:
        """The priorities of `count` items in float64.

        Raises:
          UsageError: there are more or less, or one is negative, infinite or no number.
        """
        priorities = np.array(priorities, np.float64)
        # nan fails the comparisons
        within = not count or (priorities.min() >= 0 and priorities.max() <= _LARGEST)
        if priorities.shape != (count,) or not within:
            good = (priorities >= 0) & (priorities <= _LARGEST)
            what = f"shape {priorities.shape}" if good.all() else f"{priorities[~good].flat[0]}"
            raise UsageError(
                f"table {self.name!r}: priorities of {count} items have {what}; give one "
                f"number in [0, {_LARGEST:g}] for each"
            )
        return priorities
