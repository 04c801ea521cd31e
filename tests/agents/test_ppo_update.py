"""An update of PPO: what it learns from, and by which gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents import normalisation
from lpml.agents.ppo import PPOBuilder, PPOConfig
from lpml.agents.ppo.learner import loss, make_rows, observe
from lpml.agents.ppo.networks import make_network
from lpml.nodes.replay import Adder, Replay, Sequence
from tests.agents.small_ppo import DISCRETE, SMALL, SPECS, made, quick_jit, started, valid_of


def same(one: Any, other: Any) -> bool:
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return np.array_equal(one, other)


@pytest.mark.parametrize("kind", SPECS)
def test_the_first_gradient_is_taken_at_the_policy_that_acted(kind: str) -> None:
    _, update = made(kind).update(*started(kind))
    assert float(update.metrics["lag_kl"]) == pytest.approx(0, abs=1e-6)
    assert float(update.metrics["kl"]) == pytest.approx(0, abs=1e-6)
    assert float(update.metrics["clip_fraction"]) == 0
    assert float(update.metrics["valid"]) == pytest.approx(9 / 11)


def test_a_batch_of_another_policy_shows_as_lag() -> None:
    state, experience = started("discrete")
    key = jax.random.key(3)
    other = jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), state.params)
    _, update = made("discrete").update(state._replace(params=other), experience)
    assert float(update.metrics["lag_kl"]) > 0.01


@pytest.mark.parametrize("kind", ["discrete", "free"])
def test_the_loss_is_that_of_the_paper_over_the_rows_with_an_action(kind: str) -> None:
    state, experience = started(kind)
    other = jax.tree.map(lambda x: 1.1 * x + 0.05, state.params)  # so that ratios are not 1
    network = made(kind).network
    rows, _, _ = make_rows(SMALL, network, state, experience.data.steps, valid_of(experience))
    outputs, value = network.apply(other, rows.observation)
    log_prob = network.head.log_prob(outputs, rows.raw)
    given = [
        np.asarray(x, np.float64)[np.asarray(rows.valid)] for x in (*rows[2:6], log_prob, value)
    ]
    old_log_prob, advantage, target, _, new_log_prob, new_value = given
    advantage = (advantage - advantage.mean()) / advantage.std()
    ratio = np.exp(new_log_prob - old_log_prob)
    surrogate = np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    entropy = network.head.entropy(outputs, jax.random.key(0))[rows.valid].mean()
    expected = -surrogate + 0.25 * ((new_value - target) ** 2).mean() - 0.01 * float(entropy)

    total, parts = loss(other, SMALL, network, rows, jax.random.key(0))
    assert float(total) == pytest.approx(expected, rel=1e-4)
    assert float(parts["clip_fraction"]) == pytest.approx((np.abs(ratio - 1) > 0.2).mean())


@pytest.mark.parametrize("kind", SPECS)
def test_nothing_is_learned_from_rows_without_an_action(kind: str) -> None:
    state, experience = started(kind)
    update = made(kind).update
    steps, valid = experience.data.steps, valid_of(experience)

    def spoil(x: jax.Array) -> jax.Array:
        wrong = jnp.full_like(x, 2 if jnp.issubdtype(x.dtype, jnp.integer) else 1e5)
        return jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, wrong)

    extras = {name: spoil(x) if name != "valid" else x for name, x in steps.extras.items()}
    spoilt = steps._replace(
        reward=spoil(steps.reward),
        discount=spoil(steps.discount),
        action=spoil(steps.action),
        extras=extras,
    )
    data = Sequence(spoilt, experience.data.mask)
    before, after = update(state, experience), update(state, experience._replace(data=data))
    assert jax.tree.all(jax.tree.map(same, before, after))


def test_advantages_of_windows_from_the_replay_are_those_of_the_episodes() -> None:
    config = PPOConfig(
        unroll_length=4, batch_size=4, hidden=(8,), minibatches=1, normalise_returns=False
    )
    builder = PPOBuilder(config)
    state = quick_jit(builder.algorithm(DISCRETE).init)(jax.random.key(0))
    network = make_network(config, DISCRETE)
    replay = Replay(builder.tables(DISCRETE))
    adder = Adder(replay, builder.cuts(DISCRETE))
    rng = np.random.default_rng(0)
    lengths, cut_off = [3, 1, 6, 4], [True, False, False, True]
    stream: list[tuple[Any, float, bool]] = []  # observation, reward, whether there is an action
    ends: list[tuple[int, int, bool]] = []  # of episodes: first row, last row, whether cut off
    for length, cut in zip(lengths, cut_off, strict=True):
        observations = rng.normal(size=(length + 1, 3)).astype(np.float32)
        rewards = rng.normal(size=length).astype(np.float32)
        ends.append((len(stream), len(stream) + length, cut))
        adder.first(observations[0])
        for t in range(length):
            last = t == length - 1
            extras = {"log_prob": np.float32(-1), "valid": np.bool_(True)}
            discount = 0.0 if last and not cut else 1.0
            adder.add(np.int32(1), rewards[t], discount, observations[t + 1], extras, last=last)
        stream += [(o, r, True) for o, r in zip(observations, rewards, strict=False)]
        stream.append((observations[-1], 0.0, False))
    adder.flush()
    sample = replay.sample("rollouts", 4, timeout=1.0)
    data = jax.tree.map(jnp.asarray, sample.data)
    valid = data.mask & data.steps.extras["valid"]
    rows, _, _ = make_rows(config, network, state, data.steps, valid)

    values = np.asarray(network.apply(state.params, np.stack([row[0] for row in stream]))[1])
    expected = np.zeros(16)
    for first, final, was_cut in ends:
        for t in range(first, min(final, 16)):  # rows of the four windows
            end = min(final, 4 * (t // 4) + 4)  # of the episode, or of the window
            for s in reversed(range(t, end)):
                following = values[s + 1] if s + 1 < final or was_cut else 0.0
                delta = stream[s][1] + 0.99 * following - values[s]
                expected[t] += (0.99 * 0.95) ** (s - t) * delta
    np.testing.assert_array_equal(rows.valid, [row[2] for row in stream[:16]])
    np.testing.assert_allclose(rows.advantage, expected, atol=1e-5)
    np.testing.assert_allclose((rows.target - rows.old_value), expected, atol=1e-5)


def test_statistics_of_observations_are_of_what_was_seen_and_reach_the_policy() -> None:
    agent = made("discrete")
    state = agent.init(jax.random.key(0))
    experience = agent.rollouts(agent.variables(state), jax.random.key(1))
    shifted = experience.data.steps._replace(observation=5 + experience.data.steps.observation)
    data = Sequence(shifted, experience.data.mask)
    state, _ = agent.update(state, experience._replace(data=data))
    seen = np.asarray(shifted.observation[:, :-1])[np.asarray(valid_of(experience)[:, :-1])]
    variables = agent.variables(state)
    assert variables.observations is not None
    np.testing.assert_allclose(variables.observations.mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variables.observations.variance, seen.var(0), rtol=1e-4)
    np.testing.assert_allclose(
        observe(variables.observations, jnp.asarray(seen)),
        (seen - seen.mean(0)) / seen.std(0),
        atol=1e-3,
    )


def test_values_are_predicted_in_deviations_of_the_returns() -> None:
    state, experience = started("free")
    steps = experience.data.steps
    steps = steps._replace(reward=1000 + 50 * steps.reward)
    network = made("free").network
    rows, returns, _ = make_rows(SMALL, network, state, steps, valid_of(experience))
    assert returns is not None
    assert float(jnp.abs(rows.target).max()) < 10
    exact = normalisation.denormalise(returns, rows.target)
    assert float(exact[rows.valid].mean()) > 900


def test_the_learning_rate_falls_to_its_last() -> None:
    per_update = SMALL.steps_per_update
    config = PPOConfig(
        unroll_length=11,
        batch_size=4,
        epochs=2,
        minibatches=2,
        hidden=(8,),
        anneal_steps=2 * per_update,
        anneal_to=0.0,
    )
    algorithm = PPOBuilder(config).algorithm(DISCRETE)
    update = quick_jit(algorithm.update)
    state = quick_jit(algorithm.init)(jax.random.key(0))
    _, experience = started("discrete")
    changed = []
    for _ in range(3):
        before = state.params
        state, _ = update(state, experience)
        changed.append(not jax.tree.all(jax.tree.map(jnp.array_equal, before, state.params)))
    assert changed == [True, True, False]
