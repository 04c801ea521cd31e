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


def checked(grads: Params, weight: float, layout: Layout) -> Params:
    """The gradient as a tree, if it fits parameters of that layout."""
    if not 0 < weight < math.inf:
        raise ValueError(f"push(weight={weight}): give a finite number above 0")
    if isinstance(grads, Flat):
        fits = grads.layout == layout
        grads = grads.to_numpy().tree
        if fits:
            return grads
    leaves, structure = jax.tree.flatten(grads)
    check_structure(structure, layout.structure)
    if tuple(map(np.shape, leaves)) != layout.shapes:
        raise ValueError(_misfit(grads, layout))
    return grads


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
) -> Callable[[Flat, Params, Params], tuple[Flat, Params]]:
    """One update as a jitted function, compiled before the first worker waits for it.

    The optimiser sees trees; to take them out of the vectors and put them back costs nothing there.
    """

    def update(params: Flat, opt_state: Params, grads: Params) -> tuple[Flat, Params]:
        tree = params.tree
        grads = jax.tree.map(lambda grad, param: grad.astype(param.dtype), grads, tree)
        with jax.numpy_dtype_promotion("standard"):  # optax's own arithmetic mixes types
            updates, opt_state = optimizer.update(grads, opt_state, tree)
            return Flat.of(optax.apply_updates(tree, updates)), opt_state

    jitted: Any = jax.jit(update)
    jitted(params, opt_state, jax.tree.map(lambda p: np.zeros(p.shape, p.dtype), params).tree)
    return jitted  # type: ignore[no-any-return]  # jax.jit forgets the signature


def weighted_mean(gradients: list[tuple[Params, float]]) -> Params:
    """The mean of gradients by their weights, summed in the order given."""
    total = sum(weight for _, weight in gradients)
    shares = [weight / total for _, weight in gradients]

    def mean(*leaves: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        result: np.ndarray[Any, Any]
        result = np.multiply(leaves[0], np.asarray(shares[0], leaves[0].dtype))
        for leaf, share in zip(leaves[1:], shares[1:], strict=True):
            result += np.multiply(leaf, np.asarray(share, leaf.dtype))
        return result

    return jax.tree.map(mean, *[jax.tree.map(np.asarray, grads) for grads, _ in gradients])
