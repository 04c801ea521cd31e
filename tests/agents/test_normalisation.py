"""Running statistics against numpy in float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpml.agents import normalisation

update = jax.jit(normalisation.update, static_argnames="max_rows")
normalise = jax.jit(normalisation.normalise, static_argnames="limit")
OFFSET = 1000.0  # a mean that is large beside the deviation: the naive formula cancels


def rows(seed: int, count: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "far": jnp.asarray(OFFSET + rng.normal(size=(count, 3)), jnp.float32),
        "near": jnp.asarray(rng.integers(0, 200, count), jnp.uint8),
    }


def moments(leaf: Any) -> tuple[Any, Any]:
    exact = np.asarray(leaf, np.float64)
    return exact.mean(0), exact.var(0)


def test_batches_are_merged_as_if_they_had_come_at_once() -> None:
    batches = [rows(seed, count) for seed, count in enumerate((7, 1, 32))]
    statistics = normalisation.init(jax.tree.map(lambda x: x[0], batches[0]))
    for batch in batches:
        statistics = update(statistics, batch, jnp.ones(len(batch["far"]), bool))
    assert float(statistics.rows) == 40
    for name in ("far", "near"):
        mean, variance = moments(np.concatenate([batch[name] for batch in batches]))
        np.testing.assert_allclose(statistics.mean[name], mean, rtol=1e-6)
        np.testing.assert_allclose(statistics.variance[name], variance, rtol=1e-4)


def test_rows_that_are_masked_do_not_count() -> None:
    data, mask = rows(0, 12), jnp.arange(12).reshape(3, 4) % 3 > 0
    start = normalisation.init(jax.tree.map(lambda x: x[0], data))
    shaped = jax.tree.map(lambda x: x.reshape(3, 4, *x.shape[1:]), data)
    shaped["far"] = jnp.where(mask[..., None], shaped["far"], jnp.nan)
    statistics = update(start, shaped, mask)
    mean, variance = moments(data["far"][np.asarray(mask).ravel()])
    np.testing.assert_allclose(statistics.mean["far"], mean, rtol=1e-6)
    np.testing.assert_allclose(statistics.variance["far"], variance, rtol=1e-4)
    nothing = update(start, shaped, jnp.zeros((3, 4), bool))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, start, nothing))


def test_nothing_seen_changes_nothing() -> None:
    data = rows(0, 5)
    statistics = normalisation.init(jax.tree.map(lambda x: x[0], data))
    result = normalise(statistics, data, limit=1e6)
    np.testing.assert_allclose(result["far"], data["far"], rtol=1e-5)
    assert result["near"].dtype == jnp.float32


def test_normalised_data_have_mean_0_and_deviation_1_and_come_back() -> None:
    data = rows(1, 400)
    start = normalisation.init(jax.tree.map(lambda x: x[0], data))
    statistics = update(start, data, jnp.ones(400, bool))
    result = normalise(statistics, data)
    np.testing.assert_allclose(result["far"].mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(result["far"].std(0), 1, atol=1e-3)
    back = normalisation.denormalise(statistics, result)
    np.testing.assert_allclose(back["far"], data["far"], rtol=1e-5)


def test_outliers_are_cut_off() -> None:
    start = normalisation.init(jnp.zeros(()))
    statistics = update(start, jnp.zeros(100), jnp.ones(100, bool))
    assert float(normalise(statistics, jnp.float32(5), limit=3.0)) == 3.0


@pytest.mark.parametrize(("limit", "expected"), [(float("inf"), 5.0), (10.0, 9.99)])
def test_statistics_with_a_limit_forget(limit: float, expected: float) -> None:
    statistics = normalisation.init(jnp.zeros(()))
    for value, times in ((0.0, 10), (10.0, 10)):
        for _ in range(times):
            batch = jnp.full(10, value)
            statistics = update(statistics, batch, jnp.ones(10, bool), max_rows=limit)
    assert float(statistics.mean) == pytest.approx(expected, rel=1e-3)
