"""Runs a policy on the host: one call of the device for all environments of a step."""

from __future__ import annotations

from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import lpml
from lpml.errors import NotFinite
from lpml.nodes.acting import Policy, PolicyState
from lpml.nodes.roles import Params


@final
class HostPolicy:
    """A policy with its state, parameters and random key, for E environments.

    Parameters and key stay on the device from step to step, so that a step is one dispatch with
    the observations as its only argument from the host.

    Args:
      policy: what to run; it is compiled once for E.
      num_envs: E.
      seed: of the random key.
    """

    def __init__(self, policy: Policy, num_envs: int, seed: int = 0) -> None:
        self._initial: PolicyState = policy.init(num_envs)
        # An own copy, since the state is given away at each step
        self._state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), self._initial)
        self._key = jax.random.key(seed)
        self._params: Params = None
        self._has_state = bool(jax.tree.leaves(self._initial))
        self._num_envs = num_envs
        act = partial(_act, policy, self._initial if self._has_state else ())
        self._act = jax.jit(act, donate_argnums=(1, 3))
        self.calls = 0

    def update(self, params: Params) -> None:
        """Takes new parameters, a tree of arrays of the host or the device."""
        self._params = jax.device_put(params)

    def __call__(self, observation: Any, begins: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """Chooses actions.

        Args:
          observation: `[E, ...]`.
          begins: `[E]`: where an episode begins, and the state with it.

        Returns:
          Actions `[E, ...]` and extras, arrays of the host.

        Raises:
          NotFinite: a score is not; the message names node, call and environment.
        """
        mask = begins if self._has_state else ()
        action, self._key, extras, self._state, finite = self._act(
            self._params, self._key, observation, self._state, mask
        )
        self.calls += 1
        action, extras, finite = jax.device_get((action, extras, finite))
        if not finite.all():
            bad = np.flatnonzero(~np.broadcast_to(finite, self._num_envs)).tolist()
            raise NotFinite(
                f"{lpml.context().name}: the policy's scores are not finite at its step "
                f"{self.calls} in environments {bad}; look for a learning rate that is too high, "
                "or for observations that are not finite"
            )
        return action, extras


def _act(
    policy: Policy,
    initial: PolicyState,
    params: Params,
    key: jax.Array,
    observation: Any,
    state: PolicyState,
    begins: Any,
) -> tuple[Any, jax.Array, Any, PolicyState, jax.Array]:
    """One step: resets the state where an episode begins, acts, and looks at the scores."""
    key, used = jax.random.split(key)
    if jax.tree.leaves(initial):
        state = jax.tree.map(partial(_where, begins), initial, state)
    output = policy.act(params, used, observation, state)
    axes = tuple(range(1, output.scores.ndim))
    finite = jnp.isfinite(output.scores).all(axis=axes)
    return output.action, key, output.extras, output.state, finite


def _where(mask: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (old.ndim - 1)), new, old)
