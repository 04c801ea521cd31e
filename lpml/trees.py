"""Stacks and splits nested containers of arrays without importing jax."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def map_structure(function: Callable[..., Any], *trees: Any) -> Any:
    """`function` over the leaves of trees of one structure.

    Tuples (named ones too), lists and dicts are containers; so are jax's registered pytrees where
    jax is imported. `None` is an empty tree.
    """
    if "jax" in sys.modules:
        return sys.modules["jax"].tree.map(function, *trees)
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: map_structure(function, *(tree[key] for tree in trees)) for key in first}
    if isinstance(first, (tuple, list)):
        parts = [map_structure(function, *rows) for rows in zip(*trees, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return function(*trees)


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    found: list[Any] = []
    map_structure(found.append, tree)
    return found


def stack_examples(examples: list[Any]) -> Any:
    """One tree of arrays `[B, ...]` from B trees of arrays `[...]`."""
    import numpy as np

    return map_structure(lambda *rows: np.stack([np.asarray(row) for row in rows]), *examples)


def split_batch(batch: Any, size: int) -> list[Any]:
    """B trees of arrays `[...]` from one tree of arrays `[B, ...]`.

    Raises:
      ValueError: a leaf has no leading axis of length `size`.
    """
    import numpy as np

    batch = map_structure(np.asarray, batch)
    for leaf in leaves(batch):
        if leaf.ndim == 0 or leaf.shape[0] != size:
            raise ValueError(
                f"a batched method was given {size} examples and returned an array of shape "
                f"{leaf.shape}; its first axis must be the batch"
            )
    return [map_structure(lambda leaf, i=i: leaf[i], batch) for i in range(size)]
