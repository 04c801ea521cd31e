"""IMPALA: its update, its policy, its options, and that it learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.agents.environments import make_environment
from lpml.agents.impala import ImpalaBuilder, ImpalaConfig
from lpml.agents.impala.learner import make_optimizer
from lpml.agents.impala.networks import make_networks
from lpml.agents.loop import train
from lpml.nodes.environment import EnvironmentSpec
from lpml.nodes.learning import Experience
from lpml.nodes.replay import Adder, Replay, Sequence
from tests.agents.small_impala import (
    ACTIONS,
    FLOAT,
    SMALL,
    SPEC,
    TRACES,
    networks_of,
    parts_of,
    rollout,
    single_array,
)


def experience(networks: Any, params: Any, config: ImpalaConfig) -> Experience:
    rows = [
        rollout(networks, params, seed, [4, 9], first=seed % 3) for seed in range(config.batch_size)
    ]
    length = config.sequence_length + 1
    cut = [jax.tree.map(lambda leaf: leaf[:length], one) for one in rows]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *cut)
    ones = jnp.ones(config.batch_size, jnp.float32)
    mask = np.ones((config.batch_size, length), np.bool_)
    return Experience(Sequence(batch, mask), ones, jnp.float32(1))


def test_an_update_compiles_once_and_reports_finite_scalars() -> None:
    _, algorithm = parts_of(SMALL)
    state = algorithm.init(jax.random.key(0))
    networks = networks_of(8, 5)
    batch = experience(networks, state.params, SMALL)
    before = TRACES[SMALL]
    state, outcome = algorithm.update(state, batch)
    for _ in range(2):
        state, outcome = algorithm.update(state, batch)
    assert (before, TRACES[SMALL]) in ((0, 1), (1, 1))
    assert int(state.updates) == int(algorithm.variables(state).updates) == 3
    assert "loss" in outcome.metrics
    for name, value in outcome.metrics.items():
        assert value.shape == (), name
        assert value.dtype == np.float32, name
        assert np.isfinite(value), name
    assert outcome.priorities is None


def test_the_lag_is_that_of_the_steps_between_their_policy_and_the_update() -> None:
    _, algorithm = parts_of(SMALL)
    networks = networks_of(8, 5)
    state = algorithm.init(jax.random.key(0))
    batch = experience(networks, state.params, SMALL)
    updates = batch.data.steps.extras.updates  # 7 in every step
    updates[0][updates[0] == 7] = 3
    _, outcome = algorithm.update(state._replace(updates=jnp.int32(9)), batch)
    steps = batch.data.steps.extras.valid[:, :-1]
    lag = np.where(np.arange(3)[:, None] == 0, 6, 2)
    assert outcome.metrics["max_policy_lag"] == 6
    np.testing.assert_allclose(outcome.metrics["policy_lag"], lag.repeat(6, 1)[steps].mean())


def test_the_learning_rate_falls_to_zero_in_a_line() -> None:
    optimizer = make_optimizer(dataclasses.replace(SMALL, decay_updates=4, rms_decay=0.0))
    params = jnp.zeros((1,))
    state, sizes = optimizer.init(params), []
    for _ in range(6):
        change, state = optimizer.update(jnp.full((1,), 0.5), state, params)
        sizes.append(-np.asarray(change).item() / SMALL.learning_rate)
    np.testing.assert_allclose(sizes, [1, 0.75, 0.5, 0.25, 0, 0], rtol=1e-3)


def test_learning_repeats_itself_for_a_key() -> None:
    _, algorithm = parts_of(SMALL)
    networks = networks_of(8, 5)
    batch = experience(networks, algorithm.init(jax.random.key(0)).params, SMALL)
    first, second, other = (
        algorithm.update(algorithm.init(jax.random.key(seed)), batch)[0].params
        for seed in (0, 0, 1)
    )
    same = jax.tree.map(np.array_equal, first, second)
    assert all(jax.tree.leaves(same))
    assert not np.array_equal(first["torso/~/linear_0"]["w"], other["torso/~/linear_0"]["w"])


def test_the_evaluation_takes_the_most_probable_action_and_the_actor_draws() -> None:
    acting, algorithm = parts_of(SMALL)
    variables = algorithm.variables(algorithm.init(jax.random.key(0)))
    observation = np.repeat(np.ones((1, 4), np.float32), 64, axis=0)
    greedy = ImpalaBuilder(SMALL).policy(SPEC, evaluation=True)
    act = jax.jit(greedy.act)
    best = act(variables, jax.random.key(1), observation, greedy.init(64))
    drawn = acting.act(variables, jax.random.key(1), observation, acting.init(64))
    assert (best.action == np.argmax(best.scores, axis=-1)).all()
    assert set(np.unique(drawn.action)) == set(range(ACTIONS))
    assert drawn.action.dtype == SPEC.action.dtype
    for leaf, one in zip(
        jax.tree.leaves(drawn.extras), jax.tree.leaves(acting.extras), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == ((64, *one.shape), one.dtype)


def test_steps_go_through_the_replay_in_rollouts_that_run_on() -> None:
    builder = ImpalaBuilder(SMALL)
    replay = Replay(builder.tables(SPEC))
    adder = Adder(replay, builder.cuts(SPEC), num_envs=2)
    policy, algorithm = parts_of(SMALL)
    state = algorithm.init(jax.random.key(0))
    memory, begins = policy.init(2), np.ones(2, np.bool_)
    observation = np.ones((2, 4), np.float32)
    for t in range(13):
        if begins.any():
            adder.first(observation, begins)
            memory = jax.tree.map(lambda old, b=begins: np.where(b[:, None], 0, old), memory)
        out = policy.act(algorithm.variables(state), jax.random.key(t), observation, memory)
        memory, begins = out.state, np.array([t == 4, t == 8])
        extras = jax.tree.map(np.asarray, out.extras)
        adder.add(
            np.asarray(out.action), np.ones(2), 1.0 - begins, observation, extras, last=begins
        )
    adder.flush()
    sample = replay.sample("rollouts", 3, 0.0)
    data = sample.data
    assert data.mask.all()
    assert data.steps.reward.shape == (3, 7)
    # One environment's rows: five steps, the last observation, and so on.
    assert data.steps.extras.valid[0].tolist() == [True] * 5 + [False, True]
    assert not data.steps.extras.state.hidden[0, 6].any()
    info = sample.info
    drawn = Experience(data, single_array(info.probabilities), single_array(info.size))
    _, outcome = algorithm.update(state, drawn)
    np.testing.assert_allclose(outcome.metrics["importance_ratio"], 1.0, rtol=1e-5)
    adder.close()


def test_without_a_recurrent_core_there_is_no_state() -> None:
    builder = ImpalaBuilder(ImpalaConfig(hidden=(8, 8), lstm=0))
    policy = builder.policy(SPEC)
    assert policy.init(3) == ()
    assert policy.extras.state == ()


def test_a_tree_of_observations_is_joined() -> None:
    byte = jax.ShapeDtypeStruct((2, 3), np.dtype(np.uint8))
    spec = EnvironmentSpec({"a": byte, "b": jax.ShapeDtypeStruct((), FLOAT)}, SPEC.action, ACTIONS)
    networks = make_networks(spec, (8,), 0)
    params = jax.eval_shape(networks.init, jax.random.key(0))
    assert params["torso/~/linear_0"]["w"].shape == (7, 8)


def test_continuous_actions_are_refused() -> None:
    spec = EnvironmentSpec(SPEC.observation, jax.ShapeDtypeStruct((2,), FLOAT), name="Pendulum-v1")
    with pytest.raises(lpml.UsageError, match=r"Pendulum-v1 are continuous .* take ppo"):
        ImpalaBuilder().policy(spec)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"queue_batches": 0}, {"lstm": -1}, {"hidden": (64, 0)}, {"discount": 2.0}],
    ids=str,
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(lpml.UsageError, match=next(iter(options))):
        ImpalaConfig(**options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "config", "enough", "steps"),
    [
        ("Catch", ImpalaConfig(), 0.95, 300_000),
        ("CartPole-v1", ImpalaConfig(reward_scale=0.1), 475.0, 400_000),
    ],
)
def test_it_solves(name: str, config: ImpalaConfig, enough: float, steps: int) -> None:
    result = train(
        ImpalaBuilder(config),
        make_environment(name, 16),
        num_steps=steps,
        eval_environment=make_environment(name, 20, seed=1),
        evaluate_every=10_000,
        episodes=40,
        stop_return=enough,
    )
    assert result.final_return >= enough
