"""What a learner does on the device: several updates in one call, and its state as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lpml.errors import UsageError
from lpml.nodes.compiling import run_once
from lpml.nodes.flat import Flat
from lpml.nodes.learning import Algorithm, Experience, LearnerState, Update


class Functions(NamedTuple):
    """What a learner calls on the device; the state is packed, and given away by `update`."""

    init: Callable[[jax.Array], Any]
    update: Callable[..., tuple[Any, Update, jax.Array]]
    state: Callable[[Any], LearnerState]
    """A copy, not packed."""
    pack: Callable[[LearnerState], Any]
    variables: Callable[[Any], Any]
    """A copy of what actors get."""
    no_bad: Callable[[Any], jax.Array]
    """`[]` int32: -1, the number of the first bad update before there is one, beside the state."""

    @classmethod
    def of(cls, algorithm: Algorithm, updates: int, batch_size: int, *, flat: bool) -> Functions:
        def init(key: jax.Array) -> LearnerState:
            return strong(algorithm.init(key))

        pack, unpack = packing(jax.eval_shape(init, jax.random.key(0)))
        many = many_updates(algorithm, updates, batch_size)

        def update(packed: Any, *args: Any) -> tuple[Any, Update, jax.Array]:
            state, update, bad = many(unpack(packed), *args)
            return pack(state), update, bad

        def copy(packed: Any) -> LearnerState:
            return jax.tree.map(jnp.copy, unpack(packed))

        def variables(packed: Any) -> Any:
            params = algorithm.variables(copy(packed))
            return Flat.of(params) if flat else params

        return cls(
            partial(run_once, lambda key: pack(init(key))),
            jax.jit(update, donate_argnums=0),
            jax.jit(copy),
            jax.jit(pack),
            jax.jit(variables),
            jax.jit(lambda packed: jnp.full((), -1, jnp.int32), keep_unused=True),
        )


def many_updates(
    algorithm: Algorithm, updates: int, batch_size: int
) -> Callable[..., tuple[LearnerState, Update, jax.Array]]:
    """K updates as one function, and the first of them whose metrics were not finite.

    Args:
      algorithm: of the updates.
      updates: K.
      batch_size: B.

    Returns:
      `f(state, data, probability, size, bad, version) -> (state, Update, bad)`: data and
      probability `[K * B, ...]`; `bad` is -1 or the first bad update so far, `version` the
      updates made before. Metrics are means over the K, priorities `[K * B]`.
    """

    def one(
        carry: tuple[LearnerState, jax.Array, jax.Array], experience: Experience
    ) -> tuple[tuple[LearnerState, jax.Array, jax.Array], Update]:
        state, bad, version = carry
        state, update = algorithm.update(state, experience)
        finite = jnp.ones((), bool)
        for metric in update.metrics.values():
            finite &= jnp.all(jnp.isfinite(metric))
        state, version = strong(state), version + 1
        bad = jnp.where((bad < 0) & ~finite, version, bad)
        return (state, bad, version), update

    def many(
        state: LearnerState,
        data: Any,
        probability: jax.Array,
        size: jax.Array,
        bad: jax.Array,
        version: jax.Array,
    ) -> tuple[LearnerState, Update, jax.Array]:
        if updates == 1:
            carry, update = one((state, bad, version), Experience(data, probability, size))
            return carry[0], update, carry[1]

        def split(leaf: jax.Array) -> jax.Array:
            return leaf.reshape(updates, batch_size, *leaf.shape[1:])

        batches = Experience(
            jax.tree.map(split, data), split(probability), jnp.broadcast_to(size, (updates,))
        )
        carry, several = jax.lax.scan(one, (state, bad, version), batches)
        metrics = {name: jnp.mean(value) for name, value in several.metrics.items()}
        priorities = several.priorities
        if priorities is not None:
            priorities = priorities.reshape(updates * batch_size)
        return carry[0], Update(metrics, priorities), carry[1]

    return many


_FLAT_BYTES = 1 << 24  # up to which copying a state is cheaper than handing over its many arrays


def packing(
    state: LearnerState,
) -> tuple[Callable[[LearnerState], Any], Callable[[Any], LearnerState]]:
    """How a state is kept between calls of the device, and how it is read again, both in `jit`.

    A small state of many arrays is one vector for each type of number.

    Args:
      state: its tree of `jax.ShapeDtypeStruct`.
    """
    leaves = jax.tree.leaves(state)
    if any(map(_is_key, leaves)) or sum(leaf.size for leaf in leaves) * 4 > _FLAT_BYTES:
        return _same, _same
    return Flat.of, _tree


def _same(state: LearnerState) -> LearnerState:
    return state


def _tree(flat: Flat) -> LearnerState:
    return flat.tree


def strong(state: LearnerState) -> LearnerState:
    """The same values, none of a weak type, so that every call has arguments of the same types."""

    def cast(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf) if isinstance(leaf, int | float) else leaf
        return leaf if _is_key(leaf) else jnp.asarray(leaf, leaf.dtype)

    return jax.tree.map(cast, state)


def to_arrays(state: LearnerState) -> dict[str, np.ndarray[Any, Any]]:
    """The leaves of a state by their paths; random keys as their data."""
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def from_arrays(arrays: Mapping[str, Any], like: LearnerState) -> LearnerState:
    """A state as `like`, with the leaves that `to_arrays` gave.

    Raises:
      UsageError: their names or shapes are not those of `like`.
    """
    given = {name: np.shape(array) for name, array in arrays.items()}
    wanted = {name: array.shape for name, array in to_arrays(like).items()}
    if given != wanted:
        wrong = sorted(name for name in {*given, *wanted} if given.get(name) != wanted.get(name))
        raise UsageError(
            f"restore: {wrong[0]} was saved with shape {given.get(wrong[0])}, this algorithm's "
            f"state has {wanted.get(wrong[0])}; make it with the same options"
        )

    def leaf(path: Any, old: jax.Array) -> jax.Array:
        array = arrays[jax.tree_util.keystr(path)]
        if not _is_key(old):
            return jnp.asarray(array, old.dtype)
        key: jax.Array = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(old))
        return key

    return jax.tree_util.tree_map_with_path(leaf, like)


def _is_key(leaf: jax.Array) -> bool:
    return bool(jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key))
