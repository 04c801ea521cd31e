"""What rollouts bring: rows put together as windows, and sums over their episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lpml.nodes.replay import Sequence, Step


class EpisodeSums(NamedTuple):
    """Of one rollout, `[]`."""

    steps: jax.Array
    """int32: ticks that were steps."""
    episodes: jax.Array
    """int32: that ended; the next two are sums over these."""
    returns: jax.Array
    lengths: jax.Array
    is_bad: jax.Array
    """Whether any environment ever was not finite."""


def windows(rows: Step, observation: Any, ended: jax.Array) -> Sequence:
    """Rows `[T, E, ...]` and the one after them as windows `[E, T + 1, ...]`.

    Args:
      rows: zero where there was no step, but for the observation.
      observation: `[E, ...]`, of the row after them.
      ended: `[E]`: whether that is the last of an episode.
    """
    end = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), rows)
    end = end._replace(observation=observation, extras=with_valid(end.extras, ~ended))
    steps = jax.tree.map(
        lambda column, row: jnp.swapaxes(jnp.concatenate([column, row[None]]), 0, 1), rows, end
    )
    mask: Any = jnp.ones(steps.reward.shape, jnp.bool_)
    return Sequence(steps, mask)


def with_valid(extras: Any, valid: Any) -> Any:
    """The extras of a row, or several, with this as their `valid`, if they have one."""
    if isinstance(extras, Mapping):
        return {**extras, "valid": valid} if "valid" in extras else extras
    if "valid" in getattr(extras, "_fields", ()):
        return extras._replace(valid=valid)
    return extras


def select(which: jax.Array, chosen: Any, other: Any) -> Any:
    """Trees `[E, ...]`: the rows of one where `which` `[E]`, else those of the other."""

    def one(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(one, chosen, other)
