"""The network of IMPALA: layers, a recurrent core or none, and the heads of policy and value.

E is the number of environments, T that of the steps of a rollout, A that of the actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from lpml.agents.torsos import are_frames, of_frames
from lpml.nodes.acting import PolicyState
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.roles import Params


class Heads(NamedTuple):
    """What the network says of observations."""

    logits: jax.Array
    """`[..., A]`: of the policy."""
    value: jax.Array
    """`[...]`."""


@dataclass(frozen=True)
class Networks:
    """One set of parameters, applied to a single step or to a whole rollout.

    Args:
      init: `init(key) -> Params`; the random key is consumed.
      initial: `initial(num_envs) -> PolicyState`, `[E, ...]`; `()` without a recurrent core.
      step: `step(params, observation [E, ...], state [E, ...]) -> (Heads, state)`.
      unroll: `unroll(params, observation [T, ...], begins [T], state [...]) -> Heads`, of one
        rollout. The state is set back before a row that begins an episode.
    """

    init: Callable[[jax.Array], Params]
    initial: Callable[[int], PolicyState]
    step: Callable[[Params, Any, PolicyState], tuple[Heads, PolicyState]]
    unroll: Callable[[Params, Any, jax.Array, PolicyState], Heads]


def make_networks(spec: EnvironmentSpec, hidden: tuple[int, ...], lstm: int) -> Networks:
    """The network for an environment with discrete actions.

    Args:
      spec: of the environment; the leaves of an observation are flattened and joined, frames of
        pixels pass through convolutions.
      hidden: widths of the layers.
      lstm: width of the recurrent core; 0 = none.
    """
    num_actions = spec.num_actions
    assert num_actions is not None

    def step(observation: Any, state: PolicyState) -> tuple[Heads, PolicyState]:
        features = _torso(hidden, _flatten(observation, spec.observation))
        if lstm:
            features, state = _core(lstm)(features, state)
        return _heads(num_actions, features), state

    def unroll(observation: Any, begins: jax.Array, state: PolicyState) -> Heads:
        features = _torso(hidden, _flatten(observation, spec.observation))
        if lstm:
            # Before the first row the state of the actor stands; it is 0 where that row begins.
            core: Any = hk.ResetCore(_core(lstm))
            unroll_core: Any = hk.dynamic_unroll  # without types
            features, _ = unroll_core(core, (features, begins), state)
        return _heads(num_actions, features)

    def initial(num_envs: int) -> PolicyState:
        if not lstm:
            return ()
        zeros = jnp.zeros((num_envs, lstm), jnp.float32)
        return hk.LSTMState(hidden=zeros, cell=zeros)

    stepping, unrolling = hk.transform(step), hk.transform(unroll)

    def init(key: jax.Array) -> Params:
        observation = jax.tree.map(
            lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), spec.observation
        )
        return stepping.init(key, observation, initial(1))

    return Networks(
        init,
        initial,
        step=lambda params, *given: stepping.apply(params, None, *given),
        unroll=lambda params, *given: unrolling.apply(params, None, *given),
    )


def _flatten(observation: Any, spec: Any) -> jax.Array:
    """`[N, ...]` of every leaf as one `[N, D]` of float32."""
    if are_frames(spec):
        return of_frames(jax.tree.leaves(observation)[0])
    leaves = zip(jax.tree.leaves(observation), jax.tree.leaves(spec), strict=True)
    flat = [
        leaf.astype(jnp.float32).reshape(leaf.shape[0], math.prod(of_one.shape))
        for leaf, of_one in leaves
    ]
    return jnp.concatenate(flat, axis=-1)


def _torso(hidden: tuple[int, ...], features: jax.Array) -> jax.Array:
    if not hidden:
        return features
    return hk.nets.MLP(hidden, activate_final=True, name="torso")(features)


def _core(lstm: int) -> hk.LSTM:
    return hk.LSTM(lstm, name="core")


def _heads(num_actions: int, features: jax.Array) -> Heads:
    # Small logits at the start: the first policy is almost uniform.
    small = hk.initializers.RandomNormal(1e-2)  # type: ignore[no-untyped-call]
    logits = hk.Linear(num_actions, w_init=small, name="policy")(features)
    value = hk.Linear(1, name="value")(features)
    return Heads(logits, value[..., 0])
