"""What a replay remembers of its writers, so that windows may reach over several inserts.

Each writer numbers its inserts and has lanes, one per environment. The replay holds the last steps
of a lane for the items to come. An insert that is sent again goes on where it stopped, so each is
done exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

import numpy as np

from lpml.errors import Error, UsageError
from lpml.nodes.replay.compact import reduce_joined
from lpml.nodes.replay.signature import Array, Floats, Ints
from lpml.nodes.replay.steps import StepStore, spread


class UnknownWriter(Error):
    """The replay does not hold the earlier steps of this writer (it was restarted, or it made
    room). The writer goes on under a new name without them; `Writer` does so by itself."""


class Items(NamedTuple):
    """New items of one table, `[M]` each."""

    starts: Ints
    """First steps, as places in the insert: lane after lane, held steps first, then new ones."""
    lengths: Ints
    priorities: Floats | None
    """`None` = the highest that the table has seen."""


class Insert(NamedTuple):
    """Steps of one or more lanes, `[K]`, and the items made of them."""

    writer: int
    number: int
    """0, 1, 2, ... of this writer."""
    steps: Any
    """`[N, ...]`: the new steps, lane after lane."""
    lanes: Ints
    counts: Ints
    """New steps of each lane; their sum is N."""
    held: Ints
    """Steps of each lane that the replay holds, before these."""
    keep: Ints
    """Steps of each lane that the replay holds afterwards."""
    items: dict[str, Items]
    """`{table: items}`; the tables share their steps."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_joined(self, protocol)


@final
@dataclass
class WriterRecord:
    """One writer, seen from the replay."""

    number: int = 0
    """Of the insert that comes next, or is going on."""
    lanes: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """Those of which rows are held."""
    sizes: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """How many rows of each."""
    tails: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    """The rows held, lane after lane, oldest first."""
    chain: Ints | None = None
    """Rows of the insert that is going on: the places that `Items.starts` counts."""
    progress: dict[str, int] = field(default_factory=dict)  # {table: items that went in}

    def arrange(self, lanes: Ints) -> None:
        """Makes `lanes` come first; most often they are all and do already."""
        if np.array_equal(self.lanes[: len(lanes)], lanes):
            return
        parts = np.split(self.tails, self.sizes.cumsum()[:-1]) if len(self.lanes) else []
        held = dict(zip(self.lanes.tolist(), parts, strict=True))
        tails = [held.pop(lane, self.tails[:0]) for lane in lanes.tolist()] + list(held.values())
        self.lanes = np.array([*lanes.tolist(), *held], np.int64)
        self.sizes = np.array([len(tail) for tail in tails], np.int64)
        self.tails = np.concatenate(tails) if tails else self.tails


@final
class Streams:
    """The writers whose steps are in `store`."""

    def __init__(self, store: StepStore) -> None:
        self._store = store
        self._writers: dict[int, WriterRecord] = {}  # least recently heard of first

    def record(self, insert: Insert) -> WriterRecord:
        """The record of the writer of `insert`.

        Raises:
          UnknownWriter: the insert builds on steps that are not here.
        """
        record = self._writers.pop(insert.writer, None)
        if record is None:
            if insert.number:
                raise UnknownWriter(f"insert {insert.number} of writer {insert.writer}: not known")
            record = WriterRecord()
        self._writers[insert.writer] = record
        return record

    def begin(self, record: WriterRecord, insert: Insert, columns: list[Array]) -> None:
        """Stores the steps of `insert`; there is room for them, and `check` found no fault."""
        new = self._store.append(columns, int(insert.counts.sum()))
        count = len(insert.lanes)
        old = record.sizes[:count]
        ends = old.cumsum()
        total = int(ends[-1]) if count else 0
        sizes = insert.held + insert.counts
        stops = sizes.cumsum()
        chain = np.empty(len(new) + int(insert.held.sum()), np.int64)
        if len(chain) == len(new):
            chain = new
        else:
            chain[spread(stops - insert.counts, insert.counts)] = new
            kept = record.tails[spread(ends - insert.held, insert.held)]
            chain[spread(stops - sizes, insert.held)] = kept
        self._store.link(chain, stops)
        if total > len(chain) - len(new):
            self._store.release(record.tails[spread(ends - old, old - insert.held)])
        others = record.tails[total:]
        record.tails = np.concatenate([chain, others]) if len(others) else chain
        record.sizes = np.concatenate([sizes, record.sizes[count:]])
        record.chain = chain
        record.progress = dict.fromkeys(insert.items, 0)

    def finish(self, record: WriterRecord, insert: Insert) -> None:
        """All items are in: lets go of the steps that none will need."""
        record.arrange(insert.lanes)
        count, keep = len(insert.lanes), insert.keep
        sizes = record.sizes[:count]
        stops = sizes.cumsum()
        total = int(stops[-1]) if count else 0
        chain, others = record.tails[:total], record.tails[total:]
        self._store.release(chain[spread(stops - sizes, sizes - keep)])
        record.tails = np.concatenate([chain[spread(stops - keep, keep)], others])
        record.sizes = np.concatenate([keep, record.sizes[count:]])
        record.chain = None
        record.progress = {}
        record.number += 1

    def expire(self) -> bool:
        """Forgets the writer that was silent longest, to make room; says if there was one."""
        for name, record in self._writers.items():
            if record.chain is None and len(record.tails):
                self._forget(name)
                return True
        return False

    def close(self, writer: int) -> None:
        """Forgets a writer that is done."""
        if writer in self._writers and self._writers[writer].chain is None:
            self._forget(writer)

    def save(self) -> list[dict[str, Any]]:
        """Every writer, as arrays and scalars."""
        empty = np.empty(0, np.int64)
        return [
            {
                "writer": name,
                "number": record.number,
                "lanes": record.lanes.copy(),
                "sizes": record.sizes.copy(),
                "tails": record.tails.copy(),
                "chain": empty if record.chain is None else record.chain.copy(),
                "pending": record.chain is not None,
                "progress": dict(record.progress),
            }
            for name, record in self._writers.items()
        ]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Puts back what `save` returned."""
        self._writers = {}
        for saved in state:
            self._writers[int(saved["writer"])] = WriterRecord(
                number=int(saved["number"]),
                lanes=np.array(saved["lanes"], np.int64),
                sizes=np.array(saved["sizes"], np.int64),
                tails=np.array(saved["tails"], np.int64),
                chain=np.asarray(saved["chain"], np.int64) if saved["pending"] else None,
                progress={name: int(count) for name, count in saved["progress"].items()},
            )

    def check(self, record: WriterRecord, insert: Insert, length: int) -> None:
        """Raises UsageError or UnknownWriter where `insert` does not fit what is held."""
        sizes = insert.held + insert.counts
        if int(insert.counts.sum()) != length or (insert.keep > sizes).any():
            raise UsageError(
                f"insert: {length} steps for lanes of {insert.counts.tolist()} new steps, of which "
                f"{insert.keep.tolist()} are to be held; give lanes that add up"
            )
        if len(set(insert.lanes.tolist())) != len(insert.lanes):
            raise UsageError(f"insert: lanes {insert.lanes.tolist()}; name each once")
        record.arrange(insert.lanes)
        gone = np.flatnonzero(insert.held > record.sizes[: len(insert.lanes)])
        if len(gone):
            raise UnknownWriter(
                f"writer {insert.writer}: {insert.held[gone[0]]} steps of lane "
                f"{insert.lanes[gone[0]]} are gone"
            )
        ends = np.cumsum(sizes)
        for name, items in insert.items.items():
            last = items.starts + items.lengths - 1
            if len(last) and (items.starts.min() < 0 or last.max() >= ends[-1]):
                raise UsageError(f"insert: an item of table {name!r} lies outside of its steps")
            lanes = np.searchsorted(ends, items.starts, "right")
            if (lanes != np.searchsorted(ends, last, "right")).any():
                raise UsageError(f"insert: an item of table {name!r} spans two lanes")

    def _forget(self, writer: int) -> None:
        self._store.release(self._writers.pop(writer).tails)
