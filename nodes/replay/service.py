"""Replay: tables and their limiters as a service, which waits, measures and is saved."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

import numpy as np

import lpml
from lpml.errors import UsageError, closest
from lpml.nodes.replay.compact import Arena
from lpml.nodes.replay.limiter import AbstractLimiter
from lpml.nodes.replay.protocol import Blocked, ReplayStatistics, ReplayTimeout, TableStatistics
from lpml.nodes.replay.signature import Array, Floats, Ints, Signature
from lpml.nodes.replay.steps import StepStore
from lpml.nodes.replay.streams import Insert, Streams, WriterRecord
from lpml.nodes.replay.table import Sample, Table, TableConfig
from lpml.wire.outgoing import room_for_result

_LARGE = 1 << 19  # bytes of a batch from which it is read without the lock
_REPORT_SECONDS = 2.0


class _Waiting:
    """A call in the queue of a table."""

    __slots__ = ("caller", "since", "what", "why")

    def __init__(self, what: str, caller: str, why: Callable[[], str], since: float) -> None:
        self.what = what
        self.caller = caller
        self.why = why
        self.since = since


class _Served:
    """A table with those who wait for it."""

    def __init__(self, config: TableConfig, store: StepStore, streams: Streams) -> None:
        self.table = Table(config, store)
        self.streams = streams
        self.queues: dict[str, deque[_Waiting]] = {"insert": deque(), "sample": deque()}
        self.seconds = {"insert": 0.0, "sample": 0.0}  # waited by those who are through
        self.block_bytes: dict[int, int] = {}  # {batch size: bytes of its arrays in an arena}
        view = config.view
        self.item_bytes = store.step_bytes * min(view.rows, 2 if view.rows < 17 else view.rows)


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
        self._condition = context.clock.condition()
        self._waiting = 0
        self._reported = self._clock.time()
        self._stores = _make_stores(tables)
        streams = {id(store): Streams(store) for store in self._stores.values()}
        self._streams = list(streams.values())
        self._tables: dict[str, _Served] = {}
        for config in tables:
            store = self._stores[config.signature, config.folder]
            self._tables[config.name] = _Served(config, store, streams[id(store)])

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
        streams, store = served[0].streams, served[0].table.store
        columns, length = store.signature.columns(insert.steps, "insert")
        end = self._end(timeout)
        with self._condition:
            record = streams.record(insert)
            if insert.number > record.number:
                self._await_turn(record, insert, end, caller)
            if insert.number < record.number:
                return  # done before
            checked = [
                one.table.check_items(items.lengths, items.priorities)
                for one, items in zip(served, insert.items.values(), strict=True)
            ]
            if record.chain is None:
                streams.check(record, insert, length)
                self._make_room(store, length, end, caller, served[0])
                if record.number != insert.number:
                    return
                if record.chain is None:
                    streams.begin(record, insert, columns)
            for one, (name, items), priorities in zip(
                served, insert.items.items(), checked, strict=True
            ):
                if not self._admit(
                    one,
                    name,
                    items.starts,
                    items.lengths,
                    priorities,
                    record,
                    insert.number,
                    end,
                    caller,
                ):
                    return
            streams.finish(record, insert)
            self._wake()
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
        end = self._end(timeout)
        with self._condition:
            done = 0
            while done < length:
                allowed = min(self._await_insert(one, length - done, end, caller), store.capacity)
                self._make_room(store, allowed, end, caller, one)
                part = slice(done, done + allowed)
                rows = store.append([column[part] for column in columns], allowed)
                ones = np.ones(allowed, np.int64)
                one.table.insert(rows, ones, None if checked is None else checked[part])
                store.release(rows)
                done += allowed
                self._wake()
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
        with self._condition:
            state.check_batch(batch_size)
            if one.queues["sample"] or not state.can_sample(batch_size):
                self._wait(
                    one,
                    "sample",
                    lambda: state.can_sample(batch_size),
                    lambda: state.why_no_sample(batch_size),
                    self._end(timeout),
                    caller,
                )
            draw = state.draw(batch_size, hold=large)
            sample = None if large else state.read(draw)
            self._wake()
        if sample is None:
            try:
                # others go on meanwhile
                arena = Arena(room_for_result(one.block_bytes.get(batch_size, 0)))
                sample = state.read(draw, arena)
                one.block_bytes[batch_size] = arena.size
            finally:
                with self._condition:
                    state.done(draw)
                    self._wake()
        self._report()
        return sample

    @lpml.concurrent
    def update_priorities(self, table: str, keys: Array, priorities: Array) -> int:
        """New priorities for items that are still there; says how many are. Never waits.

        Raises:
          UsageError: a priority is negative or not finite; nothing was changed.
        """
        one = self._served(table)
        with self._condition:
            count = one.table.update_priorities(keys, priorities)
            self._wake()
        return count

    @lpml.concurrent
    def remove(self, table: str, keys: Array) -> int:
        """Removes items that are still there; says how many were. Never waits."""
        one = self._served(table)
        with self._condition:
            count = one.table.remove(keys)
            self._wake()
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
        with self._condition:
            one.table.limiter.change(limiter, one.table.size)
            self._wake()

    @lpml.concurrent
    def signature(self, table: str) -> Signature:
        """The fields of a step of the table."""
        signature = self._served(table).table.config.signature
        assert isinstance(signature, Signature)
        return signature

    @lpml.concurrent
    def close_writer(self, writer: int) -> None:
        """Lets go of the steps that are held for a writer which will write no more."""
        with self._condition:
            for streams in self._streams:
                streams.close(writer)
            self._wake()

    @lpml.concurrent
    def statistics(self) -> ReplayStatistics:
        """Sizes and counters, and who waits for what, since when."""
        with self._condition:
            now = self._clock.time()
            stores = list(self._stores.values())
            return ReplayStatistics(
                tables={name: _statistics(name, one, now) for name, one in self._tables.items()},
                steps=sum(store.capacity - store.available for store in stores),
                max_steps=sum(store.capacity for store in stores),
                num_bytes=sum(store.num_bytes for store in stores),
            )

    @lpml.concurrent
    def save(self) -> dict[str, Any]:
        """Everything, exactly: a tree of arrays and scalars. A restored replay goes on the same."""
        with self._condition:
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
        with self._condition:
            self._check_saved(state)
            for store, saved in zip(self._stores.values(), state["stores"], strict=True):
                store.restore(saved)
            for name, one in self._tables.items():
                one.table.restore(state["tables"][name])
            for streams, writers in zip(self._streams, state["writers"], strict=True):
                streams.restore(writers)
            self._wake()

    def _served(self, name: str) -> _Served:
        if name not in self._tables:
            raise UsageError(f"no table {name!r}{closest(name, list(self._tables))}")
        return self._tables[name]

    def _end(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._clock.time() + timeout

    def _wake(self) -> None:
        if self._waiting:
            self._condition.notify_all()

    @contextmanager
    def _queued(self, one: _Served, waiting: _Waiting) -> Iterator[None]:
        queue = one.queues[waiting.what]
        queue.append(waiting)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            queue.remove(waiting)
            one.seconds[waiting.what] += self._clock.time() - waiting.since
            self._wake()

    def _wait(
        self,
        one: _Served,
        what: str,
        ready: Callable[[], bool],
        why: Callable[[], str],
        end: float | None,
        caller: str,
    ) -> None:
        """Waits for the table, after those who came before; the lock is held."""
        now = self._clock.time()
        waiting = _Waiting(what, caller, why, now)
        queue = one.queues[what]
        with self._queued(one, waiting):
            left = None if end is None else max(0.0, end - now)
            if not self._condition.wait_for(lambda: queue[0] is waiting and ready(), left):
                raise ReplayTimeout(
                    f"{what} on table {one.table.config.name!r} waited {left:.3g} s: "
                    f"{why() if queue[0] is waiting else 'others came before'}"
                )

    def _await_turn(
        self, record: WriterRecord, insert: Insert, end: float | None, caller: str
    ) -> None:
        one = self._served(next(iter(insert.items)))
        left = None if end is None else max(0.0, end - self._clock.time())
        self._waiting += 1
        try:
            if not self._condition.wait_for(lambda: record.number >= insert.number, left):
                raise ReplayTimeout(
                    f"insert {insert.number} of {caller or 'a writer'} into table "
                    f"{one.table.config.name!r} waited {left:.3g} s for insert {record.number}"
                )
        finally:
            self._waiting -= 1

    def _await_insert(self, one: _Served, wanted: int, end: float | None, caller: str) -> int:
        """How many of `wanted` items may go in, at least one; waits for it."""
        table = one.table
        allowed = 0 if one.queues["insert"] else table.insertable(wanted)
        if not allowed:
            self._wait(
                one,
                "insert",
                lambda: table.insertable(1) > 0,
                lambda: table.limiter.why_no_insert(table.size),
                end,
                caller,
            )
            allowed = table.insertable(wanted)
        return allowed

    def _admit(
        self,
        one: _Served,
        name: str,
        starts: Ints,
        lengths: Ints,
        priorities: Floats | None,
        record: WriterRecord,
        number: int,
        end: float | None,
        caller: str,
    ) -> bool:
        """Lets the items in, as the limiter does; False if somebody else did so meanwhile."""
        while record.number == number and record.progress[name] < len(starts):
            allowed = self._await_insert(one, len(starts) - record.progress[name], end, caller)
            if record.number != number or record.chain is None:
                break
            done = record.progress[name]
            part = slice(done, min(done + allowed, len(starts)))
            one.table.insert(
                record.chain[starts[part]],
                lengths[part],
                None if priorities is None else priorities[part],
            )
            record.progress[name] = part.stop
            self._wake()
        return record.number == number

    def _make_room(
        self, store: StepStore, count: int, end: float | None, caller: str, one: _Served
    ) -> None:
        """Makes room for `count` steps: items leave, then silent writers; queues are waited for."""
        if store.available >= count:
            return
        sharing = [other for other in self._tables.values() if other.table.store is store]
        while store.available < count:
            free = [o.table for o in sharing if not o.table.limiter.limiter.loses_nothing]
            largest = max(free, key=lambda table: table.size, default=None)
            missing = count - store.available
            if largest is not None and largest.evict(-(-missing // largest.config.view.rows)):
                continue
            if one.streams.expire():
                continue
            if count > store.capacity or all(o.table.size == 0 for o in sharing):
                raise UsageError(
                    f"table {one.table.config.name!r}: {count} steps do not fit, {store.available} "
                    f"of {store.capacity} are free and the rest is held by writers; raise "
                    "max_steps, or let writers send less at a time"
                )
            self._wait(
                one,
                "insert",
                lambda: store.available >= count,
                lambda: f"{store.available} of {store.capacity} steps are free, {count} needed",
                end,
                caller,
            )

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
        metrics: dict[str, float] = {}
        for name, one in self.statistics().tables.items():
            inserting = sum(call.what == "insert" for call in one.blocked)
            metrics |= {
                f"{name}/size": one.size,
                f"{name}/inserts": one.inserts,
                f"{name}/samples": one.samples,
                f"{name}/blocked_inserts": inserting,
                f"{name}/blocked_samples": len(one.blocked) - inserting,
            }
        self._context.log(metrics)


def _make_stores(
    tables: list[TableConfig],
) -> dict[tuple[Signature, str | None], StepStore]:
    capacities: dict[tuple[Signature, str | None], int] = {}
    for config in tables:
        key = (config.signature, config.folder)
        capacities[key] = capacities.get(key, 0) + config.steps
    return {key: StepStore(key[0], size, key[1]) for key, size in capacities.items()}


def _statistics(name: str, one: _Served, now: float) -> TableStatistics:
    calls = [*one.queues["insert"], *one.queues["sample"]]
    waited = dict(one.seconds)
    for call in calls:
        waited[call.what] += now - call.since
    table = one.table
    return TableStatistics(
        name=name,
        size=table.size,
        max_size=table.config.max_size,
        inserts=table.limiter.inserts,
        samples=table.limiter.samples,
        limiter=str(table.limiter.limiter),
        diff=table.limiter.diff,
        blocked=tuple(Blocked(c.caller, c.what, now - c.since, c.why()) for c in calls),
        insert_seconds_blocked=waited["insert"],
        sample_seconds_blocked=waited["sample"],
    )
