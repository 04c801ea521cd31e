"""The network of PPO: layers over what an observation holds, a policy and a value on top.

Letters: `[...]` are any axes in front of an observation's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp

from lpml.agents.ppo.config import PPOConfig
from lpml.agents.ppo.heads import AbstractHead, Normal, make_head
from lpml.agents.torsos import are_frames, of_frames
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.roles import Params

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
_ZERO = hk.initializers.Constant(0.0)  # `_draw_weights` draws the others
_GAINS = {"policy": 0.01, "value": 1.0}
"""Of the last layers; sqrt(2) of the others."""


@dataclass(frozen=True)
class Network:
    """Pure functions.

    Args:
      init: `init(key) -> Params`; the random key is consumed.
      apply: `apply(params, observation) -> (outputs, value)` for a tree of floats `[..., *shape]`:
        what `head` takes, and values `[...]`. What is not used is not computed under jit.
      head: what the outputs mean.
    """

    init: Callable[[jax.Array], Params]
    apply: Callable[[Params, Any], tuple[Any, jax.Array]]
    head: AbstractHead


def make_network(config: PPOConfig, spec: EnvironmentSpec) -> Network:
    """Orthogonal layers; the last of the policy is small, so that it begins near uniform.

    Frames of pixels pass through convolutions first.

    Reference: Andrychowicz et al., "What Matters In On-Policy Reinforcement Learning?" (2021),
    section 3.2.
    """
    head = make_head(spec, squash=config.squash)
    shapes = [leaf.shape for leaf in jax.tree.leaves(spec.observation)]

    frames = are_frames(spec.observation)

    def forward(observation: Any) -> tuple[Any, jax.Array]:
        if frames:
            flat = of_frames(jax.tree.leaves(observation)[0], _ZERO)
        else:
            flat = _flatten(observation, shapes)
        shared = _torso(config, "torso")(flat) if config.shared_torso else None
        of_policy = _torso(config, "policy_torso")(flat) if shared is None else shared
        of_value = _torso(config, "value_torso")(flat) if shared is None else shared
        outputs: Any = _linear(head.size, "policy")(of_policy)
        if head.has_deviation:
            initial = hk.initializers.Constant(math.log(config.initial_std))
            log_std = hk.get_parameter("log_std", [head.size], jnp.float32, init=initial)
            outputs = Normal(outputs, log_std)
        return outputs, _linear(1, "value")(of_value)[..., 0]

    transformed: Any = hk.without_apply_rng(hk.transform(forward))

    def init(key: jax.Array) -> Params:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), spec.observation)
        return _draw_weights(transformed.init(None, zeros), key)

    return Network(init, transformed.apply, head)


def _torso(config: PPOConfig, name: str) -> Callable[[jax.Array], jax.Array]:
    activation = _ACTIVATIONS[config.activation]
    layers: list[Callable[[jax.Array], jax.Array]] = []
    for index, units in enumerate(config.hidden):
        layers += [_linear(units, f"{name}_{index}"), activation]
    return hk.Sequential(layers, name)


def _linear(units: int, name: str) -> hk.Linear:
    return hk.Linear(units, w_init=_ZERO, name=name)


def _draw_weights(params: Any, key: jax.Array) -> Any:
    """The same with orthogonal weights, of one draw: jax compiles each for half a second."""
    shapes = {
        name: (math.prod(module["w"].shape[:-1]), module["w"].shape[-1])
        for name, module in params.items()
        if "w" in module
    }
    draw = jax.random.normal(key, (sum(rows * columns for rows, columns in shapes.values()),))
    drawn, begin = {name: dict(module) for name, module in params.items()}, 0
    for name, (rows, columns) in shapes.items():
        noise = draw[begin : begin + rows * columns]
        begin += rows * columns
        q, r = jnp.linalg.qr(noise.reshape(max(rows, columns), -1))
        q = q * jnp.sign(jnp.diag(r))[None]  # every orthogonal matrix is as likely
        weights = _GAINS.get(name, math.sqrt(2.0)) * (q if rows >= columns else q.T)
        drawn[name]["w"] = weights.reshape(params[name]["w"].shape)
    return drawn


def _flatten(observation: Any, shapes: list[tuple[int, ...]]) -> jax.Array:
    """All leaves `[..., *shape]` as one vector `[..., F]`."""
    leaves = jax.tree.leaves(observation)
    flat = [
        leaf.astype(jnp.float32).reshape(*leaf.shape[: leaf.ndim - len(shape)], -1)
        for leaf, shape in zip(leaves, shapes, strict=True)
    ]
    return jnp.concatenate(flat, axis=-1)
