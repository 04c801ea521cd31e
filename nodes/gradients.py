"""What a parameter server does with parameters and gradients, without time or workers: pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lpml.nodes.flat import Flat, Layout
from lpml.nodes.roles import Params


def flat_params(params: Params) -> Flat:
    """Parameters as they are kept: in vectors on the device."""
    return jax.tree.map(jnp.asarray, Flat.of(jax.tree.map(_canonical, params)))  # type: ignore[no-any-return]


def _canonical(leaf: Any) -> Any:
    array = np.asarray(leaf)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)


def checked(grads: Params, weight: float, layout: Layout) -> Flat:
    """The gradient laid out as the parameters are, if it fits them."""
    if not 0 < weight < math.inf:
        raise ValueError(f"push(weight={weight}): give a finite number above 0")
    if isinstance(grads, Flat):
        if grads.layout == layout:
            return grads
        grads = grads.to_numpy().tree
    leaves, structure = jax.tree.flatten(grads)
    check_structure(structure, layout.structure)
    if tuple(map(np.shape, leaves)) != layout.shapes:
        raise ValueError(_misfit(grads, layout))
    cast = [_cast(leaf, dtype) for leaf, dtype in zip(leaves, layout.dtypes, strict=True)]
    return Flat.of(jax.tree.unflatten(structure, cast))


def _cast(leaf: Any, dtype: np.dtype[Any]) -> Any:
    return leaf.astype(dtype) if isinstance(leaf, jax.Array) else np.asarray(leaf, dtype)


def check_structure(given: object, expected: object) -> None:
    """Raises ValueError unless the structures of a gradient and of the parameters are equal."""
    if given != expected:
        raise ValueError(
            f"push: the gradient is a tree {given}, the parameters are {expected}; "
            "push a gradient with respect to all of them"
        )


def _misfit(grads: Params, layout: Layout) -> str:
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    faults = [
        f"{jax.tree_util.keystr(path)} has shape {np.shape(grad)} instead of {shape}"
        for (path, grad), shape in zip(leaves, layout.shapes, strict=True)
        if np.shape(grad) != shape
    ]
    return f"push: the gradient does not fit the parameters: {'; '.join(faults)}"


def compiled_update(
    optimizer: optax.GradientTransformation, params: Flat, opt_state: Params
) -> Callable[[Flat, Params, Flat], tuple[Flat, Params]]:
    """One update as a jitted function, compiled before the first worker waits for it.

    The optimiser sees trees; to take them out of the vectors and put them back costs nothing there.
    """

    def update(params: Flat, opt_state: Params, grads: Flat) -> tuple[Flat, Params]:
        tree = params.tree
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes types
            updates, opt_state = optimizer.update(grads.tree, opt_state, tree)
            return Flat.of(optax.apply_updates(tree, updates)), opt_state

    jitted: Any = jax.jit(update)
    jitted(params, opt_state, jax.tree.map(np.zeros_like, params))
    return jitted  # type: ignore[no-any-return]  # jax.jit forgets the signature


def bytes_of_flat(flat: Flat) -> list[memoryview]:
    """The numbers of a `Flat`, one buffer for each of its vectors; not copied on the CPU."""
    return [np.ascontiguousarray(vector).view(np.uint8).data for vector in flat.vectors]


def flat_of_bytes(content: bytes, like: Flat) -> Flat:
    """What `bytes_of_flat` gave, of a `Flat` that is laid out as `like`.

    Raises:
      ValueError: it was laid out otherwise.
    """
    sizes = [vector.nbytes for vector in like.vectors]
    if len(content) != sum(sizes):
        raise ValueError(
            f"a record of {len(content)} bytes is no gradient of these parameters, which have "
            f"{sum(sizes)}: the journal is of a server with others"
        )
    ends = np.cumsum(sizes)
    vectors = tuple(
        np.frombuffer(content[end - size : end], vector.dtype)
        for vector, size, end in zip(like.vectors, sizes, ends, strict=True)
    )
    return Flat(vectors, like.layout)


def weighted_mean(gradients: list[tuple[Flat, float]]) -> Flat:
    """The mean of gradients by their weights, summed in the order given."""
    total = sum(weight for _, weight in gradients)
    shares = [weight / total for _, weight in gradients]

    def mean(*vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any]
        result = np.multiply(vectors[0], np.asarray(shares[0], vectors[0].dtype))
        for vector, share in zip(vectors[1:], shares[1:], strict=True):
            result += np.multiply(vector, np.asarray(share, vector.dtype))
        return result

    found: Flat = jax.tree.map(mean, *[grads.to_numpy() for grads, _ in gradients])
    return found
