"""Cuts episodes into transitions, n-step transitions or sequences, and sends them in batches.

An adder stands in the actor. Every step is written into a local buffer and sent once; what the
items are is sent beside them as places and lengths.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import numpy as np

import lpml
from lpml.errors import UsageError
from lpml.nodes.replay.cuts import AbstractCut
from lpml.nodes.replay.service import AbstractReplay, ReplayTimeout
from lpml.nodes.replay.signature import Field, Ints
from lpml.nodes.replay.streams import Insert, Items, UnknownWriter
from lpml.nodes.replay.views import Step

_ATTEMPT_SECONDS = 20.0  # an insert waits so long in the replay, then is sent again


class _Lane:
    """One environment: what the replay holds of it, and which windows were cut."""

    __slots__ = ("begin", "ends", "held", "length", "open", "starts")

    def __init__(self, tables: int) -> None:
        self.length = 0  # complete rows in the buffer
        self.open = False  # an observation stands in row `length`
        self.ends: list[int] = []  # rows of the buffer before which an episode ends
        self.held = 0  # rows in the replay, before those of the buffer
        # Places count from the first held row:
        self.begin = 0  # of the episode; may be negative
        self.starts = [0] * tables  # of the next window of each table


class _Cut(NamedTuple):
    """What one lane contributes to an insert."""

    lane: int
    held: int
    rows: int
    keep: int
    windows: list[tuple[Ints, Ints]]  # per table: places from the first held row, and lengths


@final
class Adder:
    """Writes the steps of one or more environments into the tables of a replay.

    ::

        adder = Adder(replay, {"replay": CutTransitions(n_step=3)})
        adder.first(observation)
        adder.add(action, reward, discount, next_observation, last=done)

    Args:
      replay: where to; its tables take `Step`s of one signature.
      cuts: how each table's items are cut, `{table: cut}`.
      num_envs: `None` = one environment, whose arrays have no leading axis; a number = so many,
        `[E, ...]`, each with its own episodes.
      steps_per_insert: how many steps are collected before they are sent; `None` = 64, and at
        least 16 of each environment.
      priority: of new items; `None` = the highest that the table has seen.
      timeout: seconds that a full buffer may wait for the limiter; `None` = as long as it takes.

    Raises:
      UsageError: the tables' steps differ, or are no `Step`.
    """

    def __init__(
        self,
        replay: AbstractReplay,
        cuts: Mapping[str, AbstractCut],
        *,
        num_envs: int | None = None,
        steps_per_insert: int | None = None,
        priority: float | None = None,
        timeout: float | None = None,
    ) -> None:
        signatures = [replay.signature(table) for table in cuts]
        if not signatures or any(other != signatures[0] for other in signatures):
            raise UsageError(f"Adder: tables {list(cuts)}; give at least one, of one signature")
        layout = signatures[0].unflatten(range(len(signatures[0].fields)))
        if not isinstance(layout, Step):
            raise UsageError(f"Adder: {signatures[0]!r} is no lpml.nodes.replay.Step")
        self._replay = replay
        self._cuts = dict(cuts)
        self._signature = signatures[0]
        self._lead: tuple[int, ...] = () if num_envs is None else (num_envs,)
        self._num_envs = num_envs or 1
        steps_per_insert = steps_per_insert or max(64, 16 * self._num_envs)
        self._steps_per_insert = steps_per_insert
        self._total = 0  # steps in the buffer
        self._shapes = [(*self._lead, *field.shape) for field in self._signature.fields]
        self._priority = priority
        self._timeout = timeout
        self._writer = secrets.randbits(62)
        self._number = 0
        self._rows = -(-steps_per_insert // self._num_envs) + 3
        self._buffers = [
            np.zeros((self._num_envs, self._rows, *field.shape), field.dtype)
            for field in self._signature.fields
        ]
        self._lanes = [_Lane(len(self._cuts)) for _ in range(self._num_envs)]
        self._all = np.arange(self._num_envs)
        self._split = _count_leaves(layout.observation)
        self._pending: Insert | None = None
        self._caller = lpml.context().name

    def first(self, observation: Any, envs: Any = None) -> None:
        """Begins episodes.

        Args:
          observation: the first one, `[...]`, or `[E, ...]` of all environments.
          envs: mask `[E]` of those that begin; `None` = all.
        """
        chosen = self._all if envs is None else np.flatnonzero(envs)
        for lane in chosen.tolist():
            if self._lanes[lane].open:
                raise UsageError(
                    f"Adder.first: the episode of environment {lane} has not ended; say last=True "
                    "in its last add"
                )
            self._lanes[lane].open = True
        self._write_observation(observation, chosen)

    def add(
        self,
        action: Any,
        reward: Any,
        discount: Any,
        next_observation: Any,
        extras: Any = (),
        *,
        last: Any = False,
        envs: Any = None,
    ) -> None:
        """What followed the last observation. Sends the buffer when it is full.

        Args:
          action: taken, `[...]` or `[E, ...]`; so are all that follow.
          reward: after the action.
          discount: 0 where the episode ended for good, else 1 (also where time cut it off).
          next_observation: of the same episode, the last one too.
          extras: of this step.
          last: whether the episode ended, for good or by time; `first` begins the next.
          envs: mask `[E]` of those that stepped; `None` = all.

        Raises:
          UsageError: a field does not fit the signature; the message names it.
          ReplayTimeout: the limiter did not let the items in; call `flush` to try again.
        """
        chosen = self._all if envs is None else np.flatnonzero(envs)
        lanes = self._lanes if envs is None else [self._lanes[lane] for lane in chosen.tolist()]
        if not all(lane.open for lane in lanes):
            raise UsageError("Adder.add: an environment has no episode; call first")
        leaves = self._signature.flatten(
            Step(next_observation, action, reward, discount, extras), "Adder.add"
        )
        places = np.array([lane.length for lane in lanes], np.int64)
        for index in range(self._split, len(leaves)):
            self._write(index, leaves[index], chosen, places)
        for lane in lanes:
            lane.length += 1
        self._total += len(lanes)
        for index in range(self._split):
            self._write(index, leaves[index], chosen, places + 1)
        if last is not False:
            for number in self._ended(last, chosen):
                lane = self._lanes[number]
                for buffer in self._buffers[self._split :]:
                    buffer[number, lane.length] = 0
                lane.length += 1
                self._total += 1
                lane.ends.append(lane.length)
                lane.open = False
        longest = max([lane.length for lane in lanes], default=0)
        if self._total >= self._steps_per_insert or longest + 3 > self._rows:
            self.flush()

    def flush(self, timeout: float | None = None) -> None:
        """Sends what is in the buffer, and waits until the limiter has let it in.

        Args:
          timeout: seconds; `None` = that of the adder.

        Raises:
          ReplayTimeout: it has not; what is left is sent by the next `flush`.
        """
        timeout = self._timeout if timeout is None else timeout
        clock = lpml.context().clock
        end = None if timeout is None else clock.time() + timeout
        if self._pending is not None:
            self._send(self._pending, end)
        cuts = [self._cut(number, lane) for number, lane in enumerate(self._lanes) if lane.length]
        if not cuts:
            return
        insert = self._make_insert(cuts)
        self._total = 0
        for cut in cuts:
            self._advance(self._lanes[cut.lane], cut.lane, cut)
        self._send(insert, end)

    def close(self, timeout: float | None = None) -> None:
        """Sends what is left and leaves the replay; an open episode stays as it is."""
        try:
            self.flush(timeout)
        finally:
            self._replay.close_writer(self._writer)

    def _ended(self, last: Any, chosen: Ints) -> list[int]:
        """Which of the environments ended."""
        if np.ndim(last) == 0:
            return chosen.tolist() if last else []
        return [number for number in chosen.tolist() if last[number]]

    def _send(self, insert: Insert, end: float | None) -> None:
        """Sends until it is in. It stays pending until then."""
        self._pending = insert
        clock = lpml.context().clock
        while True:
            left = None if end is None else max(0.0, end - clock.time())
            attempt = _ATTEMPT_SECONDS if left is None else min(left, _ATTEMPT_SECONDS)
            try:
                self._replay.insert(insert, attempt, self._caller)
                break
            except UnknownWriter:
                self._replay.close_writer(self._writer)
                self._writer = secrets.randbits(62)
                self._pending = insert = self._without_held(insert)
            except ReplayTimeout:
                clock.check()
                if left is not None and left <= attempt:
                    raise
        self._number = insert.number + 1
        self._pending = None

    def _cut(self, number: int, lane: _Lane) -> _Cut:
        total = lane.held + lane.length
        windows: list[tuple[Ints, Ints]] = []
        kept = total
        for table, cut in enumerate(self._cuts.values()):
            start, begin = lane.starts[table], lane.begin
            parts: list[tuple[Ints, Ints]] = []
            ends = [] if cut.spans_episodes else lane.ends
            for place in [lane.held + end for end in ends]:
                parts.append(cut.cut(start, place, start == begin, True)[:2])
                start = begin = place
            starts, lengths, start = cut.cut(start, total, start == begin, False)
            parts.append((starts, lengths))
            windows.append(
                (
                    np.concatenate([part[0] for part in parts]),
                    np.concatenate([part[1] for part in parts]),
                )
            )
            lane.starts[table] = start
            kept = min(kept, start)
        if lane.ends:
            lane.begin = lane.held + lane.ends[-1]
        return _Cut(number, lane.held, lane.length, total - kept, windows)

    def _make_insert(self, cuts: list[_Cut]) -> Insert:
        rows = [(cut.lane, slice(0, cut.rows)) for cut in cuts]
        columns = [np.concatenate([buffer[place] for place in rows]) for buffer in self._buffers]
        bases = np.cumsum([0, *(cut.held + cut.rows for cut in cuts)]).tolist()
        items = {}
        for table, name in enumerate(self._cuts):
            starts = [cut.windows[table][0] + base for cut, base in zip(cuts, bases, strict=False)]
            lengths = np.concatenate([cut.windows[table][1] for cut in cuts])
            priorities = None
            if self._priority is not None:
                priorities = np.full(len(lengths), self._priority, np.float64)
            items[name] = Items(np.concatenate(starts), lengths, priorities)
        return Insert(
            writer=self._writer,
            number=self._number,
            steps=self._signature.unflatten(columns),
            lanes=np.array([cut.lane for cut in cuts], np.int64),
            counts=np.array([cut.rows for cut in cuts], np.int64),
            held=np.array([cut.held for cut in cuts], np.int64),
            keep=np.array([cut.keep for cut in cuts], np.int64),
            items=items,
        )

    def _advance(self, lane: _Lane, number: int, cut: _Cut) -> None:
        """The buffer is empty again; only the open observation stays."""
        if lane.open:
            for buffer in self._buffers[: self._split]:
                buffer[number, 0] = buffer[number, lane.length]
        shift = cut.held + cut.rows - cut.keep
        lane.starts = [start - shift for start in lane.starts]
        lane.begin -= shift
        lane.held = cut.keep
        lane.length = 0
        lane.ends = []

    def _without_held(self, insert: Insert) -> Insert:
        """The insert of a new writer: without the items that reach into steps that are gone."""
        sizes = insert.held + insert.counts
        ends = np.cumsum(sizes)
        lost = np.cumsum(insert.held)
        items = {}
        for name, (starts, lengths, priorities) in insert.items.items():
            of = np.searchsorted(ends, starts, "right")  # the lane of each item
            stays = starts - (ends - sizes)[of] >= insert.held[of]
            items[name] = Items(
                (starts - lost[of])[stays],
                lengths[stays],
                None if priorities is None else priorities[stays],
            )
        keep = np.minimum(insert.keep, insert.counts)
        for number, lane in enumerate(self._lanes):
            place = np.flatnonzero(insert.lanes == number)
            gone = lane.held - (int(keep[place[0]]) if len(place) else 0)
            lane.held -= gone
            lane.begin -= gone
            lane.starts = [max(0, start - gone) for start in lane.starts]
        held = np.zeros_like(insert.held)
        return insert._replace(writer=self._writer, number=0, held=held, keep=keep, items=items)

    def _write_observation(self, observation: Any, chosen: Ints) -> None:
        layout = self._signature.unflatten(self._signature.fields)
        rest = Step(observation, *layout[1:])
        self._write_leaves(self._signature.flatten(rest, "Adder.first")[: self._split], chosen)

    def _write_leaves(self, leaves: list[Any], chosen: Ints) -> None:
        places = np.array([self._lanes[lane].length for lane in chosen.tolist()])
        for index, leaf in enumerate(leaves):
            self._write(index, leaf, chosen, places)

    def _write(self, index: int, value: Any, chosen: Ints, places: Ints) -> None:
        field = self._signature.fields[index]
        array = np.asarray(value)
        if array.shape != self._shapes[index]:
            raise self._misfit(field, array)
        if array.dtype != field.dtype and not np.can_cast(array.dtype, field.dtype, "same_kind"):
            raise self._misfit(field, array)
        if not self._lead:
            self._buffers[index][0, places[0]] = array
        elif len(chosen) == self._num_envs:
            self._buffers[index][chosen, places] = array
        else:
            self._buffers[index][chosen, places] = array[chosen]

    def _misfit(self, field: Field, array: Any) -> UsageError:
        expected = f"{field.dtype.name}{[*self._lead, *field.shape]}"
        return UsageError(
            f"Adder: field {field.name!r} is {array.dtype.name}{list(array.shape)}, the tables "
            f"{list(self._cuts)} take {expected}; convert it, or change their signature"
        )


def _count_leaves(tree: Any) -> int:
    """Leaves of a tree of integers."""
    if isinstance(tree, Mapping):
        return sum(_count_leaves(child) for child in tree.values())
    if isinstance(tree, (tuple, list)):
        return sum(_count_leaves(child) for child in tree)
    return 0 if tree is None else 1
