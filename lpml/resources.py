"""What a node needs of the machine, and what happens when it dies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lpml.errors import GraphError


@dataclass(frozen=True)
class Resources:
    """What one node needs.

    Args:
      cpu: processor cores; also the number of threads that XLA, OpenMP and BLAS may use in the
        node (at least one). Fractions are allowed for nodes that mostly wait.
      gpu: accelerators, possibly a fraction of one. 0 keeps the node on the CPU.
      gpu_memory: share of the accelerator's memory that JAX may preallocate, in (0, 1];
        `None` means `gpu` where that is a fraction, else JAX's own default.
      memory: bytes of main memory that the node is expected to use, or `None` for unknown.
      env: environment variables, set before the node imports anything of its own.
      custom: named resources of a cluster, such as `{"tpu": 4}`.

    Raises:
      GraphError: a quantity is negative or a share is out of range.
    """

    cpu: float = 1
    gpu: float = 0
    gpu_memory: float | None = None
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    custom: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        quantities = {"cpu": self.cpu, "gpu": self.gpu, "memory": self.memory or 0, **self.custom}
        for name, amount in quantities.items():
            if not amount >= 0:
                raise GraphError(f"Resources({name}={amount!r}): give a number of at least 0")
        if self.gpu_memory is not None and not 0 < self.gpu_memory <= 1:
            raise GraphError(
                f"Resources(gpu_memory={self.gpu_memory!r}): give a share of the device, in (0, 1]"
            )
        for name, value in self.env.items():
            if not isinstance(value, str):
                raise GraphError(f"Resources(env={{{name!r}: {value!r}}}): give a string")


Spreading = Literal["pack", "spread", "strict_pack", "strict_spread"]


@dataclass(frozen=True)
class Placement:
    """On which hosts of a cluster the nodes of one group, and of groups inside it, go."""

    spreading: Spreading
    """`pack`: on as few as may be. `spread`: on as many as may be. `strict_pack`: all on one.
    `strict_spread`: each on another."""
    scope: str
    """The group in which that was said."""


@dataclass(frozen=True)
class Restart:
    """What happens when a node dies. Make one by `never`, `on_failure` or `always`.

    A node that dies is started anew at the same address, with `lpml.context().attempt` one higher.
    One whose constructor raises at its first attempt is not: it would raise again.
    A stateful one (it has `save` and `restore`) is not restarted alone: the whole run is set back
    to its last checkpoint, or fails where there is none.

    Raises:
      GraphError: a number is negative.
    """

    when: Literal["never", "on_failure", "always"] = "never"
    max_restarts: int | None = None
    """Restarts of one node over the whole run; `None` = any number."""
    backoff: float = 0.0
    """Seconds before a restart. Doubles with each that follows soon; begins anew when the node has
    served for more than ten times as long as it was waited for."""
    max_backoff: float = 30.0
    """The longest pause before a restart, in seconds."""

    def __post_init__(self) -> None:
        quantities = {"max_restarts": self.max_restarts or 0, "backoff": self.backoff}
        for name, amount in {**quantities, "max_backoff": self.max_backoff}.items():
            if not amount >= 0:
                raise GraphError(f"Restart({name}={amount!r}): give a number of at least 0")

    @staticmethod
    def never() -> Restart:
        """The first failure of the node stops the program."""
        return Restart("never")

    @staticmethod
    def on_failure(
        max_restarts: int | None = 3, backoff: float = 0.25, max_backoff: float = 30.0
    ) -> Restart:
        """Restart after a failure, at most `max_restarts` times (`None` = any number of times)."""
        return Restart("on_failure", max_restarts, backoff, max_backoff)

    @staticmethod
    def always(backoff: float = 0.25, max_backoff: float = 30.0) -> Restart:
        """Restart whenever the node ends, even where its `run` returned."""
        return Restart("always", None, backoff, max_backoff)
