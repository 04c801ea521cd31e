"""One policy for many actors: the actions of all that ask at a time are chosen in one call.

References: Espeholt et al., "SEED RL: Scalable and Efficient Deep-RL with Accelerated Central
Inference" (2020), section 3.1; unlike there, recurrent states stay with the actors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import jax
import numpy as np
import numpy.typing as npt

import lpml
from lpml.nodes.acting import Policy, PolicyState
from lpml.nodes.host_policy import ACTING, act_in, check_finite, random_key, to_device
from lpml.nodes.roles import VariableSource
from lpml.nodes.variables import VariableClient

MAX_BATCH = 64
"""Actors whose requests one call serves, at most."""


@dataclass(frozen=True)
class InferenceStatistics:
    """What an inference server did so far."""

    requests: int
    batches: int
    """Calls of the device."""
    version: int
    """Of the parameters."""
    seconds: float
    """In calls of the device."""

    @property
    def mean_batch(self) -> float:
        """Requests that were served together, on average."""
        return self.requests / self.batches if self.batches else 0.0


@final
class InferenceServer:
    """Chooses actions for actors that have no network of their own.

    Requests that come while a batch is under way make up the next one, so a batch is as large as
    the load makes it, and nobody waits for company. Batches are padded to a power of two: the
    policy is compiled once for each size. All actors of a server have the same number E of
    environments.

    The server remembers nothing of an actor. The recurrent state of a policy goes to the actor and
    comes back with its next request, so a server can be restarted, and several can share the load.

    On an accelerator: declare the node with `lpml.Resources(gpu=1)`.

    Args:
      policy: what to run.
      variables: where its parameters come from.
      seed: of the random key.
      period: batches from one look for new parameters to the next.
      max_age: seconds that parameters may be old before a batch waits for newer ones; `None` = as
        they come.
    """

    lpml_role: ClassVar[str] = "inference server"
    lpml_resources: ClassVar[lpml.Resources] = ACTING

    def __init__(
        self,
        policy: Policy,
        variables: VariableSource,
        *,
        seed: int = 0,
        period: int = 1,
        max_age: float | None = None,
    ) -> None:
        self._clock = lpml.context().clock
        self._policy = policy
        self._act: Any = jax.jit(act_in(policy))
        self._key = random_key(seed)
        self._source = variables
        self._period = period
        self._max_age = max_age
        self._variables: VariableClient | None = None
        self._params: Any = None
        self._requests = self._batches = 0
        self._seconds = 0.0

    @lpml.concurrent
    @lpml.idempotent
    def initial_state(self, num_envs: int) -> PolicyState:
        """What the first request of an actor brings as its state, `[E, ...]`."""
        return jax.tree.map(np.asarray, self._policy.init(num_envs))

    @lpml.idempotent
    @lpml.batched(max_size=MAX_BATCH, timeout=0.0)
    def act(
        self, observation: Any, begins: npt.NDArray[np.bool_], state: PolicyState
    ) -> tuple[Any, Any, PolicyState]:
        """Chooses actions.

        Args:
          observation: `[E, ...]`.
          begins: `[E]`: where an episode begins, and the state with it.
          state: `[E, ...]`: what the last call returned, or `initial_state`.

        Returns:
          Actions, extras and the state, arrays `[E, ...]` of the host.

        Raises:
          NotFinite: a score is not, for one of those that were served together.
        """
        # B requests came together: arrays are [B, E, ...] here
        self._refresh()
        count, num_envs = begins.shape
        size = 1 << (count - 1).bit_length()
        began = self._clock.time()
        given = jax.tree.map(lambda leaf: _rows(leaf, size), (observation, state, begins))
        action, self._key, extras, state, finite = self._act(self._params, self._key, *given)
        self._batches += 1
        check_finite(np.asarray(finite), self._batches)
        chosen: tuple[Any, Any, PolicyState] = jax.tree.map(
            lambda leaf: _requests(np.asarray(leaf), count, num_envs), (action, extras, state)
        )
        self._requests += count
        self._seconds += self._clock.time() - began
        return chosen

    @lpml.concurrent
    def statistics(self) -> InferenceStatistics:
        """What was done so far."""
        version = -1 if self._variables is None else self._variables.version
        return InferenceStatistics(self._requests, self._batches, version, self._seconds)

    def _refresh(self) -> None:
        """The newest parameters that are here; waits for the first."""
        if self._variables is None:
            self._variables = VariableClient(
                self._source, period=self._period, max_age=self._max_age
            )
        elif not self._variables.poll():
            return
        self._params = to_device(self._variables.params)


@final
class RemotePolicy:
    """Acts by asking an inference server; for an `Actor` in the place of a policy.

    Args:
      server: that chooses.
    """

    def __init__(self, server: InferenceServer) -> None:
        self._server = server
        self._state: PolicyState = None

    def __call__(self, observation: Any, begins: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """Chooses actions, as `HostPolicy` does."""
        if self._state is None:
            self._state = self._server.initial_state(len(begins))
        action, extras, self._state = self._server.act(observation, begins, self._state)
        return action, extras


def _rows(leaf: Any, size: int) -> npt.NDArray[Any]:
    """`[B, E, ...]` as `[size * E, ...]`; what is missing is the first request again."""
    if len(leaf) < size:
        leaf = np.concatenate([leaf, np.repeat(leaf[:1], size - len(leaf), axis=0)])
    rows: npt.NDArray[Any] = leaf.reshape(-1, *leaf.shape[2:])
    return rows


def _requests(rows: npt.NDArray[Any], count: int, num_envs: int) -> npt.NDArray[Any]:
    """`[size * E, ...]` as `[B, E, ...]`."""
    return rows[: count * num_envs].reshape(count, num_envs, *rows.shape[1:])
