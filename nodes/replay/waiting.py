"""Who waits for which table: one lock, a queue a table and kind of call, and how long they wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, final

from lpml.clock import Clock
from lpml.errors import UsageError
from lpml.nodes.replay.config import TableConfig
from lpml.nodes.replay.protocol import Blocked, ReplayTimeout, TableStatistics
from lpml.nodes.replay.steps import StepStore
from lpml.nodes.replay.streams import Insert, Streams, WriterRecord
from lpml.nodes.replay.table import Table


class Patience(NamedTuple):
    """Who waits, and until when (`None` = as long as the call may)."""

    caller: str
    timeout: float | None
    """Seconds, as the caller said."""
    end: float | None

    def left(self, now: float) -> float | None:
        """Seconds."""
        return None if self.end is None else max(0.0, self.end - now)


class _Waiting(NamedTuple):
    """A call in the queue of a table."""

    what: str
    caller: str
    why: Callable[[], str]
    since: float


@final
class Served:
    """A table with those who wait for it."""

    def __init__(self, config: TableConfig, store: StepStore, streams: Streams) -> None:
        self.table = Table(config, store)
        self.streams = streams
        self.queues: dict[str, deque[_Waiting]] = {"insert": deque(), "sample": deque()}
        self.seconds = {"insert": 0.0, "sample": 0.0}
        """Waited by those who are through."""
        self.block_bytes: dict[int, int] = {}
        """`{batch size: bytes of its arrays in an arena}`"""
        view = config.view
        self.item_bytes = store.step_bytes * min(view.rows, 2 if view.rows < 17 else view.rows)

    def statistics(self, now: float) -> TableStatistics:
        """The table and its queues, as they are now."""
        calls = [*self.queues["insert"], *self.queues["sample"]]
        waited = dict(self.seconds)
        for call in calls:
            waited[call.what] += now - call.since
        table = self.table
        return TableStatistics(
            name=table.config.name,
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


@final
class WaitingRoom:
    """The lock of a replay, and those who wait with it released.

    Used as a context manager it is the lock; every method but `patience` needs it held. Whoever
    changed something that others may wait for calls `wake`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = clock.condition()
        self._waiting = 0

    def __enter__(self) -> None:
        self._condition.__enter__()

    def __exit__(self, *args: object) -> None:
        self._condition.__exit__(*args)

    def patience(self, caller: str, timeout: float | None) -> Patience:
        """That of a call which begins now."""
        end = None if timeout is None else self._clock.time() + timeout
        return Patience(caller, timeout, end)

    def wake(self) -> None:
        """Makes all who wait look again."""
        if self._waiting:
            self._condition.notify_all()

    def wait(
        self,
        one: Served,
        what: str,
        ready: Callable[[], bool],
        why: Callable[[], str],
        patience: Patience,
    ) -> None:
        """Waits for a table, after those who came before.

        Raises:
          ReplayTimeout: in vain; says why.
        """
        now = self._clock.time()
        waiting = _Waiting(what, patience.caller, why, now)
        queue = one.queues[what]
        with self._queued(one, waiting):
            left = patience.left(now)
            if not self._condition.wait_for(lambda: queue[0] is waiting and ready(), left):
                raise ReplayTimeout(
                    f"{what} on table {one.table.config.name!r} waited {patience.timeout:.3g} s: "
                    f"{why() if queue[0] is waiting else 'others came before'}"
                )

    def await_turn(
        self, one: Served, record: WriterRecord, insert: Insert, patience: Patience
    ) -> None:
        """Waits until the inserts of the writer before this one are done."""
        left = patience.left(self._clock.time())
        self._waiting += 1
        try:
            if not self._condition.wait_for(lambda: record.number >= insert.number, left):
                raise ReplayTimeout(
                    f"insert {insert.number} of {patience.caller or 'a writer'} into table "
                    f"{one.table.config.name!r} waited "
                    f"{patience.timeout:.3g} s for insert {record.number}"
                )
        finally:
            self._waiting -= 1

    def await_insert(self, one: Served, wanted: int, patience: Patience) -> int:
        """How many of `wanted` items may go in, at least one; waits for it."""
        table = one.table
        allowed = 0 if one.queues["insert"] else table.insertable(wanted)
        if not allowed:
            self.wait(
                one,
                "insert",
                lambda: table.insertable(1) > 0,
                lambda: table.limiter.why_no_insert(table.size),
                patience,
            )
            allowed = table.insertable(wanted)
        return allowed

    def await_sample(self, one: Served, count: int, patience: Patience) -> None:
        """Waits until `count` items can be drawn."""
        table = one.table
        if one.queues["sample"] or not table.can_sample(count):
            self.wait(
                one,
                "sample",
                lambda: table.can_sample(count),
                lambda: table.why_no_sample(count),
                patience,
            )

    def make_room(self, one: Served, sharing: list[Served], count: int, patience: Patience) -> None:
        """Makes room for `count` steps: items leave, then silent writers; queues are waited for.

        Args:
          one: who needs it.
          sharing: all tables whose steps are in the same store.
          count: of steps.
          patience: of the call.
        """
        store = one.table.store
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
            self.wait(
                one,
                "insert",
                lambda: store.available >= count,
                lambda: f"{store.available} of {store.capacity} steps are free, {count} needed",
                patience,
            )

    @contextmanager
    def _queued(self, one: Served, waiting: _Waiting) -> Iterator[None]:
        queue = one.queues[waiting.what]
        queue.append(waiting)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1
            for place, other in enumerate(queue):
                if other is waiting:
                    del queue[place]
                    break
            one.seconds[waiting.what] += self._clock.time() - waiting.since
            self.wake()
