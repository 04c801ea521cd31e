"""What a sample is: a batch, and what is known of its items."""

from __future__ import annotations

from typing import Any, NamedTuple

from lpml.nodes.replay.compact import reduce_joined
from lpml.nodes.replay.signature import Floats, Ints


class SampleInfo(NamedTuple):
    """What is known of the items of a batch, `[B]` each."""

    keys: Ints
    """Names of the items, for `update_priorities` and `remove`."""
    probabilities: Floats
    """Of each draw."""
    priorities: Floats
    times_sampled: Ints
    """Including this batch."""
    size: int
    """Items in the table."""


class Sample(NamedTuple):
    """A batch: `data` as the table's view reads it, contiguous arrays `[B, ...]`."""

    data: Any
    info: SampleInfo

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_joined(self, protocol)


class Draw(NamedTuple):
    """Items that were drawn and not read yet."""

    info: SampleInfo
    starts: Ints
    lengths: Ints
