"""Runs a policy on the host: one call of the device for all environments of a step.

What a step of a small network costs is not its arithmetic. On a CPU most of it is random numbers,
handing arrays over one by one, and waking the thread that computes. So the random key is of a kind
whose numbers are cheap, parameters lie in one vector, and the roles that act compute in the thread
that calls (`ACTING`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, final

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

import lpml
from lpml.errors import NotFinite, UsageError
from lpml.nodes.acting import Policy, PolicyState
from lpml.nodes.compiling import in_background
from lpml.nodes.flat import Flat
from lpml.nodes.roles import Params

ACTING = lpml.Resources(cpu=1, env={"JAX_CPU_ENABLE_ASYNC_DISPATCH": "false"})
"""What a node that acts needs: one CPU, on which jax computes in the thread that calls."""

_RANDOM = "unsafe_rbg"
_FLAT_BYTES = 1 << 20  # up to which a copy within the call is cheaper than handing over many arrays


@final
class HostPolicy:
    """A policy with its state, parameters and random key, for E environments.

    Parameters, state and key stay on the device from step to step. Random numbers are those of
    jax's `unsafe_rbg`: the same for the same seed on the same machine, and cheap.

    Args:
      policy: what to run; it is compiled once for E.
      num_envs: E.
      seed: of the random key.
    """

    def __init__(self, policy: Policy, num_envs: int, seed: int = 0) -> None:
        self._act: Any = jax.jit(act_in(policy))
        self._num_envs = num_envs
        self._state: PolicyState = jax.tree.map(jnp.asarray, policy.init(num_envs))
        self._has_state = bool(jax.tree.leaves(self._state))
        self._has_extras = bool(jax.tree.leaves(policy.extras))
        self._key = random_key(seed)
        self._params: Any = None
        self.calls = 0
        """So far."""

    def update(self, params: Params) -> None:
        """Takes new parameters, a tree of arrays of the host or the device."""
        self._params = to_device(params)

    def compile(self, params: Params, observation: Any) -> None:
        """Compiles before there are parameters.

        Args:
          params: a tree of arrays, or of `jax.ShapeDtypeStruct`, like those that will come.
          observation: `[E, ...]`, like those that will come.
        """
        zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
        mask = np.ones(self._num_envs, np.bool_) if self._has_state else ()
        in_background(self._act, to_device(zeros), self._key, observation, self._state, mask)

    def __call__(self, observation: Any, begins: npt.NDArray[np.bool_]) -> tuple[Any, Any]:
        """Chooses actions.

        Args:
          observation: `[E, ...]`.
          begins: `[E]`: where an episode begins, and the state with it.

        Returns:
          Actions `[E, ...]` and extras, read-only arrays of the host.

        Raises:
          NotFinite: a score is not; the message names node, call and environment.
          UsageError: there are no parameters yet.
        """
        if self._params is None:
            raise UsageError("HostPolicy: there are no parameters yet; call update first")
        mask = begins if self._has_state else ()
        action, self._key, extras, self._state, finite = self._act(
            self._params, self._key, observation, self._state, mask
        )
        self.calls += 1
        check_finite(np.asarray(finite), self.calls)
        if self._has_extras:
            extras = jax.tree.map(np.asarray, extras)
        return np.asarray(action), extras


def random_key(seed: int) -> jax.Array:
    """The data of a key whose numbers cost a fraction of what jax's usual ones do on a CPU.

    The data, since a call that is given a key is slower than one that is given an array.
    """
    return jax.random.key_data(jax.random.key(seed, impl=_RANDOM))


def to_device(params: Params) -> Any:
    """The parameters as `act_in` takes them: a small tree as one vector for each type."""
    if sum(leaf.nbytes for leaf in jax.tree.leaves(params)) <= _FLAT_BYTES:
        return jax.device_put(Flat.of(params))
    return jax.device_put(params)


def check_finite(finite: npt.NDArray[np.bool_], step: int) -> None:
    """Raises NotFinite unless all scores are.

    Args:
      finite: `[E]`.
      step: of the node, for the message.
    """
    if not finite.all():
        raise NotFinite(
            f"{lpml.context().name}: the policy's scores are not finite at its step {step} in "
            f"environments {np.flatnonzero(~finite).tolist()}; look for a learning rate that is "
            "too high, or for observations that are not finite"
        )


def act_in(
    policy: Policy,
) -> Callable[[Any, jax.Array, Any, PolicyState, Any], tuple[Any, ...]]:
    """A step of a policy as one function for `jit`.

    Returns:
      `f(params, key, observation, state, begins) -> (action, key, extras, state, finite)`, with a
      key of `random_key`: takes the state back to the initial one where `begins` `[E]`, and says
      where all scores are finite, `[E]`. Where there is no state, `begins` is not looked at.
    """

    def act(
        params: Any, key: jax.Array, observation: Any, state: PolicyState, begins: Any
    ) -> tuple[Any, ...]:
        params = params.tree if isinstance(params, Flat) else params
        key, used = jax.random.split(jax.random.wrap_key_data(key, impl=_RANDOM))
        if jax.tree.leaves(state):
            initial = policy.init(begins.shape[0])
            state = jax.tree.map(partial(_where, begins), initial, state)
        output = policy.act(params, used, observation, state)
        axes = tuple(range(1, output.scores.ndim))
        finite = jnp.isfinite(output.scores).all(axis=axes)
        return output.action, jax.random.key_data(key), output.extras, output.state, finite

    return act


def _where(mask: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (old.ndim - 1)), new, old)
