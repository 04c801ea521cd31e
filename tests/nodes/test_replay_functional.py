"""Replay inside jit: the same items as the service."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lpml
from lpml.nodes.replay import Adder, CutTransitions, Replay, Step, TableConfig, Transitions
from lpml.nodes.replay.functional import _find, _set, make_buffer

STEP = Step(np.zeros(2, np.float32), np.int32(0), np.float32(0), np.float32(0))
ENVS = 3


def play(length: int, seed: int) -> list[tuple[Step, np.ndarray[Any, Any]]]:
    """Steps `[E]` of environments whose episodes end at random; observations are unique."""
    rng = np.random.default_rng(seed)
    played = []
    ending = np.zeros(ENVS, bool)
    for time in range(length):
        ends = ending
        ending = ~ends & (rng.random(ENVS) < 0.3) & (time > 0)
        observation = np.stack([np.full(ENVS, time), np.arange(ENVS)], 1).astype(np.float32)
        reward = np.where(ends, 0, rng.random(ENVS)).astype(np.float32)
        discount = (~ends & ~(ending & (rng.random(ENVS) < 0.5))).astype(np.float32)
        played.append((Step(observation, np.full(ENVS, time, np.int32), reward, discount), ends))
    return played


def items_of_service(
    played: list[tuple[Step, np.ndarray[Any, Any]]], n_step: int
) -> dict[tuple[float, ...], Any]:
    replay = Replay([TableConfig("t", STEP, 10_000, Transitions(n_step, 0.9))])
    adder = Adder(replay, {"t": CutTransitions(n_step)}, num_envs=ENVS)
    adder.first(played[0][0].observation)
    for (step, ends), (following, ending) in itertools.pairwise(played):
        if ends.any():
            adder.first(following.observation, envs=ends)
        if (~ends).any():
            adder.add(
                step.action,
                step.reward,
                step.discount,
                following.observation,
                last=ending,
                envs=~ends,
            )
    adder.flush()
    return by_observation(replay.sample("t", 20_000).data)


def by_observation(data: Any) -> dict[tuple[float, ...], Any]:
    columns = [np.asarray(column) for column in data[1:5]]
    keys = map(tuple, np.asarray(data.observation).tolist())
    return dict(zip(keys, zip(*columns, strict=True), strict=True))


@pytest.mark.parametrize("n_step", [3])
def test_items_inside_jit_are_those_of_the_service(n_step: int) -> None:
    played = play(40, seed=n_step)
    buffer = make_buffer(64, ENVS, n_step=n_step, discount=0.9)
    steps = jax.tree.map(lambda *rows: jnp.stack(rows), *[step for step, _ in played])
    ends = jnp.stack([ends for _, ends in played])
    state, _ = jax.lax.scan(
        lambda state, row: (buffer.insert(state, *row), None), buffer.init(STEP), (steps, ends)
    )
    sample = jax.jit(buffer.sample, static_argnums=2)(state, jax.random.key(0), 5_000)
    inside, outside = by_observation(sample.data), items_of_service(played, n_step)
    # The service has not yet seen the last step, whose action has no consequence yet.
    missing = set(inside) - set(outside)
    assert set(outside) <= set(inside)
    assert all(key[0] >= 40 - n_step - 1 for key in missing)
    for key, item in outside.items():
        for mine, theirs in zip(inside[key], item, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-6)


@pytest.mark.slow
def test_a_ring_forgets_the_oldest_steps() -> None:
    buffer = make_buffer(8, 1, n_step=2)
    insert = jax.jit(buffer.insert, donate_argnums=0)
    state = buffer.init(STEP)
    can_sample = jax.jit(buffer.can_sample)
    for time in range(21):
        step = Step(*(np.full((1, *x.shape), time, x.dtype) for x in STEP[:4]))
        state = insert(state, step, np.zeros(1, bool))
        assert bool(can_sample(state, 1)) == (time >= 2)
    data = jax.jit(buffer.sample, static_argnums=2)(state, jax.random.key(1), 500).data
    assert set(data.action.tolist()) == set(range(13, 19))
    np.testing.assert_array_equal(data.next_observation[:, 0], data.action + 2)


def test_priorities_decide_and_zero_is_never_drawn() -> None:
    buffer = make_buffer(100, 1, priority_exponent=0.5)
    steps = jax.tree.map(lambda leaf: jnp.zeros((51, 1, *leaf.shape), leaf.dtype), STEP)
    state, _ = jax.lax.scan(
        lambda state, row: (buffer.insert(state, *row), None),
        buffer.init(STEP),
        (steps, jnp.zeros((51, 1), bool)),
    )
    sample_jit = jax.jit(buffer.sample, static_argnums=2)
    update = jax.jit(buffer.update_priorities)
    indices = jnp.arange(60)  # ten of them are no items
    state = update(state, indices, jnp.where(indices % 2 == 0, 0.0, 4.0))
    state = update(state, jnp.array([7]), jnp.array([16.0]))
    sample = sample_jit(state, jax.random.key(2), 26_000)
    counts = np.bincount(np.asarray(sample.indices), minlength=100)
    assert not counts[::2].any()
    assert not counts[50:].any()
    assert abs(int(counts[7]) - 2000) < 250
    assert abs(int(counts[9]) - 1000) < 180
    probabilities = np.asarray(sample.probabilities)[np.asarray(sample.indices) == 7]
    np.testing.assert_allclose(probabilities, 4 / 52, rtol=1e-5)
    state = update(state, jnp.array([2]), jnp.array([1e6]))
    assert (sample_jit(state, jax.random.key(3), 26_000).indices == 2).any()  # it comes back


@pytest.mark.slow
def test_float32_sums_never_lead_to_a_weight_of_zero() -> None:
    rng = np.random.default_rng(0)
    state = make_buffer(5000, 1).init(STEP)
    change, find = jax.jit(_set), jax.jit(_find)
    for scale in (1e-30, 1e-3, 1.0, 1e30):
        sparse = np.where(rng.random(5000) < 0.02, rng.random(5000) * scale, 0)
        weights = sparse.astype(np.float32)
        state = change(state, jnp.arange(5000), weights)
        points = jnp.append(jax.random.uniform(jax.random.key(0), (3000,)), jnp.array([0.0, 1.0]))
        assert (weights[np.asarray(find(state, points))] > 0).all()


def test_a_buffer_that_cannot_be_is_refused() -> None:
    with pytest.raises(lpml.UsageError, match="capacity > n_step"):
        make_buffer(3, 1, n_step=3)
    with pytest.raises(lpml.UsageError, match=r"lpml.nodes.replay.Step"):
        make_buffer(3).init({"observation": np.zeros(2)})
