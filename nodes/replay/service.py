"""Replay: tables and their limiters as a service, which waits, measures and is saved."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, final

import numpy as np

import lpml
from lpml.errors import UsageError, closest
from lpml.nodes.replay.compact import Arena
from lpml.nodes.replay.config import TableConfig
from lpml.nodes.replay.limiter import AbstractLimiter
from lpml.nodes.replay.protocol import ReplayStatistics
from lpml.nodes.replay.sample import Sample
from lpml.nodes.replay.signature import Array, Floats, Signature
from lpml.nodes.replay.steps import StepStore
from lpml.nodes.replay.streams import Insert, Items, Streams, WriterRecord
from lpml.nodes.replay.waiting import Patience, Served, WaitingRoom
from lpml.wire.outgoing import room_for_result

_LARGE = 1 << 19  # bytes of a batch from which it is read without the lock
_REPORT_SECONDS = 2.0


class _Entry(NamedTuple):
    """What an insert brings to one table."""

    name: str
    one: Served
    items: Items
    priorities: Floats | None
    """Checked."""


@final
class Replay:
    """Experience, in tables.

    Every method may be called by many at once. Those who wait for the limiter of a table are
    served in the order in which they came. A blocking method takes `timeout` in seconds
    (`None` = until the deadline of the call), ends when the program stops, and has changed
    nothing when it raises, unless it says otherwise.

    Args:
      tables: at least one; names differ.

    Raises:
      UsageError: there is no table, or two have one name.
      LaunchError: main memory, or a table's folder, cannot hold the steps.
    """

    lpml_role: ClassVar[str] = "replay"

    def __init__(self, tables: list[TableConfig]) -> None:
        names = [config.name for config in tables]
        if not names or len(set(names)) != len(names):
            raise UsageError(f"Replay: tables {names}; give at least one, each with its own name")
        context = lpml.context()
        self._context = context
        self._clock = context.clock
        self._room = WaitingRoom(context.clock)
        self._reported = self._clock.time()
        self._stores = _make_stores(tables)
        streams = {id(store): Streams(store) for store in self._stores.values()}
        self._streams = list(streams.values())
        self._tables: dict[str, Served] = {}
        for config in tables:
            store = self._stores[config.signature, config.folder]
            self._tables[config.name] = Served(config, store, streams[id(store)])

    @lpml.concurrent
    @lpml.idempotent
    def insert(self, insert: Insert, timeout: float | None = None, caller: str = "") -> None:
        """Stores steps once and the items that are made of them; made by a `Writer`.

        Items go in one after another as the limiters let them. After an error that comes while
        it waits, the same insert may be sent again and goes on where it stopped; an insert that
        was done is not done twice.

        Raises:
          ReplayTimeout: a limiter let not all items in.
          UnknownWriter: the insert builds on steps that are not here.
          UsageError: a field, an item or a priority is wrong; nothing was stored.
        """
        served = [self._served(name) for name in insert.items]
        if not served or len({id(one.streams) for one in served}) != 1:
            raise UsageError(
                f"insert into tables {list(insert.items)}: name at least one, all of one signature"
            )
        first = served[0]
        streams = first.streams
        columns, length = first.table.store.signature.columns(insert.steps, "insert")
        patience = self._room.patience(caller, timeout)
        with self._room:
            record = streams.record(insert)
            if insert.number > record.number:
                self._room.await_turn(first, record, insert, patience)
            if insert.number < record.number:
                return  # done before
            entries = [
                _Entry(name, one, items, one.table.check_items(items.lengths, items.priorities))
                for one, (name, items) in zip(served, insert.items.items(), strict=True)
            ]
            if record.chain is None:
                streams.check(record, insert, length)
                self._make_room(first, length, patience)
                if record.number != insert.number:
                    return
                if record.chain is None:
                    streams.begin(record, insert, columns)
            for entry in entries:
                if not self._admit(entry, record, insert.number, patience):
                    return
            streams.finish(record, insert)
            self._room.wake()
        self._report()

    @lpml.concurrent
    def add(
        self,
        table: str,
        steps: Any,
        priorities: Array | None = None,
        timeout: float | None = None,
        caller: str = "",
    ) -> None:
        """Stores steps `[N, ...]`, each an item of its own; for data that has no episodes.

        Args:
          table: its view is `Steps()`.
          steps: columns with one row per step.
          priorities: `[N]`; `None` = the highest that the table has seen.
          timeout: seconds.
          caller: for messages.

        Raises:
          ReplayTimeout: the limiter let not all items in; the first ones are.
          UsageError: a field or a priority is wrong; nothing was stored.
        """
        one = self._served(table)
        store = one.table.store
        columns, length = store.signature.columns(steps, f"add to table {table!r}")
        checked = one.table.check_items(np.ones(length, np.int64), priorities)
        patience = self._room.patience(caller, timeout)
        with self._room:
            done = 0
            while done < length:
                allowed = self._room.await_insert(one, length - done, patience)
                allowed = min(allowed, store.capacity)
                self._make_room(one, allowed, patience)
                part = slice(done, done + allowed)
                rows = store.append([column[part] for column in columns], allowed)
                ones = np.ones(allowed, np.int64)
                one.table.insert(rows, ones, None if checked is None else checked[part])
                store.release(rows)
                done += allowed
                self._room.wake()
        self._report()

    @lpml.concurrent
    def sample(
        self, table: str, batch_size: int, timeout: float | None = None, caller: str = ""
    ) -> Sample:
        """Draws a batch, all at one moment.

        Returns:
          Contiguous arrays `[B, ...]` as the table's view reads them, and what is known of each
          item.

        Raises:
          ReplayTimeout: the limiter, or a lack of items, did not let it happen in time.
          UsageError: so large a batch can never be drawn.
        """
        one = self._served(table)
        state = one.table
        large = one.item_bytes * batch_size > _LARGE
        patience = self._room.patience(caller, timeout)
        with self._room:
            state.check_batch(batch_size)
            self._room.await_sample(one, batch_size, patience)
            draw = state.draw(batch_size, hold=large)
            sample = None if large else state.read(draw)
            self._room.wake()
        if sample is None:
            try:
                # others go on meanwhile
                arena = Arena(room_for_result(one.block_bytes.get(batch_size, 0)))
                sample = state.read(draw, arena)
                one.block_bytes[batch_size] = arena.size
            finally:
                with self._room:
                    state.done(draw)
                    self._room.wake()
        self._report()
        return sample

    @lpml.concurrent
    def update_priorities(self, table: str, keys: Array, priorities: Array) -> int:
        """New priorities for items that are still there; says how many are. Never waits.

        Raises:
          UsageError: a priority is negative or not finite; nothing was changed.
        """
        one = self._served(table)
        with self._room:
            count = one.table.update_priorities(keys, priorities)
            self._room.wake()
        return count

    @lpml.concurrent
    def remove(self, table: str, keys: Array) -> int:
        """Removes items that are still there; says how many were. Never waits."""
        one = self._served(table)
        with self._room:
            count = one.table.remove(keys)
            self._room.wake()
        return count

    @lpml.concurrent
    def set_limiter(self, table: str, limiter: AbstractLimiter) -> None:
        """Enforces another limiter from now on, for those who wait too.

        The proportion is counted anew, as if it had been kept so far.

        Raises:
          UsageError: the table could never satisfy it.
        """
        one = self._served(table)
        config = one.table.config
        for fault in limiter.faults(config.max_size, config.max_times_sampled):
            raise UsageError(f"table {table!r} could never be sampled: {fault}")
        with self._room:
            one.table.limiter.change(limiter, one.table.size)
            self._room.wake()

    @lpml.concurrent
    def signature(self, table: str) -> Signature:
        """The fields of a step of the table."""
        signature = self._served(table).table.config.signature
        assert isinstance(signature, Signature)
        return signature

    @lpml.concurrent
    def close_writer(self, writer: int) -> None:
        """Lets go of the steps that are held for a writer which will write no more."""
        with self._room:
            for streams in self._streams:
                streams.close(writer)
            self._room.wake()

    @lpml.concurrent
    def statistics(self) -> ReplayStatistics:
        """Sizes and counters, and who waits for what, since when."""
        with self._room:
            now = self._clock.time()
            stores = list(self._stores.values())
            return ReplayStatistics(
                tables={name: one.statistics(now) for name, one in self._tables.items()},
                steps=sum(store.capacity - store.available for store in stores),
                max_steps=sum(store.capacity for store in stores),
                num_bytes=sum(store.num_bytes for store in stores),
            )

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """Everything, exactly: a tree of arrays and scalars. A restored replay goes on the same."""
        with self._room:
            return {
                "tables": {name: one.table.save() for name, one in self._tables.items()},
                "stores": [store.save() for store in self._stores.values()],
                "writers": [streams.save() for streams in self._streams],
            }

    @lpml.concurrent
    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` of a replay with the same tables returned.

        Raises:
          UsageError: the tables differ; nothing was changed.
        """
        with self._room:
            self._check_saved(state)
            for store, saved in zip(self._stores.values(), state["stores"], strict=True):
                store.restore(saved)
            for name, one in self._tables.items():
                one.table.restore(state["tables"][name])
            for streams, writers in zip(self._streams, state["writers"], strict=True):
                streams.restore(writers)
            self._room.wake()

    def _served(self, name: str) -> Served:
        if name not in self._tables:
            raise UsageError(f"no table {name!r}{closest(name, list(self._tables))}")
        return self._tables[name]

    def _admit(self, entry: _Entry, record: WriterRecord, number: int, patience: Patience) -> bool:
        """Lets the items in, as the limiter does; False if somebody else did so meanwhile."""
        starts, lengths, _ = entry.items
        name, priorities = entry.name, entry.priorities
        while record.number == number and record.progress[name] < len(starts):
            wanted = len(starts) - record.progress[name]
            allowed = self._room.await_insert(entry.one, wanted, patience)
            if record.number != number or record.chain is None:
                break
            done = record.progress[name]
            part = slice(done, min(done + allowed, len(starts)))
            entry.one.table.insert(
                record.chain[starts[part]],
                lengths[part],
                None if priorities is None else priorities[part],
            )
            record.progress[name] = part.stop
            self._room.wake()
        return record.number == number

    def _make_room(self, one: Served, count: int, patience: Patience) -> None:
        store = one.table.store
        if store.available < count:
            sharing = [other for other in self._tables.values() if other.table.store is store]
            self._room.make_room(one, sharing, count, patience)

    def _check_saved(self, state: dict[str, Any]) -> None:
        saved = {name: int(table["max_size"]) for name, table in state["tables"].items()}
        mine = {name: one.table.config.max_size for name, one in self._tables.items()}
        fields = [sorted(store["columns"]) for store in state["stores"]]
        expected = [sorted(f.name for f in s.signature.fields) for s in self._stores.values()]
        if saved != mine or fields != expected:
            raise UsageError(
                f"restore: saved were tables {saved} with fields {fields}, this replay has {mine} "
                f"with {expected}; make it with the same tables"
            )

    def _report(self) -> None:
        """Logs the state of the tables every other second, for `lpml ps` and the curves."""
        now = self._clock.time()
        if now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        self._context.log(self.statistics().metrics())


def _make_stores(
    tables: list[TableConfig],
) -> dict[tuple[Signature, str | None], StepStore]:
    capacities: dict[tuple[Signature, str | None], int] = {}
    for config in tables:
        key = (config.signature, config.folder)
        capacities[key] = capacities.get(key, 0) + config.steps
    return {key: StepStore(key[0], size, key[1]) for key, size in capacities.items()}
