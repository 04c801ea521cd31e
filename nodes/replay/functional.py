"""Replay as pure functions inside `jit`, for a learner and environments on one device.

The same semantics as a table of the service with the view `Transitions`: each step is stored
once, the last step of an episode holds its last observation, items are n-step windows, an item of
priority zero is never drawn. The state is a pytree of arrays; every function can be jitted,
scanned and donated.

Letters: E environments, C steps kept of each, B items of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import jax
import jax.numpy as jnp

from lpml.errors import UsageError
from lpml.nodes.replay.views import Step, Transition

_FAN = 32


class BufferState(NamedTuple):
    """Steps and weights. The leaf of step t of environment e is `e * C + t % C`."""

    steps: Any
    """`[E * C, ...]`."""
    ends: jax.Array
    """`[E * C]` bool: the last step of an episode."""
    items: jax.Array
    """`[E * C]` bool: the item that begins at a step is complete."""
    inserted: jax.Array
    """int32: steps inserted so far, of each environment."""
    highest: jax.Array
    """float32: the highest weight given so far, or 0."""
    leaves: jax.Array
    """`[N, 32]` float32: the weight with which the item that begins at a step is drawn."""
    middle: jax.Array
    """`[N / 32, 32]`: sums of 32 leaves."""
    top: jax.Array
    """`[N / 1024]`: sums of 32 of these."""


class BufferSample(NamedTuple):
    """A batch of `B` items."""

    data: Transition
    indices: jax.Array
    """int32 `[B]`, for `update_priorities`. Good until the step is overwritten."""
    probabilities: jax.Array
    """float32 `[B]`, of each draw."""


@final
@dataclass(frozen=True)
class Buffer:
    """Pure functions over a `BufferState`; made by `make_buffer`."""

    init: Callable[[Any], BufferState]
    """`init(step)`: an empty buffer for steps like this `Step` (no leading axis)."""
    insert: Callable[[BufferState, Any, jax.Array], BufferState]
    """`insert(state, steps, ends)`: one step `[E, ...]` of each environment; `ends` `[E]` says
    where it is the last of its episode, with nothing but an observation."""
    can_sample: Callable[[BufferState, int], jax.Array]
    """`can_sample(state, min_size)`: whether at least `min_size >= 1` items can be drawn."""
    sample: Callable[[BufferState, jax.Array, int], BufferSample]
    """`sample(state, key, batch_size)`: with replacement; the key is consumed. Meaningless
    unless `can_sample(state, 1)`."""
    update_priorities: Callable[[BufferState, jax.Array, jax.Array], BufferState]
    """`update_priorities(state, indices, priorities)`: of items that are still there; of a
    repeated index any one counts."""


def make_buffer(
    capacity: int,
    num_envs: int = 1,
    *,
    n_step: int = 1,
    discount: float = 0.99,
    priority_exponent: float | None = None,
) -> Buffer:
    """A ring of steps in device memory that is sampled as n-step transitions.

    Args:
      capacity: C, steps kept of each environment, more than `n_step`.
      num_envs: E.
      n_step: actions between the two observations of an item.
      discount: gamma, per action.
      priority_exponent: power of the priorities in the probabilities; `None` = uniform.

    Raises:
      UsageError: a number is out of range.

    Reference: Schaul, Quan, Antonoglou, Silver, "Prioritized Experience Replay" (2016), eq. (1).
    """
    if n_step < 1 or num_envs < 1 or capacity <= n_step or not 0 <= discount <= 1:
        raise UsageError(
            f"make_buffer(capacity={capacity}, num_envs={num_envs}, n_step={n_step}, "
            f"discount={discount}): give capacity > n_step >= 1, num_envs >= 1, discount in [0, 1]"
        )
    rows = jnp.arange(num_envs, dtype=jnp.int32) * capacity

    def init(step: Any) -> BufferState:
        if not isinstance(step, Step):
            raise UsageError(f"init({type(step).__name__}): give a lpml.nodes.replay.Step")
        size = num_envs * capacity
        tops = -(-size // _FAN**2)
        return BufferState(
            steps=jax.tree.map(lambda x: jnp.zeros((size, *jnp.shape(x)), _dtype(x)), step),
            ends=jnp.zeros(size, bool),
            items=jnp.zeros(size, bool),
            inserted=jnp.int32(0),
            highest=jnp.float32(0),
            leaves=jnp.zeros((tops * _FAN, _FAN), jnp.float32),
            middle=jnp.zeros((tops, _FAN), jnp.float32),
            top=jnp.zeros(tops, jnp.float32),
        )

    def insert(state: BufferState, steps: Any, ends: jax.Array) -> BufferState:
        here = rows + state.inserted % capacity
        state = state._replace(
            steps=jax.tree.map(lambda mine, new: mine.at[here].set(new), state.steps, steps),
            ends=state.ends.at[here].set(ends),
            items=state.items.at[here].set(False),
        )
        # Back from this step: item k steps ago is complete if nothing ended in between.
        indices, weights = [here], [jnp.zeros(num_envs, jnp.float32)]
        fresh = jnp.where(state.highest > 0, state.highest, jnp.float32(1))
        within = jnp.ones(num_envs, bool)  # of the same episode
        for k in range(1, n_step + 1):
            before = rows + (state.inserted - k) % capacity
            within &= (state.inserted >= k) & ~state.ends[before]
            complete = within & (ends | (k == n_step))
            state = state._replace(items=state.items.at[before].max(complete))
            indices.append(before)
            weights.append(jnp.where(complete, fresh, _leaf(state, before)))
        state = state._replace(inserted=state.inserted + 1)
        return _set(state, jnp.concatenate(indices), jnp.concatenate(weights))

    def can_sample(state: BufferState, min_size: int) -> jax.Array:
        return jnp.count_nonzero(state.leaves) >= jnp.maximum(1, min_size)

    def sample(state: BufferState, key: jax.Array, batch_size: int) -> BufferSample:
        indices = _find(state, jax.random.uniform(key, (batch_size,)))
        probabilities = _leaf(state, indices) / state.top.sum()
        return BufferSample(_read(state, indices), indices, probabilities)

    def update_priorities(
        state: BufferState, indices: jax.Array, priorities: jax.Array
    ) -> BufferState:
        if priority_exponent is None:
            return state
        positive = priorities > 0
        powers = jnp.where(positive, priorities, 1).astype(jnp.float32) ** priority_exponent
        weights = jnp.where(positive, powers, jnp.float32(0))
        state = state._replace(highest=jnp.maximum(state.highest, weights.max(initial=0)))
        return _set(state, indices, jnp.where(state.items[indices], weights, 0))

    def _read(state: BufferState, indices: jax.Array) -> Transition:
        base, time = indices // capacity * capacity, indices % capacity
        steps: Step = state.steps
        reward = steps.reward[indices]
        total = steps.discount[indices] * jnp.asarray(discount, steps.discount.dtype)
        last = base + (time + 1) % capacity
        for i in range(1, n_step):
            at = base + (time + i) % capacity
            going = ~state.ends[at] & (last == at)
            shape = going.reshape(-1, *[1] * (reward.ndim - 1))
            gamma = jnp.asarray(discount, total.dtype)
            reward = jnp.where(shape, reward + total * steps.reward[at], reward)
            total = jnp.where(shape, total * gamma * steps.discount[at], total)
            last = jnp.where(going, base + (time + i + 1) % capacity, last)
        return Transition(
            observation=_rows(steps.observation, indices),
            action=_rows(steps.action, indices),
            reward=reward,
            discount=total,
            next_observation=_rows(steps.observation, last),
            extras=_rows(steps.extras, indices),
        )

    return Buffer(init, insert, can_sample, sample, update_priorities)


def _dtype(leaf: Any) -> Any:
    return jnp.asarray(leaf).dtype if not hasattr(leaf, "dtype") else leaf.dtype


def _rows(columns: Any, indices: jax.Array) -> Any:
    return jax.tree.map(lambda column: column[indices], columns)


def _leaf(state: BufferState, indices: jax.Array) -> jax.Array:
    return state.leaves[indices // _FAN, indices % _FAN]


def _set(state: BufferState, indices: jax.Array, weights: jax.Array) -> BufferState:
    """New weights; sums are recomputed from their children, so rounding does not build up."""
    leaves = state.leaves.at[indices // _FAN, indices % _FAN].set(weights)
    parents = indices // _FAN
    middle = state.middle.at[parents // _FAN, parents % _FAN].set(leaves[parents].sum(axis=1))
    grandparents = parents // _FAN
    top = state.top.at[grandparents].set(middle[grandparents].sum(axis=1))
    return state._replace(leaves=leaves, middle=middle, top=top)


def _find(state: BufferState, points: jax.Array) -> jax.Array:
    """The leaves at `points`, in [0, 1), of the running sum; never one of weight zero.

    In float32 a running sum may be rounded past a point. So a child is chosen among those that
    have a weight: the first whose running sum exceeds the point, else the last.
    """
    running = jnp.cumsum(state.top)
    points = points * running[-1]
    positive = state.top > 0
    places = jnp.arange(state.top.size, dtype=jnp.int32)
    latest = jax.lax.cummax(jnp.where(positive, places, -1))  # the last positive one up to here
    block = latest[jnp.clip(jnp.searchsorted(running, points, side="right"), 0, places[-1])]
    block = jnp.where(block < 0, jnp.argmax(positive).astype(jnp.int32), block)
    points = points - jnp.where(block > 0, running[block - 1], 0)
    for children in (state.middle, state.leaves):
        child = _first_above(children[block], points)
        inner = jnp.cumsum(children[block], axis=1)
        before = jnp.take_along_axis(inner, jnp.maximum(child - 1, 0)[:, None], axis=1)[:, 0]
        points = points - jnp.where(child > 0, before, 0)
        block = block * _FAN + child
    return block


def _first_above(weights: jax.Array, points: jax.Array) -> jax.Array:
    positive = weights > 0
    above = positive & (jnp.cumsum(weights, axis=1) > points[:, None])
    last = weights.shape[1] - 1 - jnp.argmax(positive[:, ::-1], axis=1)
    return jnp.where(above.any(axis=1), jnp.argmax(above, axis=1), last).astype(jnp.int32)
