"""What a replay is to those who use it: its methods, what it says of itself, how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lpml.errors import Error
from lpml.nodes.replay.sample import Sample
from lpml.nodes.replay.signature import Array, Signature
from lpml.nodes.replay.streams import Insert


class ReplayTimeout(Error, TimeoutError):
    """A table did not let an insert or a sample happen in time; the message says why."""


@dataclass(frozen=True)
class Blocked:
    """A call that waits."""

    caller: str
    what: str
    """`insert` or `sample`."""
    seconds: float
    """Waited so far."""
    why: str


@dataclass(frozen=True)
class TableStatistics:
    """One table, as it is now."""

    name: str
    size: int
    max_size: int
    inserts: int
    samples: int
    limiter: str
    diff: float
    """How many samples the inserts are ahead, as the limiter counts."""
    blocked: tuple[Blocked, ...]
    """Who waits now, in the order in which they will be served."""
    insert_seconds_blocked: float
    """Summed over all inserts that ever waited."""
    sample_seconds_blocked: float


@dataclass(frozen=True)
class ReplayStatistics:
    """A replay, as it is now."""

    tables: dict[str, TableStatistics]
    steps: int
    """Stored now."""
    max_steps: int
    num_bytes: int
    """Of the columns, filled or not."""

    def metrics(self) -> dict[str, float]:
        """What `lpml ps` and the curves show."""
        metrics: dict[str, float] = {}
        for name, one in self.tables.items():
            inserting = sum(call.what == "insert" for call in one.blocked)
            metrics |= {
                f"{name}/size": one.size,
                f"{name}/inserts": one.inserts,
                f"{name}/samples": one.samples,
                f"{name}/blocked_inserts": inserting,
                f"{name}/blocked_samples": len(one.blocked) - inserting,
            }
        return metrics


class AbstractReplay(Protocol):
    """What writers and learners need of a replay: of one, of several, of another kind."""

    def insert(self, insert: Insert, timeout: float | None = None, caller: str = "") -> None: ...
    def sample(
        self, table: str, batch_size: int, timeout: float | None = None, caller: str = ""
    ) -> Sample: ...
    def update_priorities(self, table: str, keys: Array, priorities: Array) -> int: ...
    def signature(self, table: str) -> Signature: ...
    def close_writer(self, writer: int) -> None: ...
