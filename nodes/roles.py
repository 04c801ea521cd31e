"""The roles of nodes: what each promises, and what it needs of the machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, final

import lpml
from lpml.nodes.flat import Flat

Params: TypeAlias = Any
"""A pytree of arrays. `Any`, since type checkers cannot express "nested containers of arrays"."""


class Readable(Protocol):
    """What holds parameters, or a `Flat` of them: a `lpml.Shared`, or what looks like one."""

    @property
    def value(self) -> Params: ...


@final
@dataclass(frozen=True)
class Whole:
    """A value that is sent as it is; of one that is small a `lpml.Shared` would only cost more."""

    value: Params


@dataclass(frozen=True)
class Snapshot:
    """The parameters at one version. Readers share the memory of large ones."""

    version: int
    """How many updates these parameters have seen."""
    shared: Readable
    final: bool = False
    """No more updates will be made: workers may leave."""

    @property
    def params(self) -> Params:
        """The parameters: a pytree of arrays, not to be modified."""
        value = self.shared.value
        return value.tree if isinstance(value, Flat) else value

    @property
    def flat(self) -> Flat:
        """The parameters as one vector for each type of number, as most servers keep them."""
        value = self.shared.value
        return value if isinstance(value, Flat) else Flat.of(value)


class VariableSource(Protocol):
    """Where actors and evaluators get parameters: a learner, or a parameter server."""

    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters; waits for version `at_least`, or until the last one."""


@dataclass(frozen=True)
class Receipt:
    """What became of a gradient."""

    accepted: bool
    """It is in the parameters, or held until its update is complete; otherwise it was dropped."""
    version: int
    """The server's version after the push."""
    staleness: int
    """Updates made between the pull of the parameters and the push of their gradient."""


@dataclass(frozen=True)
class ParameterServerStatistics:
    """What a parameter server did so far."""

    version: int
    pushes: int
    """Gradients that came, accepted or not."""
    dropped: int
    """Gradients that came too late to be used."""
    snapshots: int
    """Versions that were published; a version that nobody pulls is never copied."""
    staleness: Mapping[int, int]
    """How many of the accepted gradients were that stale."""
    waited: Mapping[str, float]
    """Seconds each worker spent waiting for others."""
    members: tuple[str, ...]
    """Workers that take part now."""
    departed: tuple[str, ...]
    """Workers that left or were not heard of for the length of the lease, and did not return."""
    seconds: float
    """Since the first gradient came."""

    @property
    def mean_staleness(self) -> float:
        """Mean over the accepted gradients; 0 when there are none."""
        count = sum(self.staleness.values())
        return sum(age * n for age, n in self.staleness.items()) / count if count else 0.0


class AbstractParameterServer(ABC):
    """Holds the parameters of a model; workers pull them and push gradients.

    A worker names itself (`lpml.context().name`) in each call. Its first call makes it a member;
    `leave` ends that.
    """

    lpml_role: ClassVar[str] = "parameter server"
    lpml_resources: ClassVar[lpml.Resources] = lpml.Resources(cpu=1)
    lpml_restart: ClassVar[lpml.Restart] = lpml.Restart.never()

    @abstractmethod
    def pull(
        self, worker: str | None = None, *, at_least: int = 0, timeout: float | None = None
    ) -> Snapshot:
        """The newest parameters that `worker` may use.

        Args:
          worker: the member that asks, which waits as its mode of consistency wants it to; `None`
            for a reader that is no member, such as an evaluator, and never waits for workers.
          at_least: waits until there is this version, or until no more updates will be made.
          timeout: seconds to wait at most; `None` = until the deadline of the call.

        Raises:
          CallTimeout: it may not go on yet; the message says whom it waits for.
        """

    @abstractmethod
    def push(self, worker: str, grads: Params, *, version: int, weight: float = 1.0) -> Receipt:
        """Hands in a gradient. Never waits for other workers.

        Args:
          worker: the member that computed it.
          grads: a pytree of the structure and shapes of the parameters, or a `Flat` of one.
          version: `Snapshot.version` of the parameters it was computed at.
          weight: the number of examples it is the mean of. The mean of a synchronous update is
            weighted by it; where gradients are applied one by one it is without effect.

        Raises:
          ValueError: `grads` does not fit the parameters.
        """

    @abstractmethod
    def exchange(
        self,
        worker: str,
        grads: Params,
        *,
        version: int,
        weight: float = 1.0,
        timeout: float | None = None,
    ) -> Snapshot:
        """`push`, then `pull`, in one call."""

    @abstractmethod
    def leave(self, worker: str) -> None:
        """`worker` takes no more part: nobody waits for it. It may come back by any call."""

    @abstractmethod
    def statistics(self) -> ParameterServerStatistics:
        """What was done so far."""
