"""PPO: its policy, its options, and that it learns."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents.ppo import PPOBuilder, PPOConfig, recommended
from lpml.errors import UsageError
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.replay import Step
from tests.agents.small_ppo import (
    BOUNDED,
    DISCRETE,
    FREE,
    SMALL,
    SPECS,
    VECTOR,
    Reward,
    made,
    matched,
    near,
    rollouts,
)


@pytest.mark.parametrize("kind", SPECS)
def test_the_policy_records_what_the_tables_hold(kind: str) -> None:
    spec, builder, agent = SPECS[kind], PPOBuilder(SMALL), made(kind)
    policy, variables = builder.policy(spec), agent.variables(agent.init(jax.random.key(0)))
    observation = np.ones((5, 3), np.float32)
    out = agent.act(variables, jax.random.key(1), observation, policy.init(5))
    kept = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), out.extras)
    assert kept == policy.extras
    assert (out.action.shape, out.action.dtype) == ((5, *spec.action.shape), spec.action.dtype)
    assert np.isfinite(out.scores).all()
    (table,) = builder.tables(spec)
    one = Step(observation, out.action, np.float32(0), np.float32(0), out.extras)
    table.signature.flatten(one, "test")


@pytest.mark.parametrize("kind", SPECS)
def test_an_evaluation_does_not_explore(kind: str) -> None:
    agent = made(kind)
    variables = agent.variables(agent.init(jax.random.key(0)))
    observation = jax.random.normal(jax.random.key(1), (5, 3))

    def actions(act: Any, seed: int) -> list[Any]:
        chosen = act(variables, jax.random.key(seed), observation, ()).action
        return [np.asarray(chosen).tolist()]

    assert actions(agent.evaluate, 0) == actions(agent.evaluate, 1)
    assert len({str(actions(agent.act, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("spec", "config", "reward", "best"),
    [
        (DISCRETE, {"shared_torso": True}, matched, 0.9),
        (BOUNDED, {"normalise_returns": True}, near, -0.2),
        (FREE, {"value_clip": 0.2, "squash": False}, near, -0.2),
    ],
)
def test_it_learns_in_one_jitted_loop_with_the_policy(
    spec: EnvironmentSpec, config: dict[str, Any], reward: Reward, best: float
) -> None:
    config = {"entropy_cost": 0.0, "learning_rate": 3e-3, "discount": 0.5, **config}
    builder = PPOBuilder(PPOConfig(unroll_length=32, batch_size=8, hidden=(16,), **config))
    algorithm = builder.algorithm(spec)

    def one(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        experience = rollouts(builder, spec, reward, algorithm.variables(state), key)
        state, _ = algorithm.update(state, experience)
        steps = experience.data.steps
        return state, jnp.sum(steps.reward) / jnp.sum(steps.extras["valid"], dtype=jnp.float32)

    @jax.jit
    def learn(seed: jax.Array) -> jax.Array:
        state = algorithm.init(seed)
        return jax.lax.scan(one, state, jax.random.split(seed, 60))[1]

    rewards = learn(jax.random.key(0))
    assert float(rewards[0]) < best - 0.3
    assert float(rewards[-5:].mean()) > best


def test_a_builder_is_a_value() -> None:
    builder = PPOBuilder(recommended("CartPole-v1"))
    assert pickle.loads(pickle.dumps(builder)) == builder
    assert builder != PPOBuilder(PPOConfig(clip_ratio=0.3))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"minibatches": 7}, "do not divide into minibatches=7"),
        ({"epochs": 0}, "epochs=0"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"clip_ratio": 0.0}, "clip_ratio=0.0"),
        ({"entropy_cost": -1.0}, "entropy_cost=-1.0"),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PPOConfig(**wrong)


def test_actions_that_have_no_head_are_refused() -> None:
    pair = jax.ShapeDtypeStruct((2,), jnp.int32)
    with pytest.raises(UsageError, match="one discrete action or with an array of floats"):
        PPOBuilder(SMALL).tables(EnvironmentSpec(VECTOR, pair, num_actions=4, name="pairs"))
