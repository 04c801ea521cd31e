"""A table of items over stored steps: insert, sample, remove, as a state machine.

No clock, no lock, no waiting: the table says what its limiter allows, and whoever owns it waits.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.compact import Arena
from lpml.nodes.replay.config import TableConfig
from lpml.nodes.replay.limiter import RateLimiter
from lpml.nodes.replay.order import InsertionOrder
from lpml.nodes.replay.random import restore_generator, save_generator
from lpml.nodes.replay.sample import Draw, Sample, SampleInfo
from lpml.nodes.replay.samplers import Drawn, Slices
from lpml.nodes.replay.signature import Array, Floats, Ints
from lpml.nodes.replay.slots import Slots
from lpml.nodes.replay.steps import StepStore, distinct


@final
class Table:
    """Items over the steps of `store`.

    Args:
      config: what it holds.
      store: shared with the other tables of the same signature.
    """

    def __init__(self, config: TableConfig, store: StepStore) -> None:
        size = config.max_size
        self.config = config
        self.store = store
        self.limiter = RateLimiter(config.limiter)
        self.slots = Slots(size)
        self._order = InsertionOrder(size)
        self._selector = config.sampler.selector(size, self._order)
        self._evictor = config.remover.evictor(self._order, self.slots.age_of)
        self._rng = np.random.Generator(np.random.Philox(key=config.seed))
        self._age = 0
        self._num_drawable = 0  # items of positive weight
        self._num_draws = 0  # how often these may still be drawn; with max_times_sampled only
        self._highest = 0.0  # priority seen
        # a slice reads fewer steps than its item has
        self._window = 0 if isinstance(config.sampler, Slices) else config.view.rows

    @property
    def size(self) -> int:
        """Items now."""
        return self._order.size

    def insertable(self, wanted: int) -> int:
        """How many of `wanted` items the limiter lets in now."""
        return self.limiter.insertable(self.size, wanted)

    def can_sample(self, count: int) -> bool:
        """Whether `count` items can be drawn now."""
        enough = self._num_drawable > 0
        if self.config.max_times_sampled is not None:
            enough = self._num_draws >= count
        return enough and self.limiter.samplable(self.size, count)

    def check_batch(self, count: int) -> None:
        """Raises UsageError if `count` items could never be drawn at once."""
        largest = self.limiter.largest_batch
        if self.config.max_times_sampled is not None:
            largest = min(largest, self.config.max_size * self.config.max_times_sampled)
        if not 1 <= count <= largest:
            raise UsageError(
                f"table {self.config.name!r}: a batch of {count} can never be sampled, at most "
                f"{largest:g} under {self.limiter.limiter}; raise its tolerance or size, or lower "
                "the batch size"
            )

    def why_no_sample(self, count: int) -> str:
        """Why `count` items cannot be drawn now."""
        if not self.limiter.samplable(self.size, count):
            return self.limiter.why_no_sample(self.size, count)
        if self.config.max_times_sampled is not None and self._num_drawable:
            return f"its {self.size} items may be drawn {self._num_draws} times, not {count}"
        return f"none of its {self.size} items can be drawn: each has priority 0 or is too short"

    def check_items(self, lengths: Ints, priorities: Array | None) -> Floats | None:
        """The priorities of new items, checked, in float64; `None` = the highest seen so far.

        Raises:
          UsageError: a priority or a length is out of range.
        """
        name = self.config.name
        if len(lengths) and not (lengths.min() > 0 and lengths.max() <= self._longest()):
            raise UsageError(
                f"table {name!r}: an item has {lengths.min()} to {lengths.max()} steps, its view "
                f"{self.config.view} takes 1 to {self._longest()}"
            )
        return (
            None if priorities is None else self.config.check_priorities(priorities, len(lengths))
        )

    def insert(self, starts: Ints, lengths: Ints, priorities: Floats | None) -> None:
        """Adds items whose windows begin at rows `starts`; others make room if need be.

        The limiter is counted, not asked. What goes in at once and what goes in one by one leaves
        the same items.
        """
        count = len(starts)
        if priorities is None:
            priorities = np.full(count, self._highest or 1.0)
        self._highest = max(self._highest, float(priorities.max(initial=0.0)))
        victims, survivors = self._evictor.make_room(
            self.config.max_size - self.size, priorities, self._age
        )
        ages = np.arange(self._age, self._age + count)
        self._age += count
        self.limiter.inserts += count
        if survivors is not None:
            starts, lengths = starts[survivors], lengths[survivors]
            priorities, ages = priorities[survivors], ages[survivors]
        self.store.hold(self._rows(starts, lengths))
        if len(victims):
            reused = len(starts) >= len(victims)  # at once, each of their slots
            self._detach(victims, reused)
            self._forget(victims)
        self._place(starts, lengths, priorities, ages)

    def draw(self, count: int, hold: bool = False) -> Draw:
        """Draws `count` items; `can_sample(count)` holds.

        Args:
          count: of items.
          hold: their steps stay as they are until `done`, whatever happens meanwhile.
        """
        size = self.size
        spent: Ints | None = None
        if self.config.max_times_sampled is None:
            drawn = self._selector.draw(count, self._rng, None)
            np.add.at(self.slots.times, drawn.slots, 1)
        else:
            drawn, spent = self._draw_limited(count, self.config.max_times_sampled)
        slots, probabilities, offsets = drawn
        self.limiter.samples += count
        items = self.slots.read(slots)
        starts, lengths = items.starts, items.lengths
        if offsets is not None:
            starts = self.store.advance(starts, offsets)
            lengths = np.full(count, self.config.view.rows)
        info = SampleInfo(
            keys=items.keys,
            probabilities=probabilities,
            priorities=items.priorities,
            times_sampled=items.times,
            size=size,
        )
        if hold:
            self.store.hold(self._rows(starts, lengths))
        if spent is not None and len(spent):
            self._forget(spent)
        return Draw(info, starts, lengths)

    def read(self, draw: Draw, arena: Arena | None = None) -> Sample:
        """The drawn items, before anything else happens to the table, or while they are held.

        Needs no lock while they are held: nobody writes to their steps.
        """
        info = draw.info
        data = self.config.view.gather(self.store, draw.starts, draw.lengths, arena)
        if arena is not None:
            info = SampleInfo(
                keys=arena.copy(info.keys),
                probabilities=arena.copy(info.probabilities),
                priorities=arena.copy(info.priorities),
                times_sampled=arena.copy(info.times_sampled),
                size=info.size,
            )
        return Sample(data, info)

    def done(self, draw: Draw) -> None:
        """Lets go of what `draw` held."""
        self.store.release(self._rows(draw.starts, draw.lengths))

    def update_priorities(self, keys: Array, priorities: Array) -> int:
        """New priorities for the items that are still there; says how many are.

        Raises:
          UsageError: a priority is negative or not finite; nothing was changed.
        """
        priorities = self.config.check_priorities(priorities, len(keys))
        slots, live = self.slots.find(keys)
        if not live.all():
            slots, priorities = slots[live], priorities[live]
        if len(slots) == 0:
            return 0
        if len(distinct(slots)) != len(slots):  # of a repeated key the last counts
            slots, last = np.unique(slots[::-1], return_index=True)
            priorities = priorities[::-1][last]
        self._highest = max(self._highest, float(priorities.max()))
        self.slots.priorities[slots] = priorities
        self._evictor.note(slots, priorities, self.slots.ages[slots])
        if self._selector.uses_priorities:
            self._count(slots, -1)
            self.slots.weights[slots] = self._selector.weigh(priorities, self.slots.lengths[slots])
            self._selector.set(slots, self.slots.weights[slots])
            self._count(slots, 1)
        return int(np.count_nonzero(live))

    def remove(self, keys: Array) -> int:
        """Removes the items that are still there; says how many were."""
        slots, live = self.slots.find(keys)
        slots = distinct(slots[live])
        if len(slots):
            self._remove(slots)
        return len(slots)

    def evict(self, count: int) -> int:
        """Lets the `count` oldest items make room for steps; says how many there were."""
        slots = self._order.oldest(min(count, self.size))
        if len(slots):
            self._remove(slots)
        return len(slots)

    def keys(self) -> Ints:
        """The keys of all items, oldest first."""
        return self.slots.keys(self._order.all())

    def save(self) -> dict[str, Any]:
        """Everything but the steps, as arrays and scalars."""
        counters = {name.strip("_"): getattr(self, name) for name in _COUNTERS}
        return {
            **counters,
            "max_size": self.config.max_size,
            "slots": self.slots.save(),
            "order": self._order.save(),
            "limiter": self.limiter.save(),
            "random": save_generator(self._rng),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""
        for name in _COUNTERS:
            setattr(self, name, type(getattr(self, name))(state[name.strip("_")]))
        self.slots.restore(state["slots"])
        self._order.restore(state["order"])
        self.limiter.restore(state["limiter"])
        restore_generator(self._rng, state["random"])
        slots = self._order.all()
        self._selector = self.config.sampler.selector(self.config.max_size, self._order)
        self._evictor = self.config.remover.evictor(self._order, self.slots.age_of)
        self._selector.set(slots, self.slots.weights[slots])
        self._evictor.note(slots, self.slots.priorities[slots], self.slots.ages[slots])

    def _longest(self) -> int:
        return self._window or self.store.capacity

    def _rows(self, starts: Ints, lengths: Ints) -> Ints:
        return self.store.rows_of(starts, lengths, self._window or int(lengths.max(initial=1)))

    def _count(self, slots: Ints, sign: int) -> None:
        """Counts which of `slots` can be drawn, and how often."""
        drawable = self.slots.weights[slots] > 0
        self._num_drawable += sign * int(np.count_nonzero(drawable))
        if self.config.max_times_sampled is not None:
            remaining = self.config.max_times_sampled - self.slots.times[slots]
            self._num_draws += sign * int(remaining[drawable].sum())

    def _draw_limited(self, count: int, limit: int) -> tuple[Drawn, Ints]:
        """Draws items as long as each may still be drawn; those drawn up leave the table.

        Drawing from all and taking back what is too much is drawing from those that are left.
        """
        times = self.slots.times
        parts: list[Drawn] = []
        gone: list[Ints] = []
        while count:
            drawn = self._selector.draw(
                count, self._rng, lambda slots: limit - self.slots.times[slots]
            )
            keep = np.flatnonzero(_ranks(drawn.slots) < limit - self.slots.times[drawn.slots])
            offsets = None if drawn.offsets is None else drawn.offsets[keep]
            drawn = Drawn(drawn.slots[keep], drawn.probabilities[keep], offsets)
            np.add.at(times, drawn.slots, 1)
            parts.append(drawn)
            count -= len(keep)
            self._num_draws -= len(keep)
            spent = distinct(drawn.slots[times[drawn.slots] >= limit])
            self._detach(spent)
            gone.append(spent)
        drawn = Drawn(
            np.concatenate([part.slots for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
            _concatenate([part.offsets for part in parts if part.offsets is not None]),
        )
        return drawn, np.concatenate(gone)

    def _place(self, starts: Ints, lengths: Ints, priorities: Floats, ages: Ints) -> None:
        known = self.slots
        slots = known.take(len(starts))
        known.ages[slots] = ages
        known.starts[slots] = starts
        known.lengths[slots] = lengths
        known.priorities[slots] = priorities
        known.weights[slots] = weights = self._selector.weigh(priorities, lengths)
        self._order.append(slots)
        self._selector.set(slots, weights)
        self._evictor.note(slots, priorities, ages)
        self._count(slots, 1)

    def _remove(self, slots: Ints) -> None:
        self._detach(slots)
        self._forget(slots)

    def _detach(self, slots: Ints, reused: bool = False) -> None:
        """The items of `slots` will not be drawn again; others will, if they are `reused`."""
        self._count(slots, -1)
        self._order.remove(slots)
        if not reused:
            self._selector.remove(slots)

    def _forget(self, slots: Ints) -> None:
        """Lets go of the steps, and of the slots."""
        self.store.release(self._rows(self.slots.starts[slots], self.slots.lengths[slots]))
        self.slots.free(slots)


_COUNTERS = ("_age", "_num_drawable", "_num_draws", "_highest")


def _concatenate(parts: list[Ints]) -> Ints | None:
    return np.concatenate(parts) if parts else None


def _ranks(slots: Ints) -> Ints:
    """How often each slot stands before its place: `[7, 3, 7, 7] -> [0, 0, 1, 2]`."""
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    groups = np.repeat(starts, np.diff(np.append(starts, len(slots))))
    ranks = np.empty(len(slots), np.int64)
    ranks[order] = np.arange(len(slots)) - groups
    return ranks
