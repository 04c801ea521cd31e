"""Modes of consistency of a parameter server: who waits for whom, and which gradients count.

State machines without I/O: the server tells them who came, pushed and left; they answer what to
do with a gradient and whom a worker has to wait for. They know neither time nor parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

Verdict = Literal["apply", "hold", "drop"]


class AbstractRules(ABC):
    """One server's mode at work. Workers are known by name; versions count updates."""

    @abstractmethod
    def join(self, worker: str) -> None:
        """`worker`, no member, becomes one."""

    @abstractmethod
    def leave(self, worker: str) -> None:
        """`worker`, a member, is one no more."""

    @abstractmethod
    def push(self, worker: str, staleness: int) -> Verdict:
        """What to do with a gradient of member `worker`, computed `staleness` updates ago."""

    @abstractmethod
    def waits_for(self, worker: str) -> tuple[str, ...]:
        """The members that `worker` has to wait for before it may pull; none = it may."""

    @abstractmethod
    def complete(self) -> bool:
        """Whether the gradients that are held make an update; the server then asks `close`."""

    @abstractmethod
    def close(self) -> None:
        """The update was made; nothing is held any more."""


def _check(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value}: give an integer of at least {least}")


@dataclass(frozen=True)
class Asynchronous:
    """Each gradient is applied as it comes; nobody waits.

    A slow worker delays nobody, and its gradients are stale. Keep momentum low and the step size
    small where staleness is high.

    Args:
      max_staleness: gradients older than this many updates are dropped; `None` = none is.

    Reference: Dean et al., Large Scale Distributed Deep Networks, 2012 (Downpour SGD).
    """

    max_staleness: int | None = None

    def __post_init__(self) -> None:
        if self.max_staleness is not None:
            _check("Asynchronous: max_staleness", self.max_staleness, 0)

    def rules(self) -> AbstractRules:
        """The state machine of this mode."""
        return _AsynchronousRules(self.max_staleness)


@dataclass(frozen=True)
class Synchronous:
    """An update is the mean of one gradient of each member, all at the same version.

    The first update waits until `num_workers` have come. After that the members decide: who joins
    later takes part at once but is waited for only from the next version on; nobody waits for who
    has left.

    Args:
      num_workers: all workers of the start, the backup workers included.
      backup_workers: an update does not wait for this many slowest members, whose gradients are
        dropped when they come too late.

    Reference: Chen et al., Revisiting Distributed Synchronous SGD, 2016 (backup workers).
    """

    num_workers: int
    backup_workers: int = 0

    def __post_init__(self) -> None:
        _check("Synchronous: num_workers", self.num_workers, 1)
        _check("Synchronous: backup_workers", self.backup_workers, 0)
        if self.backup_workers >= self.num_workers:
            raise ValueError(
                f"Synchronous: backup_workers={self.backup_workers} of "
                f"num_workers={self.num_workers} would leave no gradient to wait for; "
                "give fewer backup workers"
            )

    def rules(self) -> AbstractRules:
        """The state machine of this mode."""
        return _SynchronousRules(self.num_workers, self.backup_workers)


@dataclass(frozen=True)
class BoundedStaleness:
    """Each gradient is applied as it comes; no worker runs more than `bound` gradients ahead.

    A worker that has pushed `bound` gradients more than the slowest member waits in its pull. So
    at its gradient number c a worker has seen at least the gradients number c - bound - 1 and
    before of everybody. A late joiner begins at the count of the slowest member.

    Args:
      bound: the lead that is allowed; 0 = in step. From 1 to 10 is usual.

    Reference: Ho et al., More Effective Distributed ML via a Stale Synchronous Parallel Parameter
    Server, 2013.
    """

    bound: int = 3

    def __post_init__(self) -> None:
        _check("BoundedStaleness: bound", self.bound, 0)

    def rules(self) -> AbstractRules:
        """The state machine of this mode."""
        return _BoundedStalenessRules(self.bound)


Consistency: TypeAlias = Asynchronous | Synchronous | BoundedStaleness


@final
class _AsynchronousRules(AbstractRules):
    def __init__(self, max_staleness: int | None) -> None:
        self._max_staleness = max_staleness

    def join(self, worker: str) -> None:
        """Nobody is waited for."""

    def leave(self, worker: str) -> None:
        """Nobody was waited for."""

    def push(self, worker: str, staleness: int) -> Verdict:
        late = self._max_staleness is not None and staleness > self._max_staleness
        return "drop" if late else "apply"

    def waits_for(self, worker: str) -> tuple[str, ...]:
        return ()

    def complete(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held."""


@final
class _SynchronousRules(AbstractRules):
    def __init__(self, num_workers: int, backup_workers: int) -> None:
        self._num_workers = num_workers
        self._backup_workers = backup_workers
        self._seen: set[str] = set()  # everyone who ever came, until the start
        self._members: set[str] = set()
        self._expected: set[str] = set()  # members whose gradient this update waits for
        self._pushed: set[str] = set()  # whose gradients are held

    def join(self, worker: str) -> None:
        if not self._started:
            self._seen.add(worker)
            self._expected.add(worker)
        self._members.add(worker)

    def leave(self, worker: str) -> None:
        self._members.discard(worker)
        self._expected.discard(worker)

    def push(self, worker: str, staleness: int) -> Verdict:
        if staleness != 0 or worker in self._pushed:
            return "drop"
        self._pushed.add(worker)
        return "hold"

    def waits_for(self, worker: str) -> tuple[str, ...]:
        if worker not in self._pushed:
            return ()
        missing = sorted(self._expected - self._pushed)
        unborn = self._num_workers - len(self._seen)
        return (*missing, *["a worker that has not come yet"] * unborn)

    def complete(self) -> bool:
        missing = len(self._expected - self._pushed)
        return self._started and bool(self._pushed) and missing <= self._backup_workers

    def close(self) -> None:
        self._pushed.clear()
        self._expected = set(self._members)

    @property
    def _started(self) -> bool:
        return len(self._seen) >= self._num_workers


@final
class _BoundedStalenessRules(AbstractRules):
    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._counts: dict[str, int] = {}  # {member: gradients it has pushed, or was credited}

    def join(self, worker: str) -> None:
        self._counts[worker] = min(self._counts.values(), default=0)

    def leave(self, worker: str) -> None:
        self._counts.pop(worker, None)

    def push(self, worker: str, staleness: int) -> Verdict:
        self._counts[worker] += 1
        return "apply"

    def waits_for(self, worker: str) -> tuple[str, ...]:
        least = self._counts[worker] - self._bound
        return tuple(sorted(name for name, count in self._counts.items() if count < least))

    def complete(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held."""
