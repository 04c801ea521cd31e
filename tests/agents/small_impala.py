"""A small IMPALA, rollouts for it, and V-trace as the paper writes it: what its tests share."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.impala.learner import Extras
from lpml.agents.impala.networks import Networks, make_networks
from lpml.nodes.acting import Policy
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Algorithm, Experience
from lpml.nodes.replay import Step

ACTIONS = 3
FLOAT, INT = np.dtype(np.float32), np.dtype(np.int32)
SPEC = EnvironmentSpec(
    observation=jax.ShapeDtypeStruct((4,), FLOAT),
    action=jax.ShapeDtypeStruct((), INT),
    num_actions=ACTIONS,
    name="a small one",
)
SMALL = ImpalaConfig(hidden=(8,), lstm=5, sequence_length=6, batch_size=3, reward_scale=0.1)


@functools.cache
def networks_of(hidden: int, lstm: int) -> Networks:
    """The network for `SPEC`, compiled."""
    networks = make_networks(SPEC, (hidden,), lstm)
    return dataclasses.replace(
        networks,
        init=jax.jit(networks.init),
        step=jax.jit(networks.step),
        unroll=jax.jit(networks.unroll),
    )


TRACES: Counter[ImpalaConfig] = Counter()
"""How often `update` of the agents of `parts_of` was traced."""


@functools.cache
def parts_of(config: ImpalaConfig) -> tuple[Policy, Algorithm]:
    """Of the agent for `SPEC`, compiled."""
    builder = ImpalaBuilder(config)
    policy, algorithm = builder.policy(SPEC), builder.algorithm(SPEC)

    def update(state: Any, batch: Experience) -> Any:
        TRACES[config] += 1
        return algorithm.update(state, batch)

    return (
        dataclasses.replace(policy, act=jax.jit(policy.act)),
        dataclasses.replace(algorithm, init=jax.jit(algorithm.init), update=jax.jit(update)),
    )


class Case(NamedTuple):
    """One rollout, in float64."""

    values: Any
    rewards: Any
    discounts: Any
    ratios: Any


def single_array(values: Any) -> jax.Array:
    return jnp.asarray(values, jnp.float32)


def equation_1(
    case: Case, *, lambda_: float = 1.0, clip_rho: float = 1.0, clip_c: float = 1.0
) -> tuple[Any, Any]:
    """V-trace as equation (1) writes it: a double sum of products, in float64."""
    values, rewards, discounts, ratios = case
    length = len(rewards)
    rho, c = np.minimum(ratios, clip_rho), lambda_ * np.minimum(ratios, clip_c)
    targets = values.copy()
    for s in range(length):
        for t in range(s, length):
            before = np.prod([discounts[i] * c[i] for i in range(s, t)])
            delta = rho[t] * (rewards[t] + discounts[t] * values[t + 1] - values[t])
            targets[s] += before * delta
    following = lambda_ * targets[1:] + (1 - lambda_) * values[1:]
    return targets[:-1], rho * (rewards + discounts * following - values[:-1])


def rollout(networks: Any, params: Any, seed: int, lengths: list[int], *, first: int = 0) -> Step:
    """Rows of episodes one after another, each with its last observation; `[N, ...]`.

    The behaviour policy is another one than the target's; the states are those of acting with
    `params`. Odd episodes are cut off by time.

    Args:
      first: rows of the first episode that are left out: the rollout begins in its midst.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number, length in enumerate(lengths):
        state = networks.initial(1)
        for t in range(length + 1):
            observation = rng.normal(size=(1, 4)).astype(np.float32)
            valid, last = t < length, t == length - 1
            discount = 0.0 if (last and number % 2 == 0) or not valid else 1.0
            extras = Extras(
                valid=np.bool_(valid),
                logits=rng.normal(size=ACTIONS).astype(np.float32) * valid,
                state=jax.tree.map(
                    lambda leaf, v=valid: np.asarray(leaf[0]) * np.float32(v), state
                ),
                updates=np.int32(7 * valid),
            )
            action = np.int32(rng.integers(ACTIONS) * valid)
            reward = np.float32(rng.normal() * valid)
            rows.append(Step(observation[0], action, reward, np.float32(discount), extras))
            _, state = networks.step(params, observation, state)
    stacked: Step = jax.tree.map(lambda *leaves: np.stack(leaves), *rows[first:])
    return stacked
