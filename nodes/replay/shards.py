"""Several replays that look like one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

import lpml
from lpml.errors import UsageError
from lpml.nodes.replay.limiter import AbstractLimiter
from lpml.nodes.replay.protocol import AbstractReplay, ReplayStatistics, ReplayTimeout
from lpml.nodes.replay.sample import Sample
from lpml.nodes.replay.service import Replay
from lpml.nodes.replay.signature import Array, Signature
from lpml.nodes.replay.streams import Insert


@final
class ReplayShards:
    """Spreads writers over replays with the same tables, and takes batches from each in turn.

    A plain object, made where it is used or given to nodes as an argument. A writer stays with one
    shard. A batch comes from one shard, so its probabilities are those within that shard; limiters
    count per shard. Keys say which shard an item is in.

    Args:
      shards: replays made with equal tables.

    Raises:
      UsageError: there is no shard.
    """

    def __init__(self, shards: Sequence[Replay]) -> None:
        if not shards:
            raise UsageError("ReplayShards([]): give at least one replay")
        self._shards = list(shards)
        self._turn = 0

    def insert(self, insert: Insert, timeout: float | None = None, caller: str = "") -> None:
        """As `Replay.insert`, in the shard of the writer."""
        self.of_writer(insert.writer).insert(insert, timeout, caller)

    def sample(
        self, table: str, batch_size: int, timeout: float | None = None, caller: str = ""
    ) -> Sample:
        """As `Replay.sample`, from the next shard that has a batch ready.

        If none has, waits for the one whose turn it is.
        """
        count = len(self._shards)
        first = self._turn
        self._turn = (first + 1) % count
        if count > 1:
            for offset in range(count):
                index = (first + offset) % count
                try:
                    return self._named(index, self._shards[index].sample(table, batch_size, 0.0))
                except ReplayTimeout:
                    lpml.context().clock.check()
        return self._named(first, self._shards[first].sample(table, batch_size, timeout, caller))

    def update_priorities(self, table: str, keys: Array, priorities: Array) -> int:
        """As `Replay.update_priorities`, in the shards of the keys."""
        keys, priorities = np.asarray(keys), np.asarray(priorities)
        count = len(self._shards)
        known = 0
        for index, shard in enumerate(self._shards):
            mine = keys % count == index
            if mine.any():
                known += shard.update_priorities(table, keys[mine] // count, priorities[mine])
        return known

    def remove(self, table: str, keys: Array) -> int:
        """As `Replay.remove`, in the shards of the keys."""
        keys = np.asarray(keys)
        count = len(self._shards)
        return sum(
            shard.remove(table, keys[keys % count == index] // count)
            for index, shard in enumerate(self._shards)
        )

    def set_limiter(self, table: str, limiter: AbstractLimiter) -> None:
        """As `Replay.set_limiter`, in every shard."""
        for shard in self._shards:
            shard.set_limiter(table, limiter)

    def signature(self, table: str) -> Signature:
        """The fields of a step of the table."""
        return self._shards[0].signature(table)

    def close_writer(self, writer: int) -> None:
        """As `Replay.close_writer`, in the shard of the writer."""
        self.of_writer(writer).close_writer(writer)

    def statistics(self) -> list[ReplayStatistics]:
        """Of each shard."""
        return [shard.statistics() for shard in self._shards]

    def of_writer(self, writer: int) -> AbstractReplay:
        """The shard that has the steps of a writer."""
        return self._shards[writer % len(self._shards)]

    def _named(self, index: int, sample: Sample) -> Sample:
        keys = sample.info.keys * len(self._shards) + index
        return Sample(sample.data, sample.info._replace(keys=keys))
