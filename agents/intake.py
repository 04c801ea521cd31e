"""How what environments bring becomes batches, inside the jitted loop of `lpml.agents.fused`.

There are two kinds: windows of consecutive steps, each learned from once; and transitions that are
drawn from a replay on the device, in `lpml.agents.intake_replay`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lpml.agents.builder import AbstractBuilder
from lpml.errors import UsageError
from lpml.nodes import simulation
from lpml.nodes.data_parallel import deal
from lpml.nodes.learning import LearnerState
from lpml.nodes.simulation import AbstractSimulation, Simulated
from lpml.nodes.updates import many_updates
from lpml.nodes.windows import EpisodeSums


class Learning(NamedTuple):
    """The learner's side of the loop."""

    state: LearnerState
    bad: jax.Array
    """`[]` int32: the first update whose metrics were not finite, or -1."""
    version: jax.Array
    """`[]` int32: updates so far."""


class Brought(NamedTuple):
    """What one iteration of the loop brought."""

    metrics: Mapping[str, jax.Array]
    """Means over its updates; 0 where there were none."""
    updates: jax.Array
    """`[]` int32."""
    sums: EpisodeSums


class AbstractIntake(ABC):
    """T ticks of E environments, and the updates from what they brought."""

    @property
    @abstractmethod
    def ticks(self) -> int:
        """T, of one iteration."""

    @property
    @abstractmethod
    def updates(self) -> int:
        """Of one iteration, at most."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Rows of each environment that are held at once."""

    @abstractmethod
    def init(self, key: jax.Array) -> Any:
        """What is held from one iteration to the next: a tree of arrays."""

    @abstractmethod
    def place(self, held: Any, mesh: Mesh | None) -> Any:
        """The same on the devices."""

    @abstractmethod
    def iterate(
        self, learning: Learning, simulated: Simulated, held: Any
    ) -> tuple[Learning, Simulated, Any, Brought]:
        """One iteration, traceable."""


@final
class Windows(AbstractIntake):
    """Rollouts of T ticks; each batch of their windows brings one update.

    Raises:
      UsageError: E is no multiple of the batch size.
    """

    def __init__(
        self, builder: AbstractBuilder, environment: AbstractSimulation, num_envs: int, length: int
    ) -> None:
        self._batch_size = batch_size = builder.batches.batch_size
        if num_envs % batch_size:
            raise UsageError(
                f"anakin: num_envs={num_envs} environments do not divide into batches of "
                f"{batch_size}; give a multiple of it"
            )
        self._environment, self._num_envs, self._length = environment, num_envs, length
        self._policy = builder.policy(environment.spec)
        self._algorithm = builder.algorithm(environment.spec)
        self._many = many_updates(self._algorithm, num_envs // batch_size, batch_size)

    @property
    def ticks(self) -> int:
        return self._length

    @property
    def updates(self) -> int:
        return self._num_envs // self._batch_size

    @property
    def rows(self) -> int:
        return 4 * self._length

    def init(self, key: jax.Array) -> tuple[()]:
        del key
        return ()

    def place(self, held: Any, mesh: Mesh | None) -> Any:
        del mesh
        return held

    def iterate(
        self, learning: Learning, simulated: Simulated, held: Any
    ) -> tuple[Learning, Simulated, Any, Brought]:
        params = self._algorithm.variables(learning.state)
        simulated, data, sums = simulation.rollout(
            self._environment, self._policy, params, simulated, self._length
        )
        batches = self.updates
        data = deal(data, batches)
        ones = jnp.ones((self._num_envs,), jnp.float32)
        state, update, bad = self._many(
            learning.state, data, ones, jnp.float32(self._num_envs), learning.bad, learning.version
        )
        learning = Learning(state, bad, learning.version + batches)
        return learning, simulated, held, Brought(update.metrics, jnp.int32(batches), sums)
