"""Networks that value every action: a torso for vectors or images, and a plain or dueling head.

Letters: B batch, A actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from lpml.agents.dqn.config import DQNConfig
from lpml.agents.torsos import are_frames, of_frames
from lpml.nodes import Params
from lpml.nodes.environment import EnvironmentSpec


class QNetwork(NamedTuple):
    """A network as two pure functions."""

    init: Callable[[jax.Array], Params]
    """`init(key)`: parameters; the key is consumed."""
    apply: Callable[[Params, Any], jax.Array]
    """`apply(params, observation)`: action values `[B, A]` of observations `[B, ...]`."""


def make_network(spec: EnvironmentSpec, config: DQNConfig) -> QNetwork:
    """The network for observations and actions of `spec`, whose actions are discrete.

    An observation that is one array of bytes `[H, W, C]` is an image; any other tree of arrays
    is flattened. Integers of 8 bits are scaled to [0, 1].
    """
    assert spec.num_actions is not None
    num_actions = spec.num_actions

    def forward(observation: Any) -> jax.Array:
        return q_values(torso(observation), config.hidden_sizes, num_actions, config.dueling)

    network = hk.transform(forward)

    def init(key: jax.Array) -> Params:
        zeros = jax.tree.map(lambda x: jnp.zeros((1, *x.shape), x.dtype), spec.observation)
        return network.init(key, zeros)

    def apply(params: Params, observation: Any) -> jax.Array:
        values: jax.Array = network.apply(params, None, observation)
        return values

    return QNetwork(init, apply)


def torso(observation: Any) -> jax.Array:
    """Observations `[B, ...]` as features `[B, F]` of float32."""
    leaves = jax.tree.leaves(observation)
    if are_frames(observation, lead=1):
        return of_frames(leaves[0])
    return jnp.concatenate([_flat(_as_float(leaf)) for leaf in leaves], axis=1)


def q_values(
    features: jax.Array, hidden_sizes: tuple[int, ...], num_actions: int, dueling: bool
) -> jax.Array:
    """Action values `[B, A]` of features `[B, F]`.

    Dueling: `Q = V + A - mean_a A`, Wang et al. (2016), eq. (9); the streams part after the
    hidden layers.
    """
    hidden = hk.nets.MLP(hidden_sizes, activate_final=True)(features) if hidden_sizes else features
    advantage = hk.Linear(num_actions, name="advantage")(hidden)
    if not dueling:
        return advantage
    value = hk.Linear(1, name="value")(hidden)
    return combine(value, advantage)


def combine(value: jax.Array, advantage: jax.Array) -> jax.Array:
    """`Q = V + A - mean_a A`, Wang et al. (2016), eq. (9), of `[B, 1]` and `[B, A]`."""
    centred: jax.Array = advantage - advantage.mean(axis=-1, keepdims=True)
    return value + centred


def _as_float(leaf: jax.Array) -> jax.Array:
    scale = 1 / 255 if leaf.dtype == jnp.uint8 else 1
    return leaf.astype(jnp.float32) * scale


def _flat(array: jax.Array) -> jax.Array:
    return array.reshape(array.shape[0], math.prod(array.shape[1:]))
