"""Running mean and variance of what streams by, as pure functions, and what is made of them.

Letters: N is every axis in front that is averaged over. Statistics are trees like the data's,
without N, of float32; one count is kept for the whole tree.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class RunningStatistics(NamedTuple):
    """Mean and variance of the rows seen so far. A tree of arrays: it goes where params go."""

    rows: jax.Array
    """`[]` float32: rows seen, or fewer where the newest count for more."""
    mean: Any
    variance: Any
    """Biased: the mean of squared distances. Ones before the first row."""


def init(structure: Any) -> RunningStatistics:
    """Of no rows yet: `normalise` leaves what it is given as it is.

    Args:
      structure: one row, a tree of arrays or of `jax.ShapeDtypeStruct`.
    """
    return RunningStatistics(
        rows=jnp.zeros((), jnp.float32),
        mean=jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), structure),
        variance=jax.tree.map(lambda leaf: jnp.ones(leaf.shape, jnp.float32), structure),
    )


def update(
    statistics: RunningStatistics,
    rows: Any,
    mask: jax.Array,
    *,
    max_rows: float = float("inf"),
) -> RunningStatistics:
    """The statistics with `rows` added, in one pass that does not cancel.

    Args:
      statistics: so far.
      rows: a tree `[N, ...]`; N may be several axes, those of `mask`.
      mask: `[N]`: which rows count.
      max_rows: what was seen before never weighs more than so many rows: from then on the
        statistics forget, by the share of the new rows. Infinite = every row weighs the same.

    Reference: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances" (1979), eq. (2.1).
    """
    new = jnp.sum(mask, dtype=jnp.float32)
    total = statistics.rows + new
    whole = jnp.maximum(total, 1.0)  # there is no half row, and none changes nothing

    def merge(mean: jax.Array, variance: jax.Array, leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(mask.ndim))
        counted = mask.reshape(*mask.shape, *[1] * mean.ndim)
        x = leaf.astype(jnp.float32)
        new_mean = jnp.sum(jnp.where(counted, x, 0.0), axes) / jnp.maximum(new, 1.0)
        distance = jnp.where(counted, x - _expand(new_mean, x.ndim), 0.0)
        delta = new_mean - mean
        squares = statistics.rows * variance + jnp.sum(distance**2, axes)
        squares = squares + delta**2 * (statistics.rows * new / whole)
        return mean + delta * (new / whole), jnp.where(total > 0, squares / whole, variance)

    means, structure = jax.tree.flatten(statistics.mean)
    variances = jax.tree.leaves(statistics.variance)
    merged = [
        merge(*leaves) for leaves in zip(means, variances, jax.tree.leaves(rows), strict=True)
    ]
    return RunningStatistics(
        rows=jnp.minimum(total, max_rows),
        mean=jax.tree.unflatten(structure, [mean for mean, _ in merged]),
        variance=jax.tree.unflatten(structure, [variance for _, variance in merged]),
    )


def normalise(
    statistics: RunningStatistics, data: Any, *, limit: float = 10.0, epsilon: float = 1e-6
) -> Any:
    """Distances from the mean in standard deviations, float32, cut off at `limit`.

    Args:
      statistics: of one row.
      data: a tree with any axes in front of a row's.
      limit: largest absolute value returned: a feature that almost never changed would else be
        enormous when it does.
      epsilon: added to the variance.
    """

    def one(mean: jax.Array, variance: jax.Array, leaf: jax.Array) -> jax.Array:
        x = leaf.astype(jnp.float32)
        scale = jax.lax.rsqrt(variance + epsilon)
        return jnp.clip((x - _expand(mean, x.ndim)) * _expand(scale, x.ndim), -limit, limit)

    return jax.tree.map(one, statistics.mean, statistics.variance, data)


def denormalise(statistics: RunningStatistics, data: Any, *, epsilon: float = 1e-6) -> Any:
    """The inverse of `normalise`, but for the limit."""

    def one(mean: jax.Array, variance: jax.Array, leaf: jax.Array) -> jax.Array:
        scale = jnp.sqrt(variance + epsilon)
        return leaf * _expand(scale, leaf.ndim) + _expand(mean, leaf.ndim)

    return jax.tree.map(one, statistics.mean, statistics.variance, data)


def _expand(leaf: jax.Array, ndim: int) -> jax.Array:
    return leaf.reshape(*[1] * (ndim - leaf.ndim), *leaf.shape)
