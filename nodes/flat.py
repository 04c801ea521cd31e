"""A pytree of arrays as one vector for each type of number, inside `jit` and outside.

What travels between nodes, enters or leaves a compiled function costs some microseconds an array,
however small. A network of a hundred layers is two hundred arrays; flat, it is one.
"""

from __future__ import annotations

import functools
import math
import pickle
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np

Tree: TypeAlias = Any
"""A pytree of arrays. `Any`, since type checkers cannot express "nested containers of arrays"."""


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """What a tree is besides its numbers. Those made by `layout_of` are one object if equal.

    Args:
      structure: of the tree.
      shapes, dtypes: of each leaf.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype[Any], ...]

    def __eq__(self, other: object) -> bool:
        # `jit` asks for each argument of each call, and to compare structures takes long.
        return self is other or (isinstance(other, Layout) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _key(self) -> tuple[Any, ...]:
        return self.structure, self.shapes, self.dtypes

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    @functools.cached_property
    def places(self) -> tuple[tuple[int, int, int], ...]:
        """Of each leaf: the index of its vector, where it begins there and where it ends."""
        ends = dict.fromkeys(self.dtypes, 0)
        order = list(ends)
        places = []
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            begin = ends[dtype]
            ends[dtype] = begin + math.prod(shape)
            places.append((order.index(dtype), begin, ends[dtype]))
        return tuple(places)

    @functools.cached_property
    def packed(self) -> bytes:
        """The layout for other processes."""
        skeleton = jax.tree.unflatten(self.structure, range(len(self.shapes)))
        packed: bytes = cloudpickle.dumps((skeleton, self.shapes, self.dtypes))
        return packed


_known: dict[Layout, Layout] = {}


def layout_of(
    structure: Any, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[np.dtype[Any], ...]
) -> Layout:
    """The layout of these."""
    layout = Layout(structure, shapes, dtypes)
    return _known.setdefault(layout, layout)


@functools.lru_cache(maxsize=64)
def _unpack(packed: bytes) -> Layout:
    skeleton, shapes, dtypes = pickle.loads(packed)
    return layout_of(jax.tree.structure(skeleton), shapes, dtypes)


@jax.jit
def _join(parts: list[jax.Array]) -> jax.Array:
    """The vectors, one after the other; XLA's own concatenation takes far longer on a CPU."""
    joined = jnp.empty(sum(part.size for part in parts), parts[0].dtype)
    begin = 0
    for part in parts:
        joined = jax.lax.dynamic_update_slice(joined, part, (begin,))
        begin += part.size
    return joined


@jax.tree_util.register_pytree_node_class
@final
class Flat:
    """A pytree of arrays, laid out in vectors; itself a pytree that `jit` takes and returns.

    Args:
      vectors: one for each type of number in the tree, in the order in which they occur there.
      layout: how the leaves lie in them.

    Example:
      >>> flat = Flat.of({"w": np.ones((2, 2)), "b": np.zeros(1)})
      >>> flat.vectors
      (array([0., 1., 1., 1., 1.]),)
      >>> flat.tree["w"].shape
      (2, 2)
    """

    __slots__ = ("_tree", "layout", "vectors")

    def __init__(self, vectors: tuple[Any, ...], layout: Layout) -> None:
        self.vectors = vectors
        self.layout = layout
        self._tree: Tree = None

    @classmethod
    def of(cls, tree: Tree) -> Flat:
        """Copies the leaves of `tree` into vectors: of numpy where all are numpy's, else of jax."""
        leaves, structure = jax.tree.flatten(tree)
        plain = not any(isinstance(leaf, jax.Array) for leaf in leaves)
        leaves = [(np if plain else jnp).asarray(leaf) for leaf in leaves]
        dtypes = tuple(np.dtype(leaf.dtype) for leaf in leaves)
        layout = layout_of(structure, tuple(leaf.shape for leaf in leaves), dtypes)
        parts: dict[Any, list[Any]] = {}
        for leaf, dtype in zip(leaves, dtypes, strict=True):
            parts.setdefault(dtype, []).append(leaf.reshape(-1))
        join: Any = np.concatenate if plain else _join
        return cls(tuple(map(join, parts.values())), layout)

    @property
    def tree(self) -> Tree:
        """The tree. Its leaves are views of the vectors; inside `jit` they cost nothing."""
        if self._tree is None:
            layout, vectors = self.layout, self.vectors
            leaves = [
                vectors[index][begin:end].reshape(shape)
                for (index, begin, end), shape in zip(layout.places, layout.shapes, strict=True)
            ]
            self._tree = jax.tree.unflatten(layout.structure, leaves)
        return self._tree

    def to_numpy(self) -> Flat:
        """The same with vectors of numpy, which on the CPU are those of jax, not copied."""
        return Flat(tuple(map(np.asarray, self.vectors)), self.layout)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        """For `jax.tree_util`."""
        return self.vectors, self.layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, vectors: tuple[Any, ...]) -> Flat:
        """For `jax.tree_util`."""
        return cls(tuple(vectors), layout)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load, (self.layout.packed, self.vectors)

    def __repr__(self) -> str:
        return f"<Flat of {len(self.layout.shapes)} arrays in {len(self.vectors)} vectors>"


def _load(packed: bytes, vectors: tuple[Any, ...]) -> Flat:
    return Flat(vectors, _unpack(packed))
