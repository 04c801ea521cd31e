"""A small PPO for each kind of action, and rollouts of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.agents.ppo.networks import Network, make_network
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Sequence, Step

LIMIT = np.array([2.0], np.float32)
VECTOR = jax.ShapeDtypeStruct((3,), jnp.float32)
DISCRETE = EnvironmentSpec(VECTOR, jax.ShapeDtypeStruct((), jnp.int32), num_actions=3)
BOUNDED = EnvironmentSpec(
    VECTOR, jax.ShapeDtypeStruct((1,), jnp.float32), low=-LIMIT, high=LIMIT, name="bounded"
)
FREE = EnvironmentSpec(VECTOR, jax.ShapeDtypeStruct((1,), jnp.float32))
SPECS = {"discrete": DISCRETE, "bounded": BOUNDED, "free": FREE}
SMALL = PPOConfig(
    unroll_length=11, batch_size=4, epochs=1, minibatches=1, hidden=(8,), normalise_returns=True
)

Reward = Callable[[jax.Array, jax.Array], jax.Array]


def matched(observation: jax.Array, action: jax.Array) -> jax.Array:
    """1 for the action that the observation names."""
    return (jnp.argmax(observation, -1) == action).astype(jnp.float32)


def near(observation: jax.Array, action: jax.Array) -> jax.Array:
    """Best at 1 or at -1, as the observation says."""
    return -((action[..., 0] - jnp.sign(observation[..., 0])) ** 2)


def rollouts(
    builder: PPOBuilder, spec: EnvironmentSpec, reward: Reward, variables: Any, key: jax.Array
) -> Experience:
    """Windows with an episode of four steps in every five rows; half of them are cut off."""
    config = builder.config
    shape = (config.batch_size, config.unroll_length + 1)
    observation_key, action_key = jax.random.split(key)
    observation = jax.random.normal(observation_key, (*shape, 3))
    flat = observation.reshape(-1, 3)
    out = builder.policy(spec).act(variables, action_key, flat, ())
    action = out.action.reshape(*shape, *spec.action.shape)
    extras = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), out.extras)
    place = jnp.broadcast_to(jnp.arange(shape[1]), shape)
    acted, ends = place % 5 != 4, place % 10 == 3
    discount = (acted & ~ends).astype(jnp.float32)
    rewards = jnp.where(acted, reward(observation, action), 0.0)
    steps = Step(observation, action, rewards, discount, {**extras, "valid": acted})
    ones = jnp.ones(shape[0])
    mask: Any = jnp.ones(shape, bool)
    return Experience(Sequence(steps, mask), ones, jnp.float32(shape[0]))


class Made(NamedTuple):
    """The jitted parts of an agent."""

    init: Any
    update: Any
    variables: Any
    act: Any
    evaluate: Any
    rollouts: Any
    network: Network


def quick_jit(function: Any) -> Any:
    """Compiled sooner, for what runs a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "0"})


@functools.cache
def made(kind: str) -> Made:
    """Of the small agent; compiled once for all tests."""
    spec, builder = SPECS[kind], PPOBuilder(SMALL)
    algorithm = builder.algorithm(spec)
    reward = matched if spec.num_actions else near
    network = make_network(SMALL, spec)
    return Made(
        init=quick_jit(algorithm.init),
        update=quick_jit(algorithm.update),
        variables=algorithm.variables,
        act=quick_jit(builder.policy(spec).act),
        evaluate=quick_jit(builder.policy(spec, evaluation=True).act),
        rollouts=quick_jit(functools.partial(rollouts, builder, spec, reward)),
        network=dataclasses.replace(network, apply=quick_jit(network.apply)),
    )


@functools.cache
def started(kind: str) -> tuple[Any, Experience]:
    """A learner's state after one update, and rollouts of its policy."""
    agent = made(kind)
    state = agent.init(jax.random.key(0))
    state, _ = agent.update(state, agent.rollouts(agent.variables(state), jax.random.key(1)))
    return state, agent.rollouts(agent.variables(state), jax.random.key(2))


def valid_of(experience: Experience) -> jax.Array:
    valid: jax.Array = experience.data.mask & experience.data.steps.extras["valid"]
    return valid
