"""The terms of PPO's loss against slow references in float64, and against rlax if it is there."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpml.agents.ppo import losses
from lpml.agents.ppo.heads import Categorical, Gaussian, Normal

Floats = npt.NDArray[np.float64]
GAMMA, LAMBDA = 0.97, 0.9


def advantages_by_episode(
    rewards: Floats, discounts: Floats, values: Floats, valid: npt.NDArray[np.bool_]
) -> Floats:
    """The sum of eq. (16) of Schulman et al. (2016), spelled out for each piece of an episode."""
    steps = len(rewards)
    result = np.zeros(steps)
    for t in range(steps):
        weight, s = 1.0, t
        while s < steps and valid[s]:
            following = GAMMA * values[s + 1] if discounts[s] else 0.0
            result[t] += weight * (rewards[s] + following - values[s])
            if not discounts[s]:
                break
            weight *= GAMMA * LAMBDA
            s += 1
    return result


def window(
    ends: list[str], length: int, seed: int
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Rows of a stream: `ends[i]` says how the episode ends that row i belongs to, or goes on."""
    rng = np.random.default_rng(seed)
    valid, discounts = np.ones(length, bool), np.ones(length)
    for t, end in enumerate(ends[: length - 1]):
        if end != "goes on" and valid[t]:
            valid[t + 1] = False
            discounts[t] = float(end == "cut off")
    discounts[~valid] = 0
    rewards = rng.normal(size=length) * valid
    return rewards, discounts, rng.normal(size=length + 1), valid


def advantages(rewards: Any, discounts: Any, values: Any, valid: Any) -> Any:
    given = [jnp.asarray(x, jnp.float32) for x in (rewards, GAMMA * discounts, values)]
    return _jitted(*given, jnp.asarray(valid))


_jitted = jax.jit(functools.partial(losses.generalised_advantages, lambda_=LAMBDA))


@given(
    st.lists(st.sampled_from(["goes on", "goes on", "ends", "cut off"]), min_size=9, max_size=9),
    st.integers(0, 99),
)
@settings(deadline=None)  # the first compiles
def test_advantages_are_those_of_each_episode_alone(ends: list[str], seed: int) -> None:
    rows = window(ends, 10, seed)
    np.testing.assert_allclose(advantages(*rows), advantages_by_episode(*rows), atol=2e-6)


def test_an_episode_that_is_cut_off_ends_in_the_value_of_its_last_observation() -> None:
    valid = np.array([True, False, True])
    cut, ended = np.array([1.0, 0, 1]), np.array([0.0, 0, 1])
    rewards, values = np.array([1.0, 0, 0]), np.array([0.0, 10, 0, 0])
    assert advantages(rewards, cut, values, valid)[0] == pytest.approx(1 + GAMMA * 10)
    assert advantages(rewards, ended, values, valid)[0] == pytest.approx(1)


def test_what_happens_in_one_episode_changes_no_advantage_of_another() -> None:
    rewards, discounts, values, valid = window(["goes on", "cut off"], 6, 0)
    before = advantages(rewards, discounts, values, valid)
    rewards[3:] += 5.0
    after = advantages(rewards, discounts, values, valid)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert not np.allclose(before[3:], after[3:])


def test_the_surrogate_brings_nothing_beyond_the_clip() -> None:
    rng = np.random.default_rng(0)
    log_ratio, advantage = rng.normal(scale=0.3, size=50), rng.normal(size=50)
    ratio = np.exp(log_ratio)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    given = jnp.asarray(log_ratio, jnp.float32), jnp.asarray(advantage, jnp.float32)
    np.testing.assert_allclose(losses.clipped_surrogate(*given, 0.2), expected, rtol=1e-5)
    slope = jax.vmap(jax.grad(losses.clipped_surrogate), (0, 0, None))(*given, 0.2)
    beyond = np.where(advantage > 0, ratio > 1.2, ratio < 0.8)
    np.testing.assert_array_equal(np.asarray(slope) == 0, beyond)


@pytest.mark.parametrize(("clip", "expected"), [(0.0, [0.5, 2.0]), (0.25, [3.0625 / 2, 2.0])])
def test_the_value_loss_is_the_worse_of_the_value_and_one_near_the_old(
    clip: float, expected: list[float]
) -> None:
    value, target, old = jnp.array([2.0, 0.0]), jnp.array([3.0, 2.0]), jnp.array([1.0, 1.0])
    np.testing.assert_allclose(losses.value_loss(value, target, old, clip), expected)


def test_means_count_only_what_is_not_masked() -> None:
    x = jnp.array([1.0, 3.0, jnp.inf, 100.0])
    mask = jnp.array([True, True, False, False])
    assert float(losses.masked_mean(x, mask)) == 2
    assert float(losses.masked_mean(x, jnp.zeros(4, bool))) == 0
    result = losses.standardise(jnp.array([1.0, 3.0, 100.0]), mask[:3])
    np.testing.assert_allclose(result[:2], [-1, 1], rtol=1e-6)


def test_the_estimate_of_the_divergence_is_that_of_two_normals() -> None:
    x = np.random.default_rng(0).normal(size=200_000)  # drawn by mu = N(0, 1); pi = N(0.3, 1)
    log_ratio = -0.5 * (x - 0.3) ** 2 + 0.5 * x**2
    estimate = losses.approximate_kl(jnp.asarray(log_ratio, jnp.float32))
    assert float(estimate.mean()) == pytest.approx(0.5 * 0.3**2, rel=0.02)
    assert float(estimate.min()) >= 0


def test_a_categorical_head_gives_the_probabilities_of_its_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    head, outputs, key = Categorical(4), jnp.asarray(logits, jnp.float32), jax.random.key(0)
    action = jnp.arange(6) % 4
    expected = np.log(p[np.arange(6), np.arange(6) % 4])
    np.testing.assert_allclose(head.log_prob(outputs, action), expected, rtol=1e-5)
    np.testing.assert_allclose(head.entropy(outputs, key), -(p * np.log(p)).sum(-1), rtol=1e-5)
    np.testing.assert_array_equal(head.mode(outputs), p.argmax(-1))
    drawn = head.sample(jnp.broadcast_to(outputs[0], (20_000, 4)), key)
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, p[0], atol=0.02)


def normal(mean: Floats, std: Floats) -> Normal:
    return Normal(jnp.asarray(mean, jnp.float32), jnp.asarray(np.log(std), jnp.float32))


def test_a_gaussian_head_gives_the_density_of_independent_normals() -> None:
    mean, std = np.array([[0.5, -1.0], [2.0, 0.0]]), np.array([0.3, 2.0])
    x = np.array([[0.4, 0.0], [2.5, -3.0]])
    density = np.exp(-0.5 * ((x - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    head, outputs, key = Gaussian((2,)), normal(mean, std), jax.random.key(0)
    result = head.log_prob(outputs, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(result, np.log(density).sum(-1), rtol=1e-5)
    entropy = np.log(std * math.sqrt(2 * math.pi * math.e)).sum()
    np.testing.assert_allclose(head.entropy(outputs, key), [entropy] * 2, rtol=1e-5)
    np.testing.assert_array_equal(head.action(head.mode(outputs)), outputs.mean)


def test_the_entropy_of_a_squashed_head_is_that_of_the_density_of_the_tanh() -> None:
    mean, std = 0.4, 0.7
    low, high = np.array([-1.0]), np.array([1.0])
    head = Gaussian((1,), low=low, high=high)
    outputs = normal(np.full((100_000, 1), mean), np.array([std]))
    estimate = head.entropy(outputs, jax.random.key(0)).mean()
    y = np.linspace(-1, 1, 200_001)[1:-1]
    u = np.arctanh(y)
    p = np.exp(-0.5 * ((u - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi)) / (1 - y**2)
    exact = -np.trapezoid(p * np.log(np.maximum(p, 1e-300)), y)
    assert float(estimate) == pytest.approx(exact, abs=0.01)


@pytest.mark.parametrize("squash", [True, False])
def test_bounded_actions_keep_their_bounds(squash: bool) -> None:
    low, high = np.array([[-2.0, 0.0]]), np.array([[2.0, 10.0]])
    head = Gaussian((1, 2), jnp.float32, low, high, squash)
    outputs = normal(np.array([[0.0, 0.0], [40.0, -40.0]]), np.array([0.1, 0.1]))
    assert head.action(head.mode(outputs)).tolist() == [[[0.0, 5.0]], [[2.0, 0.0]]]
    raw = head.sample(outputs, jax.random.key(0))
    assert raw.shape == (2, 2)
    assert np.isfinite(head.log_prob(outputs, raw)).all()
    assert np.isfinite(head.entropy(outputs, jax.random.key(1))).all()


def test_rlax_finds_the_same() -> None:
    rlax = pytest.importorskip("rlax")
    rewards, discounts, values, _ = window(["goes on"] * 3 + ["ends"], 10, 1)
    discounts[:] = [1, 1, 1, 0, 1, 1, 1, 1, 1, 1]
    given = [jnp.asarray(x, jnp.float32) for x in (rewards, GAMMA * discounts, values)]
    theirs = rlax.truncated_generalized_advantage_estimation(given[0], given[1], LAMBDA, given[2])
    ours = losses.generalised_advantages(given[0], given[1], given[2], jnp.ones(10, bool), LAMBDA)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    log_ratio, advantage = given[0] * 0.3, given[2][1:]
    theirs = rlax.clipped_surrogate_pg_loss(jnp.exp(log_ratio), advantage, 0.2)
    ours = losses.clipped_surrogate(log_ratio, advantage, 0.2).mean()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
