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
from lpml.nodes.replay.signature import Array, Floats, Ints
from lpml.nodes.replay.steps import StepStore


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


@final
@dataclass
class WriterRecord:
    """One writer, seen from the replay."""

    number: int = 0
    """Of the insert that comes next, or is going on."""
    tails: dict[int, Ints] = field(default_factory=dict)  # {lane: rows held, oldest first}
    chain: Ints | None = None
    """Rows of the insert that is going on: the places that `Items.starts` counts."""
    progress: dict[str, int] = field(default_factory=dict)  # {table: items that went in}


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
        """Stores the steps of `insert`; there is room for them."""
        new = self._store.append(columns, int(insert.counts.sum()))
        chains = []
        ends = np.cumsum(insert.counts).tolist()
        for i, lane in enumerate(insert.lanes.tolist()):
            fresh = new[ends[i] - int(insert.counts[i]) : ends[i]]
            chain = np.concatenate([self._tail(record, lane, int(insert.held[i])), fresh])
            self._store.link(chain)
            chains.append(chain)
            self._replace_tail(record, lane, chain, fresh)
        record.chain = np.concatenate(chains) if chains else new
        record.progress = dict.fromkeys(insert.items, 0)

    def finish(self, record: WriterRecord, insert: Insert) -> None:
        """All items are in: lets go of the steps that none will need."""
        for lane, keep in zip(insert.lanes.tolist(), insert.keep.tolist(), strict=True):
            tail = record.tails.pop(lane)
            self._store.release(tail[: len(tail) - keep])
            if keep:
                record.tails[lane] = tail[len(tail) - keep :]
        record.chain = None
        record.progress = {}
        record.number += 1

    def expire(self) -> bool:
        """Forgets the writer that was silent longest, to make room; says if there was one."""
        for name, record in self._writers.items():
            if record.chain is None and record.tails:
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
                "lanes": np.array(list(record.tails), np.int64),
                "sizes": np.array([len(tail) for tail in record.tails.values()], np.int64),
                "tails": np.concatenate([empty, *record.tails.values()]),
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
            ends = np.cumsum(saved["sizes"])[:-1]
            tails = np.split(np.asarray(saved["tails"], np.int64), ends)
            lanes = np.asarray(saved["lanes"]).tolist()
            self._writers[int(saved["writer"])] = WriterRecord(
                number=int(saved["number"]),
                tails=dict(zip(lanes, tails, strict=False)),
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
        for lane, held in zip(insert.lanes.tolist(), insert.held.tolist(), strict=True):
            if held > len(record.tails.get(lane, ())):
                raise UnknownWriter(f"writer {insert.writer}: {held} steps of lane {lane} are gone")
        ends = np.cumsum(sizes)
        for name, items in insert.items.items():
            last = items.starts + items.lengths - 1
            if len(last) and (items.starts.min() < 0 or last.max() >= ends[-1]):
                raise UsageError(f"insert: an item of table {name!r} lies outside of its steps")
            lanes = np.searchsorted(ends, items.starts, "right")
            if (lanes != np.searchsorted(ends, last, "right")).any():
                raise UsageError(f"insert: an item of table {name!r} spans two lanes")

    def _tail(self, record: WriterRecord, lane: int, held: int) -> Ints:
        tail = record.tails.get(lane)
        return np.empty(0, np.int64) if tail is None or not held else tail[len(tail) - held :]

    def _replace_tail(self, record: WriterRecord, lane: int, chain: Ints, fresh: Ints) -> None:
        tail = record.tails.get(lane)
        kept = len(chain) - len(fresh)
        if tail is not None and len(tail) > kept:
            self._store.release(tail[: len(tail) - kept])
        record.tails[lane] = chain

    def _forget(self, writer: int) -> None:
        for tail in self._writers.pop(writer).tails.values():
            self._store.release(tail)
