"""What an adder has been told and has not sent: one entry a vector step, rows when they are sent.

A step of E environments is written as it comes, `[E, ...]`, one copy a field. Only when the log is
taken are its entries laid out as rows, one environment after the other: an observation and what
followed it stand in neighbouring entries, and the last observation of an episode becomes a row of
its own. So a step costs the same however many environments there are, up to its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from lpml.errors import UsageError
from lpml.nodes.replay.rows import Rows, lay_out, take_rows
from lpml.nodes.replay.signature import Array, Bools, Field, Floats, Signature
from lpml.nodes.replay.views import Step


@final
class StepLog:
    """Entries of `num_envs` environments.

    Args:
      signature: of a `Step`.
      num_envs: `None` = one environment, whose arrays have no leading axis.
      entries: room for so many at first; grows.
      who: for messages.

    Raises:
      UsageError: the signature is of something else.
    """

    def __init__(
        self, signature: Signature, num_envs: int | None, entries: int, who: str = "Adder"
    ) -> None:
        layout = signature.unflatten(signature.fields)
        if not isinstance(layout, Step):
            raise UsageError(f"{who}: {signature!r} is no lpml.nodes.replay.Step")
        self._signature = signature
        self._layout = layout
        self._who = who
        self._lead = () if num_envs is None else (num_envs,)
        self._num_envs = num_envs or 1
        self._split = _count_leaves(layout.observation)  # these fields are of the observation
        self._names = _names(layout)
        self._dtypes = [{field.dtype} for field in signature.fields]  # that may be written
        self._entries = max(3, entries)
        shape = (self._entries, self._num_envs)
        # Entry k holds an observation and, besides, what came before it: the step that led there.
        # Entry 0 is the last observation that was sent already; its other fields stay zero.
        self._buffers = [
            np.zeros((*shape, *field.shape), field.dtype) for field in signature.fields
        ]
        self._priorities: Floats | None = None
        self._prioritised: bool | None = None  # whether steps have a priority; not known at first
        self._observed = np.ones(shape, np.bool_)  # entry k has a new observation
        self._stepped = np.ones(shape, np.bool_)  # and a step that led to it
        self._ended = np.zeros(shape, np.bool_)  # and no step follows
        self._open = np.zeros(self._num_envs, np.bool_)  # environments in an episode
        self._next = 1  # entry
        self._even = True  # all entries are steps of all environments, and none ended
        self._all_open = False
        self.size = 0
        """Rows so far."""
        self._fields: list[tuple[Field, tuple[int, ...], set[np.dtype[Any]], Any]] = []
        self._bind()

    def first(self, observation: Any, envs: Any = None) -> None:
        """Episodes begin, in `envs` (a mask `[E]`; `None` = all).

        Raises:
          UsageError: one has not ended yet, or the observation does not fit.
        """
        mask = self._mask(envs)
        if (self._open & mask).any():
            number = int(np.flatnonzero(self._open & mask)[0])
            raise UsageError(
                f"{self._who}.first: the episode of environment {number} has not ended; say "
                "last=True in its last add"
            )
        step = self._layout._replace(observation=observation)
        leaves = self._signature.flatten(step, f"{self._who}.first")
        entry = self._entry()
        self._write(entry, 0, leaves[: self._split])
        self._observed[entry] = mask
        self._stepped[entry] = False
        self._even = False
        self._next = entry + 1
        self._open |= mask
        self._all_open = bool(self._open.all())

    def add(self, step: Step, last: Any, envs: Any, priority: Any) -> None:
        """A step of `envs`: what followed the last observation, and the next observation.

        Raises:
          UsageError: an environment has no episode, or a field does not fit; nothing was taken.
        """
        entry = self._entry()
        names, extras = self._names, step[4]
        if names is not None and type(extras) is dict and tuple(extras) == names:
            leaves: Sequence[Any] = (*step[:4], *extras.values())
        elif names == () and type(extras) is tuple and not extras:
            leaves = step[:4]
        else:
            leaves = self._signature.flatten(step, f"{self._who}.add")
        count, mask = self._num_envs, None
        if envs is not None:
            mask = self._mask(envs)
            count = int(np.count_nonzero(mask))
            if not self._open[mask].all():
                raise self._closed()
        elif not self._all_open:
            raise self._closed()
        self._write(entry, 0, leaves)
        if priority is not None or self._prioritised is not False:
            self._prioritise(entry, priority)
        if last is not False and np.count_nonzero(last):
            count += self._end(entry, np.asarray(last), mask)
        if mask is not None:
            self._observed[entry] = self._stepped[entry] = mask
            self._even = False
        self._next = entry + 1
        self.size += count

    def take(self) -> Rows:
        """All rows; the log is empty then, but for the observations of open episodes."""
        if self._even:
            rows, latest = self._take_even(), self._next - 1
            for buffer in self._buffers[: self._split]:
                buffer[0] = buffer[latest]
        else:
            rows = self._take_any()
            self._observed[1 : self._next] = True
            self._stepped[1 : self._next] = True
            self._ended[1 : self._next] = False
            self._even = True
        self._next = 1
        self.size = 0
        return rows

    def _take_even(self) -> Rows:
        stop = self._next - 1
        columns = [lay_out(buffer[:stop]) for buffer in self._buffers[: self._split]]
        columns += [lay_out(buffer[1 : stop + 1]) for buffer in self._buffers[self._split :]]
        priorities = None
        if self._priorities is not None:
            priorities = lay_out(self._priorities[1 : stop + 1])
        nothing = np.empty(0, np.int64)
        return Rows(columns, priorities, np.full(self._num_envs, stop), nothing, nothing)

    def _take_any(self) -> Rows:
        stop = self._next
        # [E, K]: the entry that holds the latest observation, and which rows an entry gives
        entries = np.arange(stop)
        latest = np.maximum.accumulate(np.where(self._observed[:stop].T, entries, 0), axis=1)
        gives = np.stack([self._stepped[:stop].T, self._ended[:stop].T], axis=-1)
        gives[:, 0] = False
        lanes, places, is_end = np.nonzero(gives)
        observed = np.where(is_end, places, latest[lanes, places - 1]) * self._num_envs + lanes
        followed = np.where(is_end, 0, places * self._num_envs + lanes)
        columns = [take_rows(buffer, observed) for buffer in self._buffers[: self._split]]
        columns += [take_rows(buffer, followed) for buffer in self._buffers[self._split :]]
        priorities = None
        if self._priorities is not None:
            priorities = take_rows(self._priorities, followed)
        for buffer in self._buffers[: self._split]:
            buffer[0] = buffer[latest[:, -1], np.arange(self._num_envs)]
        counts = gives.sum((1, 2))
        ends = np.flatnonzero(is_end)
        before = (counts.cumsum() - counts)[lanes[ends]]  # rows of the environments before
        return Rows(columns, priorities, counts, lanes[ends], ends + 1 - before)

    def _end(self, entry: int, last: Array, mask: Bools | None) -> int:
        """Episodes end with this entry; says how many."""
        if last.shape not in ((), self._lead):
            raise UsageError(
                f"{self._who}.add: last has shape {list(last.shape)}, not {list(self._lead)}"
            )
        ended = last.astype(np.bool_)
        if mask is not None or not last.shape:
            ended = ended & (np.ones(self._num_envs, np.bool_) if mask is None else mask)
        self._ended[entry] = ended
        self._even = False
        self._open &= ~ended
        self._all_open = False
        return int(np.count_nonzero(ended))

    def _prioritise(self, entry: int, priority: Any) -> None:
        if self._prioritised is None:
            self._prioritised = priority is not None
            if priority is None:
                return
            self._priorities = np.zeros((self._entries, self._num_envs))
        if priority is None or self._priorities is None:
            raise UsageError(f"{self._who}.add: give a priority with every step or with none")
        array = np.asarray(priority, np.float64)
        if array.shape != self._lead:
            raise UsageError(
                f"{self._who}.add: priority has shape {list(array.shape)}, not {list(self._lead)}"
            )
        self._priorities[entry] = array

    def _write(self, entry: int, begin: int, leaves: Sequence[Any]) -> None:
        fields = self._fields
        for value in leaves:
            field, shape, dtypes, target = fields[begin]
            array = value if type(value) is np.ndarray else np.asarray(value)
            if array.shape != shape:
                raise self._misfit(field, array)
            if array.dtype not in dtypes:
                if not np.can_cast(array.dtype, field.dtype, "same_kind"):
                    raise self._misfit(field, array)
                dtypes.add(array.dtype)
            target[entry] = array
            begin += 1

    def _entry(self) -> int:
        if self._next == self._entries:
            self._grow()
        return self._next

    def _grow(self) -> None:
        self._buffers = [_doubled(buffer, 0) for buffer in self._buffers]
        self._observed = _doubled(self._observed, True)
        self._stepped = _doubled(self._stepped, True)
        self._ended = _doubled(self._ended, False)
        if self._priorities is not None:
            self._priorities = _doubled(self._priorities, 0)
        self._entries *= 2
        self._bind()

    def _bind(self) -> None:
        self._fields = [
            (field, (*self._lead, *field.shape), dtypes, buffer if self._lead else buffer[:, 0])
            for field, dtypes, buffer in zip(
                self._signature.fields, self._dtypes, self._buffers, strict=True
            )
        ]

    def _mask(self, envs: Any) -> Bools:
        if envs is None:
            return np.ones(self._num_envs, np.bool_)
        mask = np.asarray(envs)
        if mask.shape not in ((), self._lead) or mask.dtype != np.bool_:
            raise UsageError(
                f"{self._who}: envs is {mask.dtype.name}{list(mask.shape)}; give a mask "
                f"bool{list(self._lead)}"
            )
        return mask if mask.shape else np.full(self._num_envs, mask)

    def _closed(self) -> UsageError:
        return UsageError(f"{self._who}.add: an environment has no episode; call first")

    def _misfit(self, field: Field, array: Any) -> UsageError:
        expected = f"{field.dtype.name}{[*self._lead, *field.shape]}"
        return UsageError(
            f"{self._who}: field {field.name!r} is {array.dtype.name}{list(array.shape)}, the "
            f"tables take {expected}; convert it, or change their signature"
        )


def _doubled(buffer: Any, value: Any) -> Any:
    return np.concatenate([buffer, np.full_like(buffer, value)])


def _count_leaves(tree: Any) -> int:
    if isinstance(tree, Mapping):
        return sum(_count_leaves(child) for child in tree.values())
    if isinstance(tree, (tuple, list)):
        return sum(_count_leaves(child) for child in tree)
    return 0 if tree is None else 1


def _names(layout: Step) -> tuple[str, ...] | None:
    """The names of the extras where a step has its leaves at hand; else `None`."""
    if not all(isinstance(part, Field) for part in layout[:4]):
        return None
    extras = layout.extras
    if extras == ():
        return ()
    if type(extras) is dict and all(isinstance(part, Field) for part in extras.values()):
        return tuple(sorted(extras))
    return None
